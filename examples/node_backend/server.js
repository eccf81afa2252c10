// A Node back end: POST /orders tracks an order and notifies the shop's owner.
//
// node examples/node_backend/server.js [PORT]     (with FlashFlow running on the same machine, for the same user)

import http from "node:http";

import { Client } from "../../clients/js/index.js";

const client = new Client({ app: "node-shop" });

const server = http.createServer(async (request, response) => {
  if (request.method !== "POST" || request.url !== "/orders") {
    response.writeHead(404).end();
    return;
  }
  client.track("order_paid", { total: 12.5 }, { pageUrl: request.url });
  // Queued: the customer does not wait for FlashFlow.
  await client.send("Order paid", "12.50 EUR", { notificationType: "orders", wait: 0 });
  response.writeHead(201, { "Content-Type": "application/json" }).end('{"paid": true}\n');
});

server.listen(Number(process.argv[2] ?? 3000), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));

process.once("SIGTERM", async () => {
  server.close();
  await client.close();
});

// Servers for the tests: one that knows the key and answers as planned, however badly.

import crypto from "node:crypto";
import { once } from "node:events";
import net from "node:net";

export const KEY = "ff_0123456789abcdefghijklmnopqrstuvwxyzABCD";

/** A response; `headers` are lines that end in CRLF. */
export const http = (status, body, headers = "") => {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return `HTTP/1.1 ${status} X\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n${headers}\r\n${text}`;
};

export const problem = (status, code, headers = "") =>
  http(status, { success: false, status, code, title: code, detail: `It is ${code}.` }, headers);

/** As FlashFlow answers. */
export const accept = (request) => {
  if (request.path.endsWith("/batch")) return http(200, { success: true, accepted: 0, duplicates: 0, rejected: [] });
  if (request.path.endsWith("/send")) return http(201, { success: true, notification_id: "n1", status: "delivered", deliveries: [] });
  return http(200, { success: true, notifications: [], unread_count: 0, next_cursor: null });
};

/** Start a server. `plan(request, socket)` returns the bytes to send, undefined to hang, null to hang up. */
export async function serve(plan = accept, { proves = true } = {}) {
  const found = { plan, plans: [], requests: [], proofs: 0, connections: 0, sockets: new Set() };
  const server = net.createServer((socket) => {
    found.connections++;
    found.sockets.add(socket);
    socket.on("error", () => {});
    let rest = Buffer.alloc(0);
    socket.on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (;;) {
        const end = rest.indexOf("\r\n\r\n");
        if (end < 0) return;
        const [first, ...lines] = rest.toString("utf8", 0, end).split("\r\n");
        const headers = Object.fromEntries(lines.map((line) => [line.split(": ")[0].toLowerCase(), line.split(": ")[1]]));
        const length = Number(headers["content-length"] ?? 0);
        if (rest.length < end + 4 + length) return;
        const body = rest.toString("utf8", end + 4, end + 4 + length);
        rest = rest.subarray(end + 4 + length);
        const [method, path] = first.split(" ");
        const request = { method, path, headers, body };
        let answer;
        if (path === "/api/proof" && proves) {
          found.proofs++;
          answer = http(200, { success: true, proof: proof(JSON.parse(body).nonce, headers.host) });
        } else {
          found.requests.push(request);
          answer = (found.plans.shift() ?? found.plan)(request, socket);
        }
        if (answer === null) socket.destroy();
        else if (answer !== undefined) socket.write(answer);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  found.url = `http://127.0.0.1:${server.address().port}`;
  found.ids = () =>
    found.requests.filter((each) => each.path.endsWith("/batch")).flatMap((each) => JSON.parse(each.body).activities.map((row) => row.activity_id));
  found.close = () => {
    for (const socket of found.sockets) socket.destroy();
    server.close();
  };
  return found;
}

function proof(nonce, host) {
  const digest = crypto.createHash("sha256").update(KEY).digest();
  return crypto.createHmac("sha256", digest).update("flashflow-proof-1").update(Buffer.from(nonce, "hex")).update(host).digest("hex");
}

/** Wait until `look` returns something truthy. */
export async function eventually(look, ms = 10_000) {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 5))) {
    const found = await look();
    if (found) return found;
  }
  throw new Error(`waited in vain for ${look}`);
}

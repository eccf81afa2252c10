// With a real FlashFlow, whose data folder FLASHFLOW_DATA_DIR names: tests/client/test_js_client.py starts it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client, Refused } from "../index.js";

test("track, send, inbox, markRead and stream, with address and key from the data folder", async () => {
  const client = new Client({ app: "js", userId: "ada" });
  const ids = Array.from({ length: 2_500 }, (_, n) => client.track("export", { n }, { pageUrl: "/x" }));
  assert.equal(await client.flush(20_000), 0);
  assert.equal(new Set(ids).size, 2_500);
  const events = client.stream({ userId: "ada", lastEventId: "0-0-0-0" });
  const sent = await client.send("Build finished", "All tests passed.", { channels: ["in_app"], data: { n: 1 } });
  assert.deepEqual([sent.status, sent.deliveries[0].channel], ["delivered", "in_app"]);
  const page = await client.inbox({ status: "unread" });
  assert.deepEqual([page.unreadCount, page.nextCursor, page.notifications[0].id], [1, null, sent.notificationId]);
  assert.equal((await client.markRead(sent.notificationId)).status, "read");
  for await (const event of events) {
    if (event.event !== "notification") continue;
    assert.equal(event.data.id, sent.notificationId);
    break;
  }
  await assert.rejects(client.send("T", "M", { priority: "loud" }), (error) => error instanceof Refused && error.status === 400);
  client.track("future", {}, { timestamp: new Date(Date.now() + 86_400_000) });
  await client.flush();
  assert.match(client.rejected()[0].message, /more than an hour in the future/);
  assert.equal(await client.close(), 0);
});

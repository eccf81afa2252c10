import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, afterEach, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Client, NotProven, Refused, Unreachable, waits } from "../index.js";
import { KEY, accept, eventually, http, problem, serve } from "../support/servers.js";

process.removeAllListeners("warning");
Object.assign(waits, { ask: 500, firstRetry: 10, lastRetry: 50, hold: 50 });
const INDEX = fileURLToPath(new URL("../index.js", import.meta.url));
const folders = [];
let folder;
let running;
let client;

const make = (options = {}) => new Client({ app: "todo", userId: "ada", url: running.url, key: KEY, dataDir: folder, ...options });

async function begin(plan, options) {
  running?.close();
  running = await serve(plan, options);
  client = make();
}

beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "flashflow-js-"));
  folders.push(folder);
});

afterEach(async () => {
  await client?.close(0);
  running?.close();
  client = running = undefined;
});

after(() => folders.forEach((each) => fs.rmSync(each, { recursive: true, force: true })));

test("every field arrives as given, and the key only after the proof, once a connection", async () => {
  await begin();
  const timestamp = new Date("2026-01-02T03:04:05.678Z");
  client.track("export", { ü: [1, null, "\u2028"] }, { activityId: "a", sessionId: "s", pageUrl: "/p", userId: "bob", timestamp });
  assert.equal(await client.flush(), 0);
  const sent = await client.send("T", "M", { userIds: ["a"], expiresAt: timestamp, collapseKey: "k", channels: ["in_app"] });
  assert.equal(sent.status, "delivered");
  const [batch, send] = running.requests;
  assert.deepEqual(JSON.parse(batch.body).activities, [
    {
      activity_id: "a", user_id: "bob", activity_type: "export", timestamp: timestamp.toISOString(), session_id: "s",
      metadata: { ü: [1, null, "\u2028"] }, page_url: "/p",
    },
  ]);
  assert.deepEqual(JSON.parse(send.body), {
    user_ids: ["a"], title: "T", message: "M", channels: ["in_app"], expires_at: timestamp.toISOString(), collapse_key: "k",
  });
  assert.deepEqual([running.connections, running.proofs], [1, 1]);
  assert.ok(running.requests.every((each) => each.headers.authorization === `Bearer ${KEY}`));
});

test("a wrong argument throws at once and stores nothing", async () => {
  await begin();
  const wrong = [
    () => client.track(""),
    () => client.track("a*"),
    () => client.track("x", [1]),
    () => client.track("x", {}, { userId: "a\nb" }),
    () => client.track("x", {}, { userId: "\ud800" }),
    () => client.track("x", {}, { timestamp: new Date(NaN) }),
    () => client.track("x", { text: "x".repeat(1_000_000) }),
    () => client.track("x", { text: "half \ud800" }),
    () => client.track("x", {}, { sesionId: "a" }),
    () => make({ userid: "ada" }),
    () => make({ app: "../x" }),
    () => make({ key: "a\r\nb" }),
  ];
  for (const call of wrong) assert.throws(call, TypeError);
  await assert.rejects(client.send("T"), TypeError);
  await assert.rejects(client.send("T", "M", { chanels: ["push"] }), /no option chanels/);
  await assert.rejects(client.inbox({ stauts: "unread" }), /no option stauts/);
  assert.equal(client.pending, 0);
  client.track("x", { text: "a path C:\\ud800 and 😀" }); // no half character
});

const TRANSIENT = {
  hangs: () => undefined,
  dies: () => null,
  "no HTTP": () => "SSH-2.0-OpenSSH_9\r\n\r\n",
  HTML: () => http(200, "<html>"),
  "deep JSON": () => http(200, "[".repeat(100_000)),
  "a list": () => http(200, "[]"),
  huge: () => "HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n",
  "a wrong chunk": () => "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
  "an endless header": () => `HTTP/1.1 200 X\r\n${"X: y\r\n".repeat(20_000)}`,
  "400 of another program": () => http(400, { error: "bad" }),
  redirect: () => http(307, "", "Location: http://127.0.0.1:1/\r\n"),
  ...Object.fromEntries([401, 403, 408, 409, 425, 429, 500, 503, 507].map((status) => [status, () => problem(status, "x")])),
};

for (const [name, plan] of Object.entries(TRANSIENT)) {
  test(`rows wait and arrive once when the server is well again: ${name}`, async () => {
    await begin();
    running.plans = [plan];
    assert.equal((await client.send("T", "M", { wait: 200 })).status, "queued");
    running.plans = [plan];
    const ids = [client.track("export"), client.track("export")];
    await eventually(() => client.pending === 0);
    assert.deepEqual(running.ids().slice(-2), ids);
    const sends = running.requests.filter((each) => each.path.endsWith("/send"));
    assert.ok(sends.length >= 2);
    assert.equal(new Set(sends.map((each) => each.headers["idempotency-key"] + each.body)).size, 1);
    assert.deepEqual(client.rejected(), []);
  });
}

test("a slow answer ends at the deadline", async () => {
  await begin((_, socket) => {
    socket.write("HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n");
    const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write(" ")), 20);
  });
  const began = Date.now();
  await assert.rejects(client.inbox({ timeout: 200 }), Unreachable);
  assert.ok(Date.now() - began < 5_000);
});

test("Retry-After is obeyed", async () => {
  await begin(() => problem(503, "stopping", "Retry-After: 30\r\n"));
  client.track("export");
  await eventually(() => running.requests.length);
  assert.equal(await client.flush(200), 1);
  assert.equal((await client.send("T", "M")).status, "queued");
  assert.equal(running.requests.length, 1);
});

test("a refused row is kept with the server's words and holds up no other", async () => {
  const reported = [];
  const picky = (request) => {
    if (!request.path.endsWith("/batch")) return problem(400, "validation_error");
    const rows = JSON.parse(request.body).activities;
    const rejected = rows.flatMap((row, index) => (row.activity_type === "bad" ? [{ index, errors: [{ field: "x", message: "is bad" }] }] : []));
    return http(200, { success: true, rejected: [...rejected, null, { index: 99 }] });
  };
  await begin(picky);
  await client.close(0);
  client = make({ onReject: (rows) => reported.push(...rows) });
  client.track("good");
  client.track("bad");
  client.track("good");
  await client.send("T", "M", { wait: 0 });
  assert.equal(await client.flush(), 0);
  assert.deepEqual(client.rejected().map((row) => row.message), ["The row is not valid; x: is bad", "It is validation_error."]);
  assert.deepEqual(reported.map((row) => row.body), client.rejected().map((row) => row.body));
  await assert.rejects(client.send("T", "M"), (error) => error instanceof Refused && error.code === "validation_error");
});

test("a bad row is found in a batch that is refused as a whole", async () => {
  await begin((request) => (request.body.includes("poison") ? problem(400, "validation_error") : accept(request)));
  const good = Array.from({ length: 20 }, () => client.track("export"));
  client.track("poison");
  good.push(client.track("export"));
  assert.equal(await client.flush(), 0);
  const delivered = running.requests.filter((each) => !each.body.includes("poison")).flatMap((each) => JSON.parse(each.body).activities.map((row) => row.activity_id));
  assert.deepEqual(delivered.sort(), good.sort());
  assert.equal(client.rejected().length, 1);
});

for (const [name, plan] of Object.entries({
  "any proof": () => http(200, { success: true, proof: "0".repeat(64) }),
  echo: (request) => http(200, request.body),
  empty: () => http(200, ""),
  hangs: TRANSIENT.hangs,
  "hangs up": TRANSIENT.dies,
  huge: TRANSIENT.huge,
})) {
  test(`another program on the port gets no key and no row: ${name}`, async () => {
    await begin(plan, { proves: false });
    client.track("secret");
    assert.equal((await client.send("T", "secret", { wait: 200 })).status, "queued");
    await assert.rejects(client.inbox({ timeout: 200 }), Unreachable);
    const seen = JSON.stringify(running.requests);
    assert.ok(running.requests.length && running.requests.every((each) => each.path === "/api/proof"));
    assert.ok(!seen.includes("Bearer") && !seen.includes(KEY) && !seen.includes("secret"));
  });
}

test("address and key are found in the data folder, unless another user may have written them", async () => {
  running = await serve();
  const place = (name, text) => fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
  place("server.json", JSON.stringify({ url: running.url, pid: 1 }));
  place("local.key", KEY);
  client = make({ url: undefined, key: undefined });
  await client.send("T", "M");
  assert.equal(JSON.parse(running.requests[0].body).app, "todo");
  fs.chmodSync(path.join(folder, "local.key"), 0o644);
  await assert.rejects(client.inbox(), NotProven);
  fs.rmSync(path.join(folder, "local.key"));
  fs.symlinkSync("/etc/hostname", path.join(folder, "local.key"));
  await assert.rejects(client.inbox(), NotProven);
  fs.rmSync(path.join(folder, "server.json"));
  await assert.rejects(client.inbox(), Unreachable);
  fs.chmodSync(folder, 0o777);
  await assert.rejects(client.inbox(), NotProven);
});

const run = async (script, env = {}) => {
  const child = spawn(process.execPath, ["--input-type=module", "-e", `import { Client } from ${JSON.stringify(INDEX)}; ${script}`], {
    env: { ...process.env, FLASHFLOW_DATA_DIR: folder, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  child.stdout.on("data", (data) => (out += data));
  await once(child, "close");
  return out.trim().split("\n");
};
const TRACK = `import fs from "node:fs"; const client = new Client({ app: "todo" });
  for (let n = 0; n < 50; n++) fs.writeSync(1, client.track("export") + "\\n");`;

for (const end of [`process.kill(process.pid, "SIGKILL");`, "process.exit();", ""]) {
  test(`rows of a process that ended arrive once with the next: ${end || "end"}`, async () => {
    const ids = await run(TRACK + end);
    assert.equal(ids.length, 50);
    await begin();
    assert.equal(client.pending, 50);
    assert.equal(await client.flush(), 0);
    await client.close();
    client = make();
    await client.flush();
    assert.deepEqual(running.ids(), ids);
    assert.deepEqual(fs.readdirSync(path.join(folder, "client")).length, 1);
  });
}

test("a program that ends delivers first", async () => {
  running = await serve();
  const ids = await run(TRACK, { FLASHFLOW_URL: running.url, FLASHFLOW_KEY: KEY });
  assert.deepEqual(running.ids(), ids);
});

test("two processes lose and double nothing", async () => {
  running = await serve();
  const env = { FLASHFLOW_URL: running.url, FLASHFLOW_KEY: KEY };
  const ids = (await Promise.all([run(TRACK, env), run(TRACK, env)])).flat();
  client = make();
  await client.flush();
  assert.deepEqual(running.ids().sort(), ids.sort());
});

test("a file that was cut loses the cut line only, and is private", async () => {
  const ids = await run(TRACK + `process.kill(process.pid, "SIGKILL");`);
  const [name] = fs.readdirSync(path.join(folder, "client"));
  const file = path.join(folder, "client", name);
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  fs.truncateSync(file, fs.statSync(file).size - 20);
  await begin();
  await client.flush();
  assert.deepEqual(running.ids(), ids.slice(0, -1));
});

test("where no file can be used rows are kept in memory and isDurable says so", async () => {
  await begin();
  const other = make({ dataDir: "/proc/x" });
  assert.equal(other.isDurable, false);
  const id = other.track("export");
  assert.equal(await other.close(), 0);
  assert.deepEqual(running.ids(), [id]);
});

for (const call of ["writeSync", "appendFileSync"]) {
  test(`a full disk loses no row that an earlier process stored, and no refused one: ${call}`, async () => {
    const ids = await run(TRACK + `process.kill(process.pid, "SIGKILL");`);
    const original = fs[call];
    fs[call] = () => {
      throw new Error("no space left on device");
    };
    try {
      await begin(() => problem(400, "validation_error"));
      if (call === "appendFileSync") {
        await client.flush();
        assert.deepEqual(client.rejected().map((each) => each.body.activity_id).sort(), ids.sort());
      }
      await client.close(0);
    } finally {
      fs[call] = original;
    }
    if (call === "appendFileSync") return;
    const lines = fs.readdirSync(path.join(folder, "client")).map((name) => fs.readFileSync(path.join(folder, "client", name), "utf8"));
    assert.ok(ids.every((id) => lines.join("").includes(id)));
  });
}

test("a full queue drops the oldest rows, and a long one is compacted", async () => {
  await begin(() => problem(503, "stopping", "Retry-After: 30\r\n"));
  const bounded = make({ mostRows: 100 });
  const ids = Array.from({ length: 1_000 }, () => bounded.track("export", { text: "x".repeat(10_000) }));
  assert.ok(bounded.pending <= 100);
  assert.equal(bounded.dropped, 1_000 - bounded.pending);
  const left = bounded.pending;
  const size = fs.readdirSync(path.join(folder, "client")).reduce((sum, name) => sum + fs.statSync(path.join(folder, "client", name)).size, 0);
  assert.ok(size < 9_000_000, `${size}`);
  await bounded.close(0);
  running.plan = accept;
  const next = make();
  await next.close();
  assert.deepEqual(running.ids().slice(-left), ids.slice(-left));
});

test("a disabled client touches no file and no server", async () => {
  running = await serve();
  client = make({ disabled: true });
  assert.ok(client.track("export"));
  assert.equal((await client.send("T", "M")).status, "disabled");
  assert.deepEqual(await client.inbox(), { notifications: [], unreadCount: 0, nextCursor: null });
  for await (const _ of client.stream()) assert.fail();
  assert.deepEqual(fs.readdirSync(folder), []);
  assert.equal(running.connections, 0);
});

const event = (n, text = '{"n": 1}') => `id: ${n}-0-0-0\nevent: activity\ndata: ${text}\n\n`;
const streaming = (...parts) => (_, socket) => {
  socket.end(`HTTP/1.1 200 X\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n${parts.join("")}`);
};

test("a stream continues after each break with the last id, and ends with close", async () => {
  await begin(() => undefined);
  running.plans = [
    streaming("retry: 1000\n: FlashFlow\nid: 0-0-0-0\n\n", event(1)),
    () => null,
    () => problem(503, "stopping"),
    streaming(event(2), event(3).slice(0, -3)),
    streaming(event(3, "no JSON")),
    streaming(`data: ${"x".repeat(5_000_000)}`),
    streaming(event(4, '{"text": "\u2028"}').replaceAll("\n", "\r\n")),
  ];
  const found = client.stream({ userId: "ada" });
  const ids = [];
  for (let n = 0; n < 3; n++) ids.push((await found.next()).value.id);
  assert.deepEqual(ids, ["1-0-0-0", "2-0-0-0", "4-0-0-0"]);
  const heard = running.requests.map((each) => each.headers["last-event-id"]);
  assert.deepEqual(heard, [undefined, "1-0-0-0", "1-0-0-0", "1-0-0-0", "2-0-0-0", "2-0-0-0", "2-0-0-0"]);
  assert.equal(running.requests[0].path, "/api/stream?user_id=ada");
  const end = found.next();
  await eventually(() => running.requests.length > 7);
  await client.close(0);
  assert.deepEqual(await end, { value: undefined, done: true });
});

test("a refused stream throws", async () => {
  await begin(() => problem(403, "forbidden"));
  await assert.rejects(client.stream().next(), Refused);
});

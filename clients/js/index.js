// Client of a local FlashFlow for Node and Bun. docs/client.md describes every promise.

import crypto from "node:crypto";
import os from "node:os";
import path from "node:path";

import { Connection, isProblem, isSuccess } from "./connection.js";
import { dataFolder, findServer } from "./discovery.js";
import { ClientError, NotProven, Refused, Unreachable, wordsOf } from "./errors.js";
import { Queue } from "./queue.js";

export { ClientError, NotProven, Refused, Unreachable };

const BATCH_ROWS = 1000;
const BATCH_BYTES = 1_000_000;
const ROW_BYTES = 900_000;
const SEND_MS = 2_000;
const EXIT_MS = 1_000;
const LINGER_MS = 20;
const MOST_CONFLICTS = 5;
const MOST_IDLE = 4;
/** Intervals in ms. Tests shorten them. */
export const waits = { ask: 15_000, firstRetry: 500, lastRetry: 60_000, look: 5_000, hold: 30_000 };

const NAME = /^(?=[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])[^\x00-\x1f\x7f]*$/;
const TYPE = /^(?=[^\x00-\x1f\x7f*]*[^\x00-\x20\x7f*])[^\x00-\x1f\x7f*]*$/;
const APP = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** @typedef {import("./queue.js").Row} Row */
/** @typedef {import("./connection.js").Answer} Answer */
/** @typedef {import("./discovery.js").Server} Server */

export class Client {
  /** @type {Connection[]} */
  #idle = [];
  /** @type {Set<Connection>} */
  #open = new Set();
  /** @type {Promise<void> | undefined} */
  #pumping;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;
  #said = new Set();
  #failures = 0;
  #retryAt = 0;
  #most = BATCH_ROWS;
  #closed = false;
  #queue;
  #onReject;
  #url;
  #key;
  #folder;

  /** @param {import("./index.d.ts").ClientOptions} [options] */
  constructor({ app, userId, url, key, dataDir, disabled, onReject, mostRows = 100_000, ...others } = {}) {
    none(others);
    const env = process.env;
    this.app = checked("app", app || env.FLASHFLOW_APP || program(), 64, APP);
    this.userId = checked("userId", userId || env.FLASHFLOW_USER || login(), 255);
    this.disabled = disabled ?? !["", "0"].includes(env.FLASHFLOW_OFF ?? "");
    this.#url = url ?? env.FLASHFLOW_URL;
    this.#key = key ?? env.FLASHFLOW_KEY;
    if (this.#key !== undefined) checked("key", this.#key, 512, /^[\x21-\x7e]+$/);
    this.#folder = dataDir ? path.resolve(dataDir) : dataFolder(env);
    this.#onReject = onReject;
    this.#queue = this.disabled ? undefined : new Queue(this.#folder, this.app, mostRows, (text) => this.#warnOnce(text));
    if (this.#queue) {
      process.on("beforeExit", this.#atExit);
      if (this.#queue.rows.length) this.#start();
    }
  }

  // --- write

  /**
   * Store an activity and return its id; it is sent soon. Throws TypeError for a wrong argument.
   * @param {string} activityType
   * @param {Record<string, unknown>} [metadata]
   * @param {import("./index.d.ts").TrackOptions} [options]
   */
  track(activityType, metadata, { userId, sessionId, pageUrl, referrer, userAgent, timestamp, activityId, ...others } = {}) {
    none(others);
    const id = activityId ? checked("activityId", activityId, 200) : uuid7();
    const row = {
      activity_id: id,
      user_id: checked("userId", userId || this.userId, 255),
      activity_type: checked("activityType", activityType, 100, TYPE),
      timestamp: timeText("timestamp", timestamp ?? new Date()),
      session_id: optional("sessionId", sessionId, 200),
      metadata: object("metadata", metadata),
      page_url: optional("pageUrl", pageUrl, 2048),
      referrer: optional("referrer", referrer, 2048),
      user_agent: optional("userAgent", userAgent, 512),
    };
    this.#put("activity", json(row));
    return id;
  }

  /**
   * Send a notification and wait `wait` ms at most for the answer; without one it is delivered later, once (`queued`).
   * Throws TypeError, and Refused for the server's refusal.
   * @param {string | undefined} title
   * @param {string | undefined} message
   * @param {import("./index.d.ts").SendOptions} [options]
   * @returns {Promise<import("./index.d.ts").Sent>}
   */
  async send(title, message, options = {}) {
    const { wait = SEND_MS, userId, userIds, scheduledAt, expiresAt, template, data, ...others } = options;
    const { notificationType, channels, priority, collapseKey, actions, locale, ...unknown } = others;
    none(unknown);
    if (template === undefined && (title === undefined || message === undefined)) {
      throw new TypeError("a notification needs a title and a message, or a template");
    }
    const body = json({
      user_id: userIds ? undefined : checked("userId", userId || this.userId, 255),
      user_ids: userIds,
      title: optional("title", title, 300),
      message: message === undefined ? undefined : checked("message", message, 10_000, /^[^\0]*[^\0-\x20][^\0]*$/),
      notification_type: notificationType,
      channels,
      data: object("data", data),
      priority,
      scheduled_at: scheduledAt && timeText("scheduledAt", scheduledAt),
      expires_at: expiresAt && timeText("expiresAt", expiresAt),
      collapse_key: collapseKey,
      actions,
      template,
      locale,
    });
    const row = this.#put("send", body, uuid7(), wait <= 0);
    if (!row || !this.#queue) return { status: "disabled", notificationId: null, deliveries: [] };
    if (wait > 0 && Date.now() >= this.#retryAt) {
      row.busy = true; // the sender leaves it to this call
      try {
        const answer = await this.#post([row], Date.now() + wait);
        if (isSuccess(answer)) {
          this.#queue.remove([row]);
          const { status, notification_id: id, deliveries } = answer.body;
          return { status: String(status ?? "sent"), notificationId: id ?? null, deliveries: deliveries ?? [], answer: answer.body };
        }
        if (isFinal(answer)) {
          this.#queue.remove([row]);
          throw new Refused(answer.status, answer.body);
        }
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
      } finally {
        row.busy = false;
      }
    }
    this.#start();
    return { status: "queued", notificationId: null, deliveries: [] };
  }

  // --- read

  /**
   * Return a page of the user's inbox. Throws Unreachable, Refused.
   * @param {import("./index.d.ts").InboxOptions} [options]
   * @returns {Promise<import("./index.d.ts").Inbox>}
   */
  async inbox({ userId, status, limit, cursor, timeout = waits.ask, ...others } = {}) {
    none(others);
    const user = checked("userId", userId || this.userId, 255);
    if (this.disabled) return { notifications: [], unreadCount: 0, nextCursor: null };
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ status, limit, cursor })) if (value !== undefined) query.set(name, String(value));
    const found = await this.#api("GET", `/api/notifications/user/${encodeURIComponent(user)}?${query}`, timeout);
    return { notifications: found.notifications, unreadCount: found.unread_count, nextCursor: found.next_cursor };
  }

  /**
   * Mark a notification as read and return it. Throws Unreachable, Refused.
   * @param {string} notificationId
   * @param {{ timeout?: number }} [options]
   */
  async markRead(notificationId, { timeout = waits.ask } = {}) {
    const id = encodeURIComponent(checked("notificationId", notificationId, 200));
    return this.disabled ? {} : (await this.#api("POST", `/api/notifications/read/${id}`, timeout)).notification;
  }

  /**
   * Yield events of one user, or of every user that the key sees, until the loop ends; reconnect where it broke.
   * Throws Refused.
   * @param {import("./index.d.ts").StreamOptions} [options]
   * @returns {AsyncGenerator<import("./index.d.ts").StreamEvent, void>}
   */
  async *stream({ userId, lastEventId = "" } = {}) {
    const path = "/api/stream" + (userId ? `?user_id=${encodeURIComponent(checked("userId", userId, 255))}` : "");
    let position = lastEventId;
    for (let failures = 1; !this.#closed && !this.disabled; failures++) {
      let delay = 0;
      try {
        const connection = await this.#connect(this.#find(), Date.now() + waits.ask);
        try {
          for await (const [id, event, text] of connection.follow(path, position)) {
            failures = 0;
            if (event) yield { id, event, data: parseEvent(text) };
            position = id;
          }
        } finally {
          connection.close();
          this.#open.delete(connection);
        }
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        delay = error instanceof NotProven ? waits.hold : error.retryAfter;
        if (error instanceof NotProven) this.#warnOnce(error.message);
      }
      await this.#sleep(Math.max(delay, backoff(failures, this.#longest)));
    }
  }

  // --- state

  /** Rows that wait for delivery. */
  get pending() {
    return this.#queue?.rows.length ?? 0;
  }

  /** Rows that were dropped because the queue was full. */
  get dropped() {
    return this.#queue?.dropped ?? 0;
  }

  /** Whether rows survive the end of the process. */
  get isDurable() {
    return this.#queue?.isDurable ?? false;
  }

  /** Return the rows that the server refused, oldest first. */
  rejected() {
    return this.#queue?.rejected() ?? [];
  }

  /**
   * Deliver the rows that wait, for `timeout` ms at most; return the number of rows left.
   * @param {number} [timeout]
   */
  async flush(timeout = 5_000) {
    const deadline = Date.now() + timeout;
    this.#failures = 0;
    while (this.pending && !this.#closed) {
      await this.#pump(deadline);
      const next = Math.max(this.#retryAt, this.#nextDue(), Date.now() + (this.pending ? 10 : 0));
      if (next >= deadline) break;
      if (this.pending) await this.#sleep(next - Date.now());
    }
    return this.pending;
  }

  /**
   * Flush, end the streams, close the file. Return the number of rows left, which stay stored.
   * @param {number} [timeout]
   */
  async close(timeout = 5_000) {
    if (this.#closed) return 0;
    const left = await this.flush(timeout);
    this.#closed = true;
    clearTimeout(this.#timer);
    process.removeListener("beforeExit", this.#atExit);
    for (const connection of this.#open) connection.close();
    await this.#pumping?.catch(() => {});
    this.#queue?.close();
    return left;
  }

  // --- parts

  get #longest() {
    return this.#url ? waits.lastRetry : Math.min(waits.look, waits.lastRetry);
  }

  /**
   * @param {Row["kind"]} kind
   * @param {string} body
   * @param {string} [key]
   */
  #put(kind, body, key, wake = true) {
    if (this.#closed) throw new ClientError("The client is closed.");
    const row = this.#queue?.add(kind, body, key);
    if (row && wake) this.#start();
    return row;
  }

  /** @param {string} text */
  #warnOnce(text) {
    if (this.#said.has(text)) return;
    this.#said.add(text);
    process.emitWarning(text, "FlashFlowWarning");
  }

  #find() {
    return findServer({ url: this.#url, key: this.#key, folder: this.#folder });
  }

  /**
   * @param {Server} server
   * @param {number} deadline
   */
  async #connect(server, deadline) {
    const connection = await Connection.open(server, deadline);
    this.#open.add(connection);
    if (this.#closed) connection.close();
    return connection;
  }

  /**
   * Send one request on a proven connection. Throws Unreachable.
   * @param {Server} server
   * @param {string} method
   * @param {string} path
   * @param {string | undefined} body
   * @param {number} deadline
   * @param {string} [key]
   * @returns {Promise<Answer>}
   */
  async #ask(server, method, path, body, deadline, key) {
    for (;;) {
      const used = this.#idle.pop();
      const connection = used ?? (await this.#connect(server, deadline));
      const { url, key: known } = connection.server;
      if (!connection.isOpen || url !== server.url || known !== server.key) {
        connection.close();
        this.#open.delete(connection);
        if (used) continue;
      }
      try {
        const answer = await connection.ask(method, path, body, key ? { "Idempotency-Key": key } : {}, deadline);
        if (connection.isOpen && this.#idle.length < MOST_IDLE) this.#idle.push(connection);
        else this.#open.delete(connection);
        return answer;
      } catch (error) {
        this.#open.delete(connection);
        // An idle connection may have ended meanwhile; every request here may be repeated.
        if (!used || Date.now() >= deadline) throw error;
      }
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {number} timeout
   */
  async #api(method, path, timeout) {
    const answer = await this.#ask(this.#find(), method, path, undefined, Date.now() + timeout);
    if (isSuccess(answer)) return answer.body;
    if (answer.body.success === false) throw new Refused(answer.status, answer.body);
    throw new Unreachable(`The answer (HTTP ${answer.status}) is not FlashFlow's.`);
  }

  /**
   * @param {Row[]} rows
   * @param {number} deadline
   */
  async #post(rows, deadline) {
    const server = this.#find();
    // The local key may name the app; any other key has its own.
    const start = server.namesApp ? `{"app":${JSON.stringify(this.app)},` : "{";
    const bodies = rows.map((row) => start + row.body.slice(1));
    if (rows[0].kind === "send") return this.#ask(server, "POST", "/api/notifications/send", bodies[0], deadline, rows[0].key);
    const body = `{"sent_at":"${new Date().toISOString()}","activities":[${bodies.join(",")}]}`;
    return this.#ask(server, "POST", "/api/activity/batch", body, deadline);
  }

  // --- sender

  #start(delay = LINGER_MS) {
    if (this.#timer !== undefined || this.#closed) return;
    const wait = Math.max(delay, this.#retryAt - Date.now());
    this.#timer = setTimeout(async () => {
      this.#timer = undefined;
      await this.#pump(Infinity);
      if (this.pending) this.#start(Math.min(Math.max(this.#nextDue() - Date.now(), LINGER_MS), waits.lastRetry));
    }, wait);
    this.#timer.unref(); // rows wait on disk: they keep no program alive
  }

  #atExit = () => {
    if (this.pending && Date.now() >= this.#retryAt) void this.flush(EXIT_MS).catch(() => {});
  };

  /**
   * Deliver the rows that are due; one call at a time.
   * @param {number} deadline
   */
  async #pump(deadline) {
    while (this.#pumping) await this.#pumping;
    this.#pumping = this.#deliverAll(deadline);
    try {
      await this.#pumping;
    } finally {
      this.#pumping = undefined;
    }
  }

  /** @param {number} deadline */
  async #deliverAll(deadline) {
    for (let rows = this.#nextRows(); rows.length && !this.#closed; rows = this.#nextRows()) {
      if (Date.now() >= deadline || Date.now() < this.#retryAt) return;
      if (!(await this.#deliver(rows, Math.min(deadline, Date.now() + waits.ask)))) return;
    }
  }

  /** Return the oldest due rows that one request carries: activities, or one notification; failed rows come last. */
  #nextRows() {
    const fresh = this.#dueRows((row) => row.tries === 0);
    return fresh.length ? fresh : this.#dueRows((row) => row.tries > 0);
  }

  /** @param {(row: Row) => boolean} wanted */
  #dueRows(wanted) {
    const now = Date.now();
    /** @type {Row[]} */
    const rows = [];
    let size = 0;
    for (const row of this.#queue?.rows ?? []) {
      if (row.busy || row.due > now || !wanted(row)) continue;
      size += Buffer.byteLength(row.body) + 80;
      if (rows.length && (row.kind !== "activity" || rows[0].kind !== "activity" || size > BATCH_BYTES)) break;
      if (rows.push(row) >= this.#most) break;
    }
    return rows;
  }

  #nextDue() {
    return (this.#queue?.rows ?? []).reduce((first, row) => (row.busy ? first : Math.min(first, row.due)), Infinity);
  }

  /**
   * Send `rows` and record the outcome. Return false if the server can take no row now.
   * @param {Row[]} rows
   * @param {number} deadline
   */
  async #deliver(rows, deadline) {
    const queue = /** @type {Queue} */ (this.#queue);
    let answer;
    try {
      answer = await this.#post(rows, deadline);
    } catch (error) {
      if (error instanceof NotProven) return this.#hold(error.message);
      if (error instanceof Unreachable) return this.#fail(error.retryAfter, this.#longest);
      throw error;
    }
    const { status, body } = answer;
    if (isSuccess(answer)) {
      this.#failures = 0;
      this.#most = Math.min(BATCH_ROWS, 2 * this.#most);
      this.#settle(rows, rejectedOf(rows, body));
    } else if (isProblem(answer) && status === 403) {
      this.#warnOnce(wordsOf(status, body)); // the key lacks this kind's scope; the other kind goes on
      for (const row of queue.rows) if (row.kind === rows[0].kind) row.due = Date.now() + waits.hold;
    } else if ((isFinal(answer) || status === 500) && rows.length > 1) {
      this.#most = Math.floor(rows.length / 2); // find the row that is the cause
    } else if (isFinal(answer) || (status === 409 && rows[0].tries >= MOST_CONFLICTS)) {
      this.#settle(rows, [[rows[0], status, wordsOf(status, body)]]);
    } else if (status === 409 || status === 500) {
      for (const row of rows) row.due = Date.now() + backoff(++row.tries, waits.lastRetry);
    } else if (status === 401) {
      return this.#hold(wordsOf(status, body));
    } else {
      return this.#fail(answer.retryAfter, waits.lastRetry);
    }
    return true;
  }

  /**
   * @param {Row[]} rows
   * @param {[Row, number, string][]} rejected
   */
  #settle(rows, rejected) {
    const queue = /** @type {Queue} */ (this.#queue);
    if (rejected.length) queue.reject(rejected);
    queue.remove(rows);
    if (!rejected.length) return;
    this.#warnOnce(`FlashFlow refused a row: ${rejected[0][2]}`);
    const at = new Date().toISOString();
    try {
      this.#onReject?.(rejected.map(([{ kind, body }, status, message]) => ({ kind, body: JSON.parse(body), status, message, at })));
    } catch (error) {
      this.#warnOnce(`onReject failed: ${error}`);
    }
  }

  /**
   * @param {number} retryAfter
   * @param {number} longest
   */
  #fail(retryAfter, longest) {
    this.#retryAt = Date.now() + Math.max(retryAfter, backoff(++this.#failures, longest));
    return false;
  }

  /** @param {string} message */
  #hold(message) {
    this.#warnOnce(message);
    this.#retryAt = Date.now() + waits.hold;
    return false;
  }

  /** @param {number} ms */
  #sleep(ms) {
    return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
  }
}

/**
 * Whether the same request would be refused again.
 * @param {Answer} answer
 */
const isFinal = (answer) => isProblem(answer) && ![401, 403, 408, 409, 425, 429].includes(answer.status);

/**
 * @param {Row[]} rows
 * @param {Record<string, any>} body
 * @returns {[Row, number, string][]}
 */
function rejectedOf(rows, body) {
  const found = Array.isArray(body.rejected) ? body.rejected : [];
  return found.flatMap((each) => {
    const row = Number.isInteger(each?.index) ? rows[each.index] : undefined;
    return row ? [/** @type {[Row, number, string]} */ ([row, 400, wordsOf(400, { detail: "The row is not valid", ...each })])] : [];
  });
}

/** @param {string} text */
function parseEvent(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Unreachable("an event is not JSON");
  }
}

/**
 * Return a random delay (full jitter) that doubles its range with each failure.
 * @param {number} failures
 * @param {number} longest
 */
function backoff(failures, longest) {
  const most = Math.min(longest, waits.firstRetry * 2 ** Math.min(failures, 16));
  return waits.firstRetry + Math.random() * Math.max(0, most - waits.firstRetry);
}

/**
 * @param {string} field
 * @param {unknown} value
 * @param {number} most
 */
function checked(field, value, most, pattern = NAME) {
  if (typeof value !== "string" || value.length > most || !pattern.test(value) || /\p{Cs}/u.test(value)) {
    throw new TypeError(`${field} must be a text of 1 to ${most} characters without control characters`);
  }
  return value;
}

/**
 * @param {string} field
 * @param {string | undefined} value
 * @param {number} most
 */
const optional = (field, value, most) => (value ? checked(field, value, most) : undefined);

/**
 * @param {string} field
 * @param {unknown} value
 */
function object(field, value) {
  if (value === undefined) return undefined;
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TypeError(`${field} must be an object`);
  return value;
}

/**
 * @param {string} field
 * @param {Date} value
 */
function timeText(field, value) {
  if (!(value instanceof Date) || Number.isNaN(value.getTime())) throw new TypeError(`${field} must be a valid Date`);
  return value.toISOString();
}

/** @param {object} options Options that a call does not have: a typing error must not be swallowed. */
function none(options) {
  const [name] = Object.keys(options);
  if (name !== undefined) throw new TypeError(`there is no option ${name}`);
}

/** @param {object} value */
function json(value) {
  const text = JSON.stringify(value);
  // Only half a surrogate pair is written as such an escape; the server refuses it.
  if (/(?<!\\)(?:\\\\)*\\ud[89a-f]/.test(text)) throw new TypeError("a text has half a character (a lone surrogate)");
  if (Buffer.byteLength(text) > ROW_BYTES) throw new TypeError(`a row may have ${ROW_BYTES} bytes`);
  return text;
}

/** Return a UUIDv7 (RFC 9562): sortable by creation. */
function uuid7() {
  const bytes = crypto.randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function program() {
  const name = path.parse(process.argv[1] ?? "").name.replace(/[^A-Za-z0-9._-]/g, "-").replace(/^[._-]+/, "");
  return name.slice(0, 64) || "node";
}

function login() {
  try {
    return os.userInfo().username;
  } catch {
    return "me";
  }
}

// A connection to a server that has proven that it knows the key. HTTP/1.1 over a socket of our own: fetch and node:http
// do not say on which connection a request goes out, and the key must not go out on an unproven one.

import crypto from "node:crypto";
import net from "node:net";
import tls from "node:tls";

import { NotProven, Refused, Unreachable, wordsOf } from "./errors.js";

const HEAD_BYTES = 64 * 1024;
const PROOF_BYTES = 64 * 1024;
const ANSWER_BYTES = 32 * 1024 * 1024;
const LONGEST_RETRY_AFTER_MS = 3_600_000;
export const SILENCE_MS = 45_000;

/** @typedef {import("./discovery.js").Server} Server */
/** @typedef {{ status: number, headers: Map<string, string>, body: Record<string, any>, retryAfter: number }} Answer */

/**
 * Whether FlashFlow itself refused, not a program between.
 * @param {Answer} answer
 */
export const isProblem = ({ status, body }) => status >= 400 && status < 500 && body.success === false && "code" in body;

/** @param {Answer} answer */
export const isSuccess = ({ status, body }) => status >= 200 && status < 300 && body.success === true;

export class Connection {
  /**
   * Connect and let the server prove itself. Throws Unreachable, NotProven.
   * @param {Server} server
   * @param {number} deadline milliseconds since 1970
   */
  static async open(server, deadline) {
    const made = new Connection(server);
    try {
      await made.#before(deadline, made.#connect());
      await made.#prove(deadline);
    } catch (error) {
      throw made.#failed(error);
    }
    return made;
  }

  /** @param {Server} server */
  constructor(server) {
    this.server = server;
    /** @type {Buffer} */
    this.rest = Buffer.alloc(0);
    this.isOpen = true;
  }

  #connect() {
    const found = new URL(this.server.url);
    if (!/^https?:$/.test(found.protocol)) throw new Error("not an http address");
    const secure = found.protocol === "https:";
    // ::1 may be another program, which relays the proof.
    const host = found.hostname === "localhost" ? "127.0.0.1" : found.hostname;
    this.host = found.port ? `${host}:${found.port}` : host;
    this.prefix = found.pathname.replace(/\/+$/, "");
    const target = { host: host.replace(/^\[|\]$/g, ""), port: Number(found.port) || (secure ? 443 : 80) };
    const socket = secure ? tls.connect({ ...target, servername: target.host }) : net.connect(target);
    this.socket = socket;
    socket.setNoDelay(true);
    socket.unref(); // an open connection keeps no program alive; a request does, by its timer
    socket.on("error", (error) => (this.error = error));
    socket.on("close", () => (this.isOpen = false));
    this.chunks = socket[Symbol.asyncIterator]();
    return new Promise((resolve, reject) => {
      socket.once(secure ? "secureConnect" : "connect", resolve);
      socket.once("error", reject);
    });
  }

  /** @param {number} deadline */
  async #prove(deadline) {
    const digest = crypto.createHash("sha256").update(this.server.key).digest();
    const nonce = crypto.randomBytes(32);
    const id = crypto.createHash("sha256").update("id").update(digest).digest("hex").slice(0, 16);
    const answer = await this.#exchange("POST", "/api/proof", JSON.stringify({ key_id: id, nonce: nonce.toString("hex") }), {}, deadline, PROOF_BYTES);
    const address = `${this.host}${/:\d+$/.test(this.host ?? "") ? "" : ":80"}`.toLowerCase();
    const expected = crypto.createHmac("sha256", digest).update("flashflow-proof-1").update(nonce).update(address).digest("hex");
    const proof = Buffer.from(String(answer.body.proof));
    if (proof.length !== expected.length || !crypto.timingSafeEqual(proof, Buffer.from(expected))) {
      throw new NotProven(
        `The program at ${this.server.url} did not prove that it is FlashFlow and knows the key (HTTP ${answer.status}). The key was not sent.`,
      );
    }
  }

  /**
   * Send one request and read the whole answer. A redirect is an answer like any other.
   * @param {string} method
   * @param {string} path
   * @param {string | undefined} body
   * @param {Record<string, string>} headers
   * @param {number} deadline
   * @returns {Promise<Answer>}
   */
  async ask(method, path, body, headers, deadline) {
    try {
      const key = { Authorization: `Bearer ${this.server.key}` };
      return await this.#exchange(method, path, body, { ...key, ...headers }, deadline, ANSWER_BYTES);
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /**
   * Yield [id, event, data] of an event stream; an id without an event has an empty name. Throws Refused.
   * @param {string} path
   * @param {string} lastId
   * @returns {AsyncGenerator<[string, string, string]>}
   */
  async *follow(path, lastId) {
    try {
      const headers = { Authorization: `Bearer ${this.server.key}`, ...(lastId ? { "Last-Event-ID": lastId } : {}) };
      this.#write("GET", path, undefined, headers);
      const { status, headers: found } = await this.#before(Date.now() + 15_000, this.#head());
      const isStream = status === 200 && (found.get("content-type") ?? "").startsWith("text/event-stream");
      if (!isStream) {
        const answer = await this.#before(Date.now() + 15_000, this.#answer(status, found, PROOF_BYTES));
        if (isProblem(answer) && ![401, 408, 425, 429].includes(status)) throw new Refused(status, answer.body);
        throw Object.assign(new Unreachable(`no stream: ${wordsOf(status, answer.body)}`), { retryAfter: answer.retryAfter });
      }
      const pieces = this.#body(found, Infinity);
      let text = Buffer.alloc(0);
      /** @type {string[]} */
      let data = [];
      let name = "";
      for (;;) {
        const piece = await this.#before(Date.now() + SILENCE_MS, pieces.next());
        if (piece.done) throw new Error("the stream ended");
        text = Buffer.concat([text, piece.value]);
        if (text.length > 4 * 1024 * 1024) throw new Error("an event is too long");
        // Only LF ends a line: U+2028 and its like are text.
        for (let end = text.indexOf(10); end >= 0; end = text.indexOf(10)) {
          const line = text.toString("utf8", 0, end).replace(/\r$/, "");
          text = text.subarray(end + 1);
          const [, field, value] = /^([^:]*):? ?([^]*)$/.exec(line) ?? ["", "", ""];
          if (field === "id" && !value.includes("\0")) lastId = value;
          else if (field === "event") name = value;
          else if (field === "data") data.push(value);
          else if (line === "") {
            yield [lastId, data.length ? name : "", data.join("\n")];
            [name, data] = ["", []];
          }
        }
      }
    } catch (error) {
      throw this.#failed(error);
    } finally {
      this.close();
    }
  }

  close() {
    this.isOpen = false;
    this.socket?.destroy();
  }

  /** @param {unknown} error */
  #failed(error) {
    this.close();
    if (error instanceof Unreachable || error instanceof Refused) return error;
    const { message, code } = /** @type {NodeJS.ErrnoException} */ (error);
    return new Unreachable(`${this.server.url}: ${message || code}`);
  }

  /**
   * Wait for `work` until `deadline`.
   * @template T
   * @param {number} deadline
   * @param {Promise<T>} work
   * @returns {Promise<T>}
   */
  async #before(deadline, work) {
    /** @type {NodeJS.Timeout | undefined} */
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error("no answer in time"));
        this.close(); // ends the read that waits
      }, Math.max(0, deadline - Date.now()));
    });
    work.catch(() => {});
    try {
      return /** @type {T} */ (await Promise.race([work, late]));
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string | undefined} body
   * @param {Record<string, string>} headers
   * @param {number} deadline
   * @param {number} most
   */
  #exchange(method, path, body, headers, deadline, most) {
    const work = async () => {
      this.#write(method, path, body, headers);
      const { status, headers: found } = await this.#head();
      const answer = await this.#answer(status, found, most);
      if (/close/i.test(found.get("connection") ?? "")) this.close();
      return answer;
    };
    return this.#before(deadline, work());
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string | undefined} body
   * @param {Record<string, string>} headers
   */
  #write(method, path, body, headers) {
    if (!this.isOpen || !this.socket) throw this.error ?? new Error("the connection is closed");
    const typed = body === undefined ? {} : { "Content-Type": "application/json" };
    const length = body === undefined && method === "GET" ? {} : { "Content-Length": String(Buffer.byteLength(body ?? "")) };
    const lines = Object.entries({ Host: this.host, ...typed, ...length, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
    this.socket.write(`${method} ${this.prefix}${path} HTTP/1.1\r\n${lines.join("")}\r\n${body ?? ""}`);
  }

  /** Add bytes to `rest`. Throws at the end of the connection. */
  async #more() {
    const found = await /** @type {AsyncIterator<Buffer>} */ (this.chunks).next();
    if (found.done) throw this.error ?? new Error("the connection ended");
    this.rest = this.rest.length ? Buffer.concat([this.rest, found.value]) : found.value;
  }

  /**
   * Take bytes up to and without `mark`.
   * @param {string} mark
   */
  async #until(mark) {
    let end;
    while ((end = this.rest.indexOf(mark)) < 0) {
      if (this.rest.length > HEAD_BYTES) throw new Error("the header is too long");
      await this.#more();
    }
    const found = this.rest.toString("latin1", 0, end);
    this.rest = this.rest.subarray(end + mark.length);
    return found;
  }

  /** @returns {Promise<{ status: number, headers: Map<string, string> }>} */
  async #head() {
    const [first, ...lines] = (await this.#until("\r\n\r\n")).split("\r\n");
    const match = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(first);
    if (!match) throw new Error("not HTTP");
    const headers = new Map();
    for (const line of lines) {
      const at = line.indexOf(":");
      headers.set(line.slice(0, at).toLowerCase(), line.slice(at + 1).trim());
    }
    if (match[1] === "100") return this.#head();
    return { status: Number(match[1]), headers };
  }

  /**
   * @param {number} status
   * @param {Map<string, string>} headers
   * @param {number} most
   * @returns {Promise<Answer>}
   */
  async #answer(status, headers, most) {
    const pieces = [];
    for await (const piece of this.#body(headers, most)) pieces.push(piece);
    let body;
    try {
      body = JSON.parse(Buffer.concat(pieces).toString("utf8"));
    } catch {
      body = {};
    }
    const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
    return { status, headers, body: isObject ? body : {}, retryAfter: retryAfter(headers.get("retry-after") ?? "") };
  }

  /**
   * Yield the body in pieces. Throws for more than `most` bytes.
   * @param {Map<string, string>} headers
   * @param {number} most
   * @returns {AsyncGenerator<Buffer>}
   */
  async *#body(headers, most) {
    const length = headers.get("content-length");
    if (/chunked/i.test(headers.get("transfer-encoding") ?? "")) {
      for (let total = 0; ; ) {
        const line = await this.#until("\r\n");
        const size = /^[0-9a-f]{1,8}(?:;|$)/i.test(line) ? parseInt(line, 16) : NaN;
        if (!((total += size) <= most)) throw new Error("the answer is malformed or too long");
        if (size === 0) {
          while ((await this.#until("\r\n")) !== "");
          return;
        }
        yield* this.#take(size);
        await this.#until("\r\n");
      }
    } else if (length !== undefined) {
      if (!/^\d{1,15}$/.test(length) || Number(length) > most) throw new Error("the answer is malformed or too long");
      yield* this.#take(Number(length));
    } else {
      for (let total = 0; ; ) {
        yield* this.#take(this.rest.length);
        const ended = await this.#more().then(() => false, (error) => (this.error ? Promise.reject(error) : true));
        if (ended) return this.close();
        if ((total += this.rest.length) > most) throw new Error("the answer is too long");
      }
    }
  }

  /** @param {number} size */
  async *#take(size) {
    while (size > 0) {
      if (!this.rest.length) await this.#more();
      const piece = this.rest.subarray(0, size);
      this.rest = this.rest.subarray(piece.length);
      size -= piece.length;
      yield piece;
    }
  }
}

/**
 * Return the milliseconds of a Retry-After header, a number or a date; bounded, 0 without one.
 * @param {string} text
 */
export function retryAfter(text) {
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(ms) ? 0 : Math.min(Math.max(ms, 0), LONGEST_RETRY_AFTER_MS);
}

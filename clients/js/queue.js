// Rows that wait for delivery: in memory and, where a folder can be used, in a file of this process with one JSON line for
// a row and one for each removal. A line is written before track() returns, so it survives the end of the process
// (kill -9 too); a power cut can take the last ones. A file whose process has ended is taken over by the next.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { checkOwner } from "./discovery.js";

const COMPACT_BYTES = 4 * 1024 * 1024;
const REJECTED_BYTES = 16 * 1024 * 1024;
/** Rejected rows in memory, where the file cannot be used. */
const MOST_REJECTED = 10_000;
const STARTED_S = Math.round(Date.now() / 1000 - process.uptime());

/**
 * @typedef {{ n: number, kind: "activity" | "send", body: string, key?: string, due: number, tries: number, busy?: boolean }} Row
 * @typedef {{ kind: string, body: Record<string, any>, status: number, message: string, at: string }} Rejected
 */

export class Queue {
  /** @type {Row[]} */
  rows = [];
  dropped = 0;
  isDurable = true;
  #next = 1;
  #written = 0;
  #removed = 0;
  #partial = false;
  #faults = 0;
  /** @type {Rejected[]} */
  #unstored = [];
  /** @type {number | undefined} */
  #handle;

  /**
   * @param {string | undefined} folder
   * @param {string} app
   * @param {number} most
   * @param {(text: string) => void} warn
   */
  constructor(folder, app, most, warn) {
    this.app = app;
    this.most = most;
    this.warn = warn;
    this.folder = folder && path.join(folder, "client");
    this.#open();
  }

  /**
   * Store a row; on return it survives the end of the process if the queue is durable.
   * @param {Row["kind"]} kind
   * @param {string} body
   * @param {string} [key]
   * @returns {Row}
   */
  add(kind, body, key) {
    const row = { n: this.#next++, kind, body, key, due: 0, tries: 0 };
    this.rows.push(row);
    this.#write({ n: row.n, kind, body, key });
    if (this.rows.length > this.most) {
      const oldest = this.rows.filter((each) => !each.busy).slice(0, Math.ceil(this.most / 10));
      this.dropped += oldest.length;
      this.warn(`The queue is full; the oldest ${oldest.length} rows were dropped.`);
      this.remove(oldest);
    }
    return row;
  }

  /** @param {Row[]} rows */
  remove(rows) {
    const gone = new Set(rows.map((row) => row.n));
    this.rows = this.rows.filter((row) => !gone.has(row.n));
    if (this.#handle === undefined) return;
    if (this.rows.length === 0) {
      this.#safely(() => fs.ftruncateSync(/** @type {number} */ (this.#handle)));
      this.#written = this.#removed = 0;
      return;
    }
    this.#write({ done: [...gone] });
    this.#removed += rows.reduce((total, row) => total + row.body.length, 0);
    if (this.#removed > COMPACT_BYTES && this.#removed > this.#written / 2) this.#compact();
  }

  /**
   * Remove rows that the server refused and keep them beside the queue, in memory where the file cannot be used.
   * @param {[Row, number, string][]} found
   */
  reject(found) {
    const at = new Date().toISOString();
    const refused = found.map(([{ kind, body }, status, message]) => ({ kind, body: JSON.parse(body), status, message, at }));
    const file = this.#rejectedFile;
    const stored = file && this.#safely(() => {
      if (fs.existsSync(file) && fs.statSync(file).size > REJECTED_BYTES) fs.renameSync(file, `${file}.old`);
      fs.appendFileSync(file, refused.map((each) => JSON.stringify(each) + "\n").join(""), { mode: 0o600 });
    });
    if (!stored) this.#unstored = [...this.#unstored, ...refused].slice(-MOST_REJECTED);
    this.remove(found.map(([row]) => row));
  }

  /** @returns {Rejected[]} */
  rejected() {
    const file = this.#rejectedFile;
    const stored = file && fs.existsSync(file) ? parseLines(fs.readFileSync(file, "utf8")) : [];
    return [...stored, ...this.#unstored];
  }

  close() {
    if (this.#handle === undefined) return;
    fs.closeSync(this.#handle);
    this.#handle = undefined;
    if (this.rows.length === 0 && this.file) fs.rmSync(this.file, { force: true });
    else if (this.file) fs.renameSync(this.file, this.#name(0)); // no process has the id 0: the next one takes it over
  }

  get #rejectedFile() {
    return this.folder && this.isDurable ? path.join(this.folder, `${this.app}.rejected.jsonl`) : undefined;
  }

  /** @param {number} pid */
  #name(pid) {
    return path.join(this.folder ?? "", `${this.app}.${pid}.${STARTED_S}.${crypto.randomBytes(8).toString("hex")}.jsonl`);
  }

  #open() {
    try {
      if (!this.folder) throw new Error("there is no data folder");
      makeFolder(this.folder);
      checkOwner(this.folder, fs.statSync(this.folder), 0o022);
      this.file = this.#name(process.pid);
      this.#handle = this.#create(this.file);
    } catch (error) {
      this.isDurable = false;
      this.warn(`Rows are kept in memory only: ${/** @type {Error} */ (error).message}`);
      return;
    }
    this.#takeOver();
  }

  /** @param {string} file */
  #create(file) {
    const { O_CREAT, O_EXCL, O_APPEND, O_WRONLY } = fs.constants;
    return fs.openSync(file, O_CREAT | O_EXCL | O_APPEND | O_WRONLY, 0o600);
  }

  /** Move the rows of processes that have ended to this queue. */
  #takeOver() {
    const folder = /** @type {string} */ (this.folder);
    const pattern = new RegExp(`^${this.app.replace(/[.]/g, "\\.")}\\.(\\d+)\\.(\\d+)\\.[0-9a-f]{16}\\.jsonl$`);
    for (const name of fs.readdirSync(folder).sort()) {
      const match = pattern.exec(name);
      if (!match || path.join(folder, name) === this.file || isRunning(Number(match[1]), Number(match[2]))) continue;
      const claimed = this.#name(process.pid);
      this.#safely(() => {
        try {
          fs.renameSync(path.join(folder, name), claimed);
        } catch (error) {
          if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return; // another process was faster
          throw error;
        }
        const found = new Map();
        for (const line of parseLines(fs.readFileSync(claimed, "utf8"))) {
          if (Array.isArray(line.done)) for (const n of line.done) found.delete(n);
          else if (typeof line.body === "string" && ["activity", "send"].includes(line.kind)) found.set(line.n, line);
        }
        const faults = this.#faults;
        for (const { kind, body, key } of found.values()) this.add(kind, body, key);
        // On a full disk the old file stays: the next process takes it over again, and ids make the repeats harmless.
        if (this.#faults === faults) fs.rmSync(claimed);
      });
    }
  }

  /** @param {object} line */
  #write(line) {
    if (this.#handle === undefined) return;
    const text = (this.#partial ? "\n" : "") + JSON.stringify(line) + "\n";
    this.#partial = true; // until the whole line is written
    this.#safely(() => {
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; ) at += fs.writeSync(/** @type {number} */ (this.#handle), bytes, at);
      this.#written += bytes.length;
      this.#partial = false;
    });
  }

  /** Write the rows that wait to a new file, which replaces this one. */
  #compact() {
    this.#safely(() => {
      const half = `${this.file}.part`;
      fs.rmSync(half, { force: true });
      const handle = this.#create(half);
      const text = this.rows.map(({ n, kind, body, key }) => JSON.stringify({ n, kind, body, key }) + "\n").join("");
      fs.writeFileSync(handle, text);
      fs.renameSync(half, /** @type {string} */ (this.file));
      fs.closeSync(/** @type {number} */ (this.#handle));
      [this.#handle, this.#written, this.#removed] = [handle, text.length, 0];
    });
  }

  /**
   * Run `work` on a file; a failure (a full disk) costs the durability, not the row. Return whether it was done.
   * @param {() => void} work
   */
  #safely(work) {
    try {
      work();
      return true;
    } catch (error) {
      this.#faults++;
      this.warn(`The queue file cannot be used, rows are kept in memory: ${/** @type {Error} */ (error).message}`);
      return false;
    }
  }
}

/**
 * Create a folder and those above it; `recursive` of Node never ends below /proc.
 * @param {string} folder
 */
function makeFolder(folder) {
  if (fs.existsSync(folder)) return;
  makeFolder(path.dirname(folder));
  try {
    fs.mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") throw error;
  }
}

/**
 * Return the objects of a file of JSON lines; a line that was cut is left out.
 * @param {string} text
 * @returns {any[]}
 */
function parseLines(text) {
  return text.split("\n").flatMap((line) => {
    try {
      const found = JSON.parse(line);
      return typeof found === "object" && found !== null ? [found] : [];
    } catch {
      return [];
    }
  });
}

/**
 * Whether the process runs that wrote a file. In a container every start may have the same id.
 * @param {number} pid
 * @param {number} startedS
 */
function isRunning(pid, startedS) {
  if (pid === process.pid) return Math.abs(startedS - STARTED_S) < 3;
  if (pid === 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === "EPERM";
  }
}

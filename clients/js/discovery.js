// Find FlashFlow and its key: options, environment, else the data folder of the same OS user.
// The rules are those of flashflow/client.py.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { NotProven, Unreachable } from "./errors.js";

/** @typedef {{ url: string, key: string, namesApp: boolean }} Server */

/**
 * Return FlashFlow's data folder.
 * @param {NodeJS.ProcessEnv} env
 * @returns {string}
 */
export function dataFolder(env) {
  const home = env.HOME || os.homedir();
  if (env.FLASHFLOW_DATA_DIR) return path.resolve(env.FLASHFLOW_DATA_DIR.replace(/^~(?=$|\/)/, home));
  if (env.FLET_APP_STORAGE_DATA) return env.FLET_APP_STORAGE_DATA;
  if (process.platform === "win32") return path.join(env.LOCALAPPDATA || path.join(home, "AppData", "Local"), "FlashFlow");
  if (process.platform === "darwin") return path.join(home, "Library", "Application Support", "FlashFlow");
  const xdg = env.XDG_DATA_HOME ?? "";
  return path.join(path.isAbsolute(xdg) ? xdg : path.join(home, ".local", "share"), "flashflow");
}

/**
 * Throw where another user owns `name` or has a permission of `forbidden`.
 * @param {string} name
 * @param {fs.Stats} found
 * @param {number} forbidden
 */
export function checkOwner(name, found, forbidden) {
  if (!process.geteuid) return; // Windows
  if (found.uid !== process.geteuid()) throw new NotProven(`${name} belongs to another user.`);
  if (found.mode & forbidden) {
    throw new NotProven(`${name} has mode ${(found.mode & 0o777).toString(8)}; other users may change or read it.`);
  }
}

/**
 * Read a file of the data folder that only this user can read and write.
 * @param {string} folder
 * @param {string} name
 * @returns {string}
 */
function readPrivate(folder, name) {
  const file = path.join(folder, name);
  /** @type {number | undefined} */
  let handle;
  try {
    checkOwner(folder, fs.statSync(folder), 0o022);
    // Without O_NONBLOCK a named pipe would block; O_NOFOLLOW refuses links.
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
    handle = fs.openSync(file, O_RDONLY | (O_NOFOLLOW ?? 0) | (O_NONBLOCK ?? 0));
    const found = fs.fstatSync(handle);
    if (!found.isFile()) throw new NotProven(`${file} is not a regular file.`);
    checkOwner(file, found, 0o077);
    const buffer = Buffer.alloc(4096);
    return buffer.toString("utf8", 0, fs.readSync(handle, buffer)).trim();
  } catch (error) {
    if (error instanceof NotProven) throw error;
    const { code } = /** @type {NodeJS.ErrnoException} */ (error);
    if (code === "ENOENT") throw new Unreachable(`FlashFlow is not running: there is no ${file}.`);
    throw new NotProven(`${file} is not used: ${code}.`);
  } finally {
    if (handle !== undefined) fs.closeSync(handle);
  }
}

/**
 * Return address and key as they are now.
 * @param {{ url?: string, key?: string, folder: string }} given
 * @returns {Server}
 */
export function findServer({ url, key, folder }) {
  const found = { url: url ?? "", key: key ?? "", namesApp: key === undefined };
  if (!url) {
    const text = readPrivate(folder, "server.json");
    try {
      found.url = String(JSON.parse(text).url);
    } catch {
      throw new Unreachable(`${path.join(folder, "server.json")} has no address.`);
    }
  }
  if (key === undefined) found.key = readPrivate(folder, "local.key");
  if (!/^[\x21-\x7e]{1,512}$/.test(found.key)) throw new Unreachable("The key is not a key of FlashFlow.");
  return found;
}

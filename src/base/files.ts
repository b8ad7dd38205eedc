// Files and folders appear whole or not at all: written under a temporary name beside their place, flushed, renamed. A
// FIFO, a device or a descriptor (/dev/stdout) takes the bytes as they come.
import {
  closeSync,
  constants,
  createReadStream,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { makeFolders } from './folders.js';
import { type Place, placeOf } from './outputs.js';
import { asWriteError } from './system-error.js';
import { removeLeftovers, replacedName, syncPath, temporaryName } from './temporary.js';

/** How long to wait for a FIFO's reader, and for room in it, before looking again. */
const POLL_MS = 10;
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
const sleepSync = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const isAgain = (e: unknown): boolean => e instanceof Error && 'code' in e && e.code === 'EAGAIN';

/**
 * A stream, open for writing without waiting. A descriptor of this process that leads to a file or a socket is taken as
 * it is: opened anew, the file would be written from its beginning, and a socket cannot be opened.
 */
function openStream({ target, descriptor }: Place): number {
  const anew = (): number => openSync(target, constants.O_WRONLY | constants.O_NONBLOCK);
  if (descriptor === undefined) return anew();
  const s = fstatSync(descriptor);
  if (!s.isFIFO() && !s.isCharacterDevice()) return descriptor;
  try {
    return anew();
  } catch {
    return descriptor; // a pipe whose reader has left, a terminal of another user
  }
}

/** A file being written: there as a whole after `commit`, untouched after `discard`. A stream has it as it comes. */
export class OutputFile {
  readonly #fd: number;
  #open = true;
  private constructor(
    readonly path: string,
    readonly place: Place,
    readonly temporary: string | null,
    fd: number,
  ) {
    this.#fd = fd;
  }

  /** @returns null: a FIFO that nobody reads yet */
  static #try(path: string): OutputFile | null {
    const place = placeOf(path);
    try {
      if (place.stream) return new OutputFile(path, place, null, openStream(place));
      removeLeftovers(place.target);
      const temporary = temporaryName(place.target);
      return new OutputFile(path, place, temporary, openSync(temporary, 'wx', place.mode ?? 0o666));
    } catch (e) {
      if (place.stream && e instanceof Error && 'code' in e && e.code === 'ENXIO') return null;
      throw asWriteError(e, path);
    }
  }
  /** Waits for the reader of a FIFO. @throws {ConfigError} output_unwritable · the signal's reason */
  static async open(path: string, signal?: AbortSignal): Promise<OutputFile> {
    for (;;) {
      signal?.throwIfAborted();
      const file = OutputFile.#try(path);
      if (file) return file;
      await sleep(POLL_MS);
    }
  }
  /** The same in a thread that nobody else needs. */
  static openSync(path: string, signal?: AbortSignal): OutputFile {
    for (;;) {
      signal?.throwIfAborted();
      const file = OutputFile.#try(path);
      if (file) return file;
      sleepSync(POLL_MS);
    }
  }

  /** @returns bytes written; 0: a stream without room */
  #some(bytes: Uint8Array, at: number): number {
    try {
      return writeSync(this.#fd, bytes, at, Math.min(bytes.length - at, 1 << 26));
    } catch (e) {
      if (isAgain(e)) return 0;
      throw asWriteError(e, this.path, this.temporary === null);
    }
  }
  async write(data: string | Uint8Array, signal?: AbortSignal): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    for (let at = 0; at < bytes.length; ) {
      const n = this.#some(bytes, at);
      at += n;
      if (n > 0) continue;
      signal?.throwIfAborted();
      await sleep(POLL_MS);
    }
  }
  writeSync(data: string | Uint8Array): void {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    for (let at = 0; at < bytes.length; ) {
      const n = this.#some(bytes, at);
      at += n;
      if (n === 0) sleepSync(POLL_MS);
    }
  }

  #close(): void {
    // A descriptor that was there before is not ours to close.
    if (this.#open && this.#fd !== this.place.descriptor) closeSync(this.#fd);
    this.#open = false;
  }
  /** Flushes it and puts it in its place. @throws {ConfigError} output_unwritable · {CheckpointError} disk_full */
  commit(): void {
    try {
      if (this.temporary !== null) fsyncSync(this.#fd);
      this.#close();
      if (this.temporary === null) return;
      renameSync(this.temporary, this.place.target);
    } catch (e) {
      throw asWriteError(e, this.path);
    }
    syncPath(dirname(this.place.target));
  }
  /** After a commit it does nothing. */
  discard(): void {
    this.#close();
    if (this.temporary !== null) rmSync(this.temporary, { force: true });
  }
}

/** Replaces `path` with `data`, or leaves it as it was; through links; a stream gets the bytes. */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  const file = OutputFile.openSync(path);
  try {
    file.writeSync(data);
    file.commit();
  } finally {
    file.discard();
  }
}

/**
 * Puts a file that is complete in its place, behind links; a FIFO or a device gets its bytes, and it is removed.
 * @throws {ConfigError} output_unwritable · {CheckpointError} disk_full · the signal's reason
 */
export async function putInPlace(finished: string, path: string, signal?: AbortSignal): Promise<void> {
  const { target, stream } = placeOf(path);
  try {
    if (!stream) {
      renameSync(finished, target);
      syncPath(dirname(target));
      return;
    }
    const out = await OutputFile.open(path, signal);
    try {
      for await (const piece of createReadStream(finished) as AsyncIterable<Buffer>) await out.write(piece, signal);
    } finally {
      out.discard();
    }
    rmSync(finished, { force: true });
  } catch (e) {
    throw asWriteError(e, path);
  }
}

/** Writes all bytes, flushed; not atomic by itself: for files inside a folder that is renamed as a whole. */
export function writeFlushed(path: string, data: string | Uint8Array): void {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  const fd = openSync(path, 'w');
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, Math.min(bytes.length - at, 1 << 26));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Fills a new folder and puts it at `path` in one step; a folder that was there is replaced,
 * behind the links that lead to it.
 * @param fill writes into the folder it is given
 */
export async function writeFolderAtomic(given: string, fill: (folder: string) => void | Promise<void>): Promise<void> {
  const path = placeOf(given).target;
  const temporary = temporaryName(path);
  try {
    removeLeftovers(path);
    makeFolders(temporary);
    await fill(temporary);
    syncTree(temporary);
    if (existsSync(path)) {
      // Two renames cannot be one; a kill between them leaves the old folder under its hidden name and the new one
      // ready beside it.
      const old = replacedName(path);
      renameSync(path, old);
      renameSync(temporary, path);
      rmSync(old, { recursive: true, force: true });
    } else {
      renameSync(temporary, path);
    }
  } catch (e) {
    rmSync(temporary, { recursive: true, force: true });
    throw asWriteError(e, given);
  }
  syncPath(dirname(path));
}

function syncTree(folder: string): void {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) syncTree(path);
    else syncPath(path);
  }
  syncPath(folder);
}

/** Removes what an interrupted writer left in `folder` for the place `name` (any name when absent). */
export function removeTemporaries(folder: string, name?: string): void {
  if (!existsSync(folder)) return;
  for (const entry of readdirSync(folder))
    if (/\.(?:tmp|old)$/.test(entry) && entry.startsWith(name === undefined ? '.' : `.${name}.`))
      rmSync(join(folder, entry), { recursive: true, force: true });
}

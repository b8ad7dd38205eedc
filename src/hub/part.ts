// A file under way: its bytes in place, and beside it a map of how far each segment has come. The map is written after
// the bytes that it speaks of, so that a killed pull goes on where it was; what a lost machine may have left is found
// by the digest at the end.
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CheckpointError } from '../base/errors.js';
import { asSystemError, asWriteError } from '../base/system-error.js';
import type { HubFile } from './listing.js';

/** Bytes between two entries into the map. */
const NOTE_BYTES = 2 ** 20;
const HEAD_BYTES = 16;
const MAGIC = 0x31505054; // TPP1
// A link in the place of a part is no part.
const FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const flush = promisify(fdatasync);

export const partFile = (folder: string, { digest }: HubFile): string => join(folder, `${digest}.part`);
const mapFile = (folder: string, { digest }: HubFile): string => join(folder, `${digest}.map`);

export class Part {
  readonly path: string;
  readonly segments: number;
  readonly size: number;
  readonly #fd: number;
  readonly #mapFd: number;
  readonly #mapPath: string;
  /** Bytes of each segment that are there, from its beginning. */
  readonly #done: Float64Array;
  readonly #noted: Float64Array;
  #open = true;

  /**
   * Opens what is there of the file, or begins it.
   * @param segmentBytes what one request asks for at most; a part of other segments begins anew
   */
  constructor(
    folder: string,
    file: HubFile,
    readonly segmentBytes: number,
  ) {
    this.size = file.size;
    this.path = partFile(folder, file);
    this.#mapPath = mapFile(folder, file);
    this.segments = Math.ceil(file.size / segmentBytes);
    this.#done = new Float64Array(this.segments);
    this.#noted = new Float64Array(this.segments);
    try {
      this.#fd = openSync(this.path, FLAGS, 0o666);
      try {
        this.#mapFd = openSync(this.#mapPath, FLAGS, 0o666);
      } catch (e) {
        closeSync(this.#fd);
        throw e;
      }
    } catch (e) {
      throw asSystemError(e);
    }
    if (!this.#resume()) this.restart();
  }

  #head(): Buffer {
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(MAGIC, 0);
    head.writeUInt32LE(this.segmentBytes, 4);
    head.writeDoubleLE(this.size, 8);
    return head;
  }
  #resume(): boolean {
    const [data, map] = [fstatSync(this.#fd), fstatSync(this.#mapFd)];
    const bytes = HEAD_BYTES + 8 * this.segments;
    if (!data.isFile() || !map.isFile() || data.size !== this.size || map.size !== bytes) return false;
    const found = Buffer.alloc(bytes);
    if (readSync(this.#mapFd, found, 0, bytes, 0) !== bytes) return false;
    if (!found.subarray(0, HEAD_BYTES).equals(this.#head())) return false;
    for (let i = 0; i < this.segments; i++) {
      const done = found.readDoubleLE(HEAD_BYTES + 8 * i);
      if (!Number.isSafeInteger(done) || done < 0 || done > this.lengthOf(i)) return false;
      this.#done[i] = done;
    }
    this.#noted.set(this.#done);
    return true;
  }
  /** Forgets all that is there. */
  restart(): void {
    this.#done.fill(0);
    this.#noted.fill(0);
    ftruncateSync(this.#mapFd, 0);
    writeSync(this.#mapFd, this.#head(), 0, HEAD_BYTES, 0);
    ftruncateSync(this.#mapFd, HEAD_BYTES + 8 * this.segments);
    ftruncateSync(this.#fd, 0);
    ftruncateSync(this.#fd, this.size);
  }

  lengthOf(segment: number): number {
    return Math.min(this.segmentBytes, this.size - segment * this.segmentBytes);
  }
  doneOf(segment: number): number {
    return this.#done[segment] ?? 0;
  }
  /** Bytes that are there. */
  get received(): number {
    return this.#done.reduce((a, b) => a + b, 0);
  }
  get whole(): boolean {
    return this.received === this.size;
  }
  /** Bytes that are there without a gap from the beginning. */
  get prefix(): number {
    let bytes = 0;
    for (let i = 0; i < this.segments; i++) {
      bytes += this.doneOf(i);
      if (this.doneOf(i) < this.lengthOf(i)) break;
    }
    return bytes;
  }

  /** Puts bytes at the end of what a segment has; they may go on into the next one. */
  append(segment: number, bytes: Uint8Array): void {
    for (let at = 0, i = segment; at < bytes.length; i++) {
      const done = this.doneOf(i),
        room = this.lengthOf(i) - done,
        take = Math.min(room, bytes.length - at);
      try {
        for (let n = 0; n < take; ) n += writeSync(this.#fd, bytes, at + n, take - n, i * this.segmentBytes + done + n);
        this.#done[i] = done + take;
        if (done + take - (this.#noted[i] ?? 0) >= NOTE_BYTES || take === room) this.#note(i);
      } catch (e) {
        throw this.#writeError(e);
      }
      at += take;
    }
  }
  #writeError(e: unknown): unknown {
    const code = (e as NodeJS.ErrnoException).code ?? '';
    if (!['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code)) return asWriteError(e, this.path);
    return new CheckpointError(
      'disk_full',
      `${this.path}: no room left while writing (${code}); what came is kept; free some space and run it again`,
      { file: this.path },
      { cause: e },
    );
  }
  #note(segment: number): void {
    const entry = Buffer.alloc(8);
    entry.writeDoubleLE(this.doneOf(segment));
    writeSync(this.#mapFd, entry, 0, 8, HEAD_BYTES + 8 * segment);
    this.#noted[segment] = this.doneOf(segment);
  }
  /** Bytes from `at` on into `into`. @returns how many */
  read(into: Uint8Array, at: number): number {
    return readSync(this.#fd, into, 0, into.length, at);
  }

  /** Its bytes are on the disk. */
  async flush(): Promise<void> {
    await flush(this.#fd);
  }
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (let i = 0; i < this.segments; i++) if (this.doneOf(i) !== this.#noted[i]) this.#note(i);
    closeSync(this.#fd);
    closeSync(this.#mapFd);
  }
  /** Closes it and takes it away. */
  remove(): void {
    this.close();
    rmSync(this.path, { force: true });
    rmSync(this.#mapPath, { force: true });
  }
}

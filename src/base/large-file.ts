// A large file, written once from its beginning to its end and hashed on its way. Where the file system allows it, the
// bytes go past the page cache (O_DIRECT of Linux): copying them into it is half of what a write costs the CPU, and
// what is written would push out the pages that are read at the same time. Bytes are gathered in aligned buffers, some
// of which are on their way to the disk while the next one fills.
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { type Channel, openChannel } from './channel.js';

const BUFFER_BYTES = 8 << 20;
/** A tenth of a second of a fast disk: it has work while the next piece is made. */
const BUFFERS = 12;
/** What O_DIRECT wants of addresses, offsets and lengths: the largest block of a disk, and a page. */
const BLOCK_BYTES = 4096;
/** Below it the page cache is quicker. */
const DIRECT_BYTES = 1 << 26;

/** What is used of it; TypeScript knows it with the names of browsers only. */
interface Pages {
  readonly Memory: new (pages: {
    readonly initial: number;
    readonly maximum: number;
    readonly shared: true;
  }) => { readonly buffer: SharedArrayBuffer };
}
/** Aligned buffers that no file uses at the moment: the memory of WebAssembly begins at a page. */
const idle: Uint8Array[][] = [];
function takeBuffers(): Uint8Array[] {
  const there = idle.pop();
  if (there) return there;
  const pages = (BUFFERS * BUFFER_BYTES) / 65_536;
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly: Pages };
  const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  return Array.from({ length: BUFFERS }, (_, i) => new Uint8Array(buffer, i * BUFFER_BYTES, BUFFER_BYTES));
}

/** What the thread that hashes is asked; bytes are shared with it, calls are answered in their order. */
export type DigestCalls = {
  update: { request: Uint8Array; event: never; result: null };
  digest: { request: null; event: never; result: string };
};
interface Digest {
  update(bytes: Uint8Array): Promise<unknown> | undefined;
  digest(): Promise<string>;
  close(): Promise<void>;
}
/** In a thread of its own: hashing is a third of what a large file costs its writer. */
async function digestInThread(): Promise<Digest> {
  const channel: Channel<DigestCalls, null> = await openChannel('base/large-file-worker.js', null, { name: 'digest' });
  return {
    update: (bytes) => channel.call('update', bytes),
    digest: () => channel.call('digest', null),
    close: () => channel.close(),
  };
}
function digestHere(): Digest {
  const hash = createHash('sha256');
  return {
    update(bytes) {
      hash.update(bytes);
      return undefined;
    },
    digest: async () => hash.digest('hex'),
    close: async () => {},
  };
}

const isInvalid = (e: unknown): boolean => e instanceof Error && 'code' in e && e.code === 'EINVAL';

/** The file, past the page cache; null: not on this system, or not on this file system. */
async function openDirect(path: string, buffer: Uint8Array, expectedBytes: number): Promise<FileHandle | null> {
  if (process.platform !== 'linux' || constants.O_DIRECT === undefined) return null;
  let file: FileHandle | undefined;
  try {
    file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_DIRECT);
    await file.write(buffer, 0, BLOCK_BYTES, 0); // some systems open it and refuse the first write
    // Writes that make a file longer wait for one another; those inside it do not.
    await file.truncate(expectedBytes);
    return file;
  } catch (e) {
    await file?.close();
    if (isInvalid(e)) return null;
    throw e;
  }
}

export interface LargeFileOptions {
  /** Size that the file will have, in bytes: below `directFrom` it goes through the page cache. */
  readonly expectedBytes: number;
  /** For tests. */
  readonly directFrom?: number;
}

export class LargeFile {
  /** By buffer: what was last written of it. */
  readonly #writes: Promise<void>[];
  #at = 0;
  #filled = 0;
  /** Bytes handed to the system. */
  #offset = 0;
  #closed = false;
  private constructor(
    readonly path: string,
    readonly direct: boolean,
    readonly file: FileHandle,
    readonly buffers: Uint8Array[],
    readonly digest: Digest,
  ) {
    this.#writes = buffers.map(() => Promise.resolve());
  }

  /** Replaces what is at `path`. @throws the system's error */
  static async create(
    path: string,
    { expectedBytes, directFrom = DIRECT_BYTES }: LargeFileOptions,
  ): Promise<LargeFile> {
    const buffers = takeBuffers();
    const digest = expectedBytes >= directFrom ? await digestInThread() : digestHere();
    try {
      const direct =
        expectedBytes >= directFrom ? await openDirect(path, buffers[0] as Uint8Array, expectedBytes) : null;
      return new LargeFile(path, direct !== null, direct ?? (await open(path, 'w')), buffers, digest);
    } catch (e) {
      idle.push(buffers);
      await digest.close();
      throw e;
    }
  }

  /** Takes the bytes: they may be overwritten once this resolves. @throws the system's error, also of earlier bytes */
  async write(bytes: Uint8Array): Promise<void> {
    for (let from = 0; from < bytes.length; ) {
      const buffer = this.buffers[this.#at] as Uint8Array;
      const piece = bytes.subarray(from, from + buffer.length - this.#filled);
      if (this.#filled === 0) await this.#writes[this.#at];
      buffer.set(piece, this.#filled);
      this.#filled += piece.length;
      from += piece.length;
      if (this.#filled === buffer.length) this.#send(buffer, buffer.length);
    }
  }
  /**
   * @param bytes what goes to the disk: the buffer, or a whole number of blocks of it
   * @param filled those that are the file's
   */
  #send(bytes: Uint8Array, filled: number): void {
    const writing = writeAll(this.file, bytes, this.#offset);
    // The buffer is free when neither uses it any more, also after an error of one.
    const both = Promise.allSettled([writing, this.digest.update(bytes.subarray(0, filled))]).then((ends) => {
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
    });
    both.catch(() => {}); // thrown where the buffer is used next, or at the end
    this.#writes[this.#at] = both;
    this.#offset += bytes.length;
    this.#at = (this.#at + 1) % this.buffers.length;
    this.#filled = 0;
  }

  /** Writes what is left and waits until the disk has all of it. @returns sha256, hex @throws the system's error */
  async finish(): Promise<string> {
    const total = this.#offset + this.#filled;
    if (this.#filled > 0) {
      const buffer = this.buffers[this.#at] as Uint8Array;
      const end = this.direct ? Math.ceil(this.#filled / BLOCK_BYTES) * BLOCK_BYTES : this.#filled;
      this.#send(buffer.fill(0, this.#filled, end).subarray(0, end), this.#filled);
    }
    await Promise.all(this.#writes);
    await this.file.truncate(total);
    await this.file.sync();
    return await this.digest.digest();
  }
  /** Waits for what is being written; errors are those of `write` and `finish`. Twice does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.allSettled(this.#writes);
    await this.digest.close();
    idle.push(this.buffers);
    await this.file.close();
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; )
    at += (await file.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
}

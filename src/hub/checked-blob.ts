// A file as it is uploaded: what leaves are the bytes that were hashed, block by block, or nothing.
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { HubError, IntegrityError } from '../base/errors.js';
import { openInput } from '../base/inputs.js';

const BLOCK_BYTES = 1 << 20;
/** Nothing larger is held in memory, whatever the hub asks for: it takes larger files by themselves. */
const MOST_AT_ONCE = 32 << 20;

/** What a file hashed to. */
export interface HashedFile {
  readonly path: string;
  /** As it is called in the folder. */
  readonly name: string;
  readonly size: number;
  /** Hex. */
  readonly sha256: string;
  /** sha256 of each MiB. */
  readonly blocks: readonly Buffer[];
}

async function fill(file: FileHandle, into: Buffer, at: number): Promise<number> {
  let n = 0;
  while (n < into.length) {
    const { bytesRead } = await file.read(into, n, into.length - n, at + n);
    if (bytesRead === 0) break;
    n += bytesRead;
  }
  return n;
}
const digest = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

/** Reads all of a regular file. @throws the signal's reason, or what the file system says */
export async function hashFile(
  path: string,
  name: string,
  signal?: AbortSignal,
  onBytes?: (bytes: number) => void,
): Promise<HashedFile> {
  const file = await openInput(path);
  try {
    const whole = createHash('sha256');
    const blocks: Buffer[] = [];
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let size = 0; ; ) {
      signal?.throwIfAborted();
      const n = await fill(file, block, size);
      const bytes = block.subarray(0, n);
      size += n;
      if (n > 0) {
        whole.update(bytes);
        blocks.push(digest(bytes));
        onBytes?.(n);
      }
      if (n < BLOCK_BYTES) return { path, name, size, sha256: whole.digest('hex'), blocks };
    }
  } finally {
    await file.close();
  }
}

/** The part [start, end) of a file as a Blob whose bytes are held against its blocks when they are read. */
export class CheckedBlob extends Blob {
  declare readonly size: number;
  constructor(
    readonly file: HashedFile,
    readonly start = 0,
    readonly end = file.size,
  ) {
    super([]);
    // Blob's own says 0, as nothing of the file is held.
    Object.defineProperty(this, 'size', { value: end - start });
  }
  override slice(start = 0, end = this.size): CheckedBlob {
    const at = (n: number): number => Math.max(0, Math.min(this.size, n < 0 ? this.size + n : n));
    const [from, to] = [at(start), at(end)];
    return new CheckedBlob(this.file, this.start + from, this.start + Math.max(from, to));
  }

  async *#pieces(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (this.size === 0) return;
    const { path, name, size, blocks } = this.file;
    const handle = await openInput(path);
    try {
      for (let i = Math.floor(this.start / BLOCK_BYTES); i * BLOCK_BYTES < this.end; i++) {
        const at = i * BLOCK_BYTES;
        const block = Buffer.alloc(Math.min(BLOCK_BYTES, size - at));
        const n = await fill(handle, block, at);
        if (n < block.length || !digest(block).equals(blocks[i] ?? Buffer.alloc(0)))
          throw new IntegrityError(
            'export_changed',
            `${name}: changed while it was uploaded, at byte ${at} to ${at + block.length}; nothing was committed; ` +
              'export it again',
            { file: name },
          );
        yield block.subarray(Math.max(0, this.start - at), Math.min(block.length, this.end - at));
      }
    } finally {
      await handle.close();
    }
  }
  override stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return ReadableStream.from(this.#pieces()) as ReadableStream<Uint8Array<ArrayBuffer>>;
  }
  override async arrayBuffer(): Promise<ArrayBuffer> {
    if (this.size > MOST_AT_ONCE)
      throw new HubError(
        'hub_answer',
        `${this.file.name}: the hub wants ${this.size} bytes of it inside the commit, which takes none of that size`,
        { file: this.file.name },
      );
    const out = new Uint8Array(this.size);
    let at = 0;
    for await (const piece of this.#pieces()) {
      out.set(piece, at);
      at += piece.length;
    }
    return out.buffer;
  }
  override async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await this.arrayBuffer());
  }
  override async text(): Promise<string> {
    return new TextDecoder().decode(await this.arrayBuffer());
  }
}

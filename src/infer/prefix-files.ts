// Kept prefixes as files of a folder. The name of a file is the digest of all that its bytes depend on, its end the
// digest of all before it: what is not whole, or is somebody else's, is never used. Several processes may share a
// folder: a file appears whole under its name, whoever writes it would write the same, and one that is removed while it
// is read stays readable.
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { type FileHandle, open, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { sha256 } from '../base/digest.js';
import { makeFolders } from '../base/folders.js';
import { inputPieces } from '../base/inputs.js';
import { removeLeftovers, temporaryName } from '../base/temporary.js';

const MAGIC = Buffer.from('temper prefix 1\n');
const END = '.prefix';
const NAME = /^[0-9a-f]{64}\.prefix$/;
const LEFT = /^\.([0-9a-f]{64}\.prefix)\..*\.tmp$/;
const DIGEST_BYTES = 32;
/** Keys and values begin at a multiple of it. */
const ALIGN = 64;
const PIECE_BYTES = 1 << 20;

/** What the bytes of a prefix depend on. */
export interface PrefixKey {
  /** Of model, tokenizer, adapter, numbers and kernels: hex. */
  readonly binding: string;
  readonly tokens: Int32Array;
  /** Where it was cut as it was computed; the last is its end. */
  readonly cuts: readonly number[];
  /** Of keys and values. */
  readonly bytes: number;
}
export interface PrefixCounts {
  readonly read: number;
  readonly written: number;
  /** Broken or foreign: removed or left, not used. */
  readonly refused: number;
}

/** Magic, length of the header, header: as many bytes as a multiple of ALIGN. */
function headOf({ binding, tokens, cuts, bytes }: PrefixKey): Buffer {
  const digest = createHash('sha256').update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
  const text = JSON.stringify({ binding, tokens: tokens.length, tokensDigest: digest.digest('hex'), cuts, bytes });
  const before = MAGIC.length + 4;
  const length = Math.ceil((before + Buffer.byteLength(text)) / ALIGN) * ALIGN - before;
  const head = Buffer.alloc(before + length, ' ');
  MAGIC.copy(head);
  head.writeUInt32LE(length, MAGIC.length);
  head.write(text, before);
  return head;
}
const hasCode = (e: unknown, code: string): boolean => e instanceof Error && 'code' in e && e.code === code;
const messageOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));

export class PrefixFiles {
  #read = 0;
  #written = 0;
  #refused = 0;
  readonly #told = new Set<string>();

  /**
   * @param bytes most bytes of all files; those not used for longest go first
   * @throws {ConfigError} output_unwritable: the folder cannot be made
   */
  constructor(
    readonly folder: string,
    readonly bytes: number,
    readonly notice: (line: string) => void = () => {},
  ) {
    makeFolders(folder, 0o700);
    const left = readdirSync(folder).flatMap((name) => LEFT.exec(name)?.[1] ?? []);
    for (const name of new Set(left)) removeLeftovers(join(folder, name));
  }

  get counts(): PrefixCounts {
    return { read: this.#read, written: this.#written, refused: this.#refused };
  }
  #path(head: Buffer): string {
    return join(this.folder, `${sha256(head)}${END}`);
  }
  /** Each thing once: a folder that cannot be written to would fill the log. */
  #tell(line: string): void {
    if (this.#told.has(line) || this.#told.size > 1000) return;
    this.#told.add(line);
    this.notice(line);
  }

  /** @returns keys and values, from a multiple of 64 bytes on; null: there is no such file that can be used */
  async read(key: PrefixKey, signal?: AbortSignal): Promise<Uint8Array | null> {
    const head = headOf(key),
      path = this.#path(head);
    const whole = new Uint8Array(head.length + key.bytes + DIGEST_BYTES),
      hash = createHash('sha256'),
      hashed = whole.length - DIGEST_BYTES;
    let at = 0;
    try {
      for await (const piece of inputPieces(path, PIECE_BYTES)) {
        signal?.throwIfAborted();
        if (at + piece.length > whole.length) return await this.#refuse(path, 'is longer than it should be');
        whole.set(piece, at);
        if (at < hashed) hash.update(piece.subarray(0, hashed - at));
        at += piece.length;
      }
    } catch (e) {
      signal?.throwIfAborted();
      if (!hasCode(e, 'ENOENT')) {
        this.#refused++;
        this.#tell(`${path}: is not used: ${messageOf(e)}`);
      }
      return null;
    }
    if (at < whole.length) return this.#refuse(path, `has ${at} bytes of ${whole.length}`);
    if (!head.equals(whole.subarray(0, head.length))) return this.#refuse(path, 'says that it is of something else');
    if (!hash.digest().equals(whole.subarray(hashed))) return this.#refuse(path, 'does not have its own checksum');
    this.#read++;
    const now = new Date();
    await utimes(path, now, now).catch(() => {}); // that of another user
    return whole.subarray(head.length, hashed);
  }
  async #refuse(path: string, why: string): Promise<null> {
    this.#refused++;
    this.#tell(`${path}: ${why}; it is not used and goes`);
    await rm(path, { force: true }).catch(() => {});
    return null;
  }

  /**
   * Writes one, unless it is there. What cannot be written is told and costs nothing else.
   * @param pieces the next of its bytes, asked for one at a time; null: they are gone, and nothing is written
   */
  async write(key: PrefixKey, pieces: Iterable<Uint8Array | null>): Promise<void> {
    const head = headOf(key),
      path = this.#path(head),
      size = head.length + key.bytes + DIGEST_BYTES;
    if (size > this.bytes) {
      this.#tell(`${this.folder}: a prefix of ${size} bytes is not kept, as all may have ${this.bytes}`);
      return;
    }
    const temporary = temporaryName(path);
    let file: FileHandle | null = null;
    try {
      if (await stat(path).catch(() => null)) return;
      file = await open(temporary, 'wx', 0o600);
      if (!(await fill(file, head, pieces, size))) return;
      await file.sync();
      await file.close();
      file = null;
      await rename(temporary, path);
      await syncFolder(dirname(path));
      this.#written++;
      await this.#prune(path);
    } catch (e) {
      this.#tell(`${this.folder}: a prefix could not be kept: ${messageOf(e)}`);
    } finally {
      await file?.close().catch(() => {});
      await rm(temporary, { force: true }).catch(() => {});
    }
  }
  /** Others may remove the same. */
  async #prune(but: string): Promise<void> {
    const names = (await readdir(this.folder)).filter((name) => NAME.test(name));
    const files = await Promise.all(
      names.map(async (name) => {
        const path = join(this.folder, name),
          s = await stat(path).catch(() => null);
        return { path, bytes: s?.size ?? 0, usedMs: s?.mtimeMs ?? 0 };
      }),
    );
    let left = files.reduce((sum, f) => sum + f.bytes, 0);
    for (const { path, bytes } of files.sort((a, b) => a.usedMs - b.usedMs)) {
      if (left <= this.bytes) return;
      if (path === but) continue;
      await rm(path, { force: true });
      left -= bytes;
    }
  }
}

/** @param size of the whole file · @returns false: the bytes went before all of them were there */
async function fill(
  file: FileHandle,
  head: Buffer,
  pieces: Iterable<Uint8Array | null>,
  size: number,
): Promise<boolean> {
  const hash = createHash('sha256');
  let left = size - head.length - DIGEST_BYTES;
  const put = async (bytes: Uint8Array): Promise<void> => {
    for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
  };
  hash.update(head);
  await put(head);
  for (const piece of pieces) {
    if (piece === null) return false;
    hash.update(piece);
    await put(piece);
    left -= piece.length;
  }
  if (left !== 0) return false;
  await put(hash.digest());
  return true;
}
async function syncFolder(folder: string): Promise<void> {
  const at = await open(folder, 'r');
  try {
    await at.sync();
  } finally {
    await at.close();
  }
}

// How files that somebody names are read: regular files only, none larger than its kind may be. Opening does not wait
// (a FIFO may have no writer) and reading ends (a device may have no end). No other file opens one by `node:fs`; a
// test looks.
import { closeSync, constants, createReadStream, fstatSync, openSync, readSync, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { DataError } from './errors.js';
import { asSystemError } from './system-error.js';

const MIB = 2 ** 20;
/** What is read whole, and how large it may be, bytes. Rows, weights and digests are read in pieces: no limit. */
export const INPUT_BYTES = {
  /** config.json, generation_config.json, adapter_config.json. */
  config: 4 * MIB,
  /** model.safetensors.index.json: a line for each tensor. */
  index: 64 * MIB,
  /** gpt-oss's own has 27.9 MB. */
  tokenizer: 256 * MIB,
  recipe: MIB,
  policy: MIB,
  /** Token sequences of `temper logits`. */
  tokens: 256 * MIB,
  /** What a run says of itself: run.json, state.json, temper.json, digests. */
  record: 16 * MIB,
  /** What a pull from a hub left: a line for each of up to 50,000 files. */
  manifest: 64 * MIB,
  /** reference.bin: 8 bytes an example. */
  reference: 1024 * MIB,
  /** metrics.jsonl: some 200 bytes a step. */
  metrics: 256 * MIB,
  /** stdin where a prompt is read from it. */
  prompt: 16 * MIB,
  /** outcomes.jsonl of a gate, which is hashed and decided on as the same bytes. */
  outcomes: 1024 * MIB,
  /** Files that a suite of the gate names. */
  prompts: 256 * MIB,
} as const;
export type InputKind = keyof typeof INPUT_BYTES;

const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

const kindOf = (s: Stats): string =>
  s.isFIFO()
    ? 'a FIFO'
    : s.isCharacterDevice() || s.isBlockDevice()
      ? 'a device'
      : s.isSocket()
        ? 'a socket'
        : 'no regular file';

function requireRegular(path: string, s: Stats): void {
  if (s.isFile()) return;
  if (s.isDirectory())
    throw Object.assign(new Error(`EISDIR: ${path} is a folder`), { code: 'EISDIR', syscall: 'open', path });
  throw new DataError('file_not_regular', `${path}: is ${kindOf(s)}, wanted a regular file; write it to one first`, {
    file: path,
  });
}
/** @throws {DataError} file_too_large */
export function requireSize(path: string, bytes: number, kind: InputKind): void {
  const most = INPUT_BYTES[kind];
  if (bytes > most)
    throw new DataError(
      'file_too_large',
      `${path}: more than ${most} bytes, the most that a ${kind} file may have; is it the right file?`,
      { file: path, most },
    );
}

/** A socket cannot be opened at all. */
const asOpenError = (e: unknown, path: string): unknown =>
  e instanceof Error && 'code' in e && e.code === 'ENXIO'
    ? new DataError('file_not_regular', `${path}: is a socket or a device, wanted a regular file`, { file: path })
    : asSystemError(e);

/** @throws {DataError} file_not_regular · {NativeError} open_files_limit · what the file system says */
function openRegular(path: string): { readonly fd: number; readonly size: number } {
  let fd: number;
  try {
    fd = openSync(path, FLAGS);
  } catch (e) {
    throw asOpenError(e, path);
  }
  try {
    const s = fstatSync(fd);
    requireRegular(path, s);
    return { fd, size: s.size };
  } catch (e) {
    closeSync(fd);
    throw e;
  }
}

/**
 * All bytes of a file of that kind.
 * @throws {DataError} file_not_regular, file_too_large · {NativeError} open_files_limit · what the file system says
 */
export function readInput(path: string, kind: InputKind): Buffer {
  const { fd, size } = openRegular(path);
  try {
    requireSize(path, size, kind);
    // Files of /proc say that they have 0 bytes.
    const pieces: Buffer[] = [];
    let total = 0;
    for (;;) {
      const piece = Buffer.allocUnsafe(Math.max(size - total, 0) + 4096);
      const got = readSync(fd, piece, 0, piece.length, null);
      if (got === 0) return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
      total += got;
      requireSize(path, total, kind);
      pieces.push(piece.subarray(0, got));
    }
  } finally {
    closeSync(fd);
  }
}
const decoder = new TextDecoder('utf-8', { fatal: true });
/** The same as text. @throws {DataError} not_utf8, and as readInput */
export function readInputText(path: string, kind: InputKind): string {
  const bytes = readInput(path, kind);
  try {
    return decoder.decode(bytes);
  } catch (e) {
    throw new DataError('not_utf8', `${path}: is not UTF-8; save it as UTF-8`, { file: path }, { cause: e });
  }
}

/** The first bytes of a regular file, at most `most`. @throws as readInput */
export function readHead(path: string, most: number, from = 0): Buffer {
  const { fd } = openRegular(path);
  try {
    const head = Buffer.alloc(most);
    return head.subarray(0, readSync(fd, head, 0, most, from));
  } finally {
    closeSync(fd);
  }
}

/** A regular file of any size, read in places. */
export class InputFile implements Disposable {
  readonly #fd: number;
  #open = true;
  private constructor(
    readonly path: string,
    fd: number,
    readonly size: number,
  ) {
    this.#fd = fd;
  }
  /** @throws as readInput, but for the size */
  static open(path: string): InputFile {
    const { fd, size } = openRegular(path);
    return new InputFile(path, fd, size);
  }
  /** Fills `into` from byte `at` on. @throws {DataError} file_changed: the file ends before */
  read(at: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const got = readSync(this.#fd, into, done, Math.min(into.length - done, 1 << 30), at + done);
      if (got === 0)
        throw new DataError(
          'file_changed',
          `${this.path}: ends at byte ${at + done}, it had ${this.size}; leave it as it is while it is read`,
          { file: this.path },
        );
      done += got;
    }
  }
  close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** A regular file of any size, open for reading. @throws as readInput, but for the size */
export async function openInput(path: string): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(path, FLAGS);
  } catch (e) {
    throw asOpenError(e, path);
  }
  try {
    requireRegular(path, await handle.stat());
    return handle;
  } catch (e) {
    await handle.close();
    throw e;
  }
}
/** Bytes of an open file from a place on, read in this thread. @returns how many there were */
export const readAt = (handle: FileHandle, into: Uint8Array, at: number): number =>
  readSync(handle.fd, into, 0, into.length, at);
/** The bytes of a regular file in pieces. @throws as openInput */
export async function* inputPieces(path: string, pieceBytes = MIB): AsyncGenerator<Buffer, void, void> {
  // The stream closes the file when it ends or is left.
  const { fd } = openRegular(path);
  yield* createReadStream(path, { fd, highWaterMark: pieceBytes }) as AsyncIterable<Buffer>;
}

/** All of a stated stream, as stdin given by `-`. @throws {DataError} file_too_large */
export async function readStream(stream: AsyncIterable<Buffer | string>, name: string): Promise<string> {
  const pieces: Buffer[] = [];
  let total = 0;
  for await (const piece of stream) {
    const bytes = typeof piece === 'string' ? Buffer.from(piece) : piece;
    total += bytes.length;
    requireSize(name, total, 'prompt');
    pieces.push(bytes);
  }
  return Buffer.concat(pieces).toString('utf8');
}

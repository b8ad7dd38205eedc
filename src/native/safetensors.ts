// safetensors files: 8 bytes header length (little-endian), a JSON header, then the tensors' bytes without gaps. The
// header is read here, strictly; tensors are mapped, never copied (but for the odd unaligned one). Format: facts of
// huggingface/safetensors, README "Format".
import { CheckpointError } from '../base/errors.js';
import { OutputFile } from '../base/files.js';
import { readHead } from '../base/inputs.js';
import { asReadError } from '../base/system-error.js';
import { addon } from './addon.js';
import { FILE_DTYPES, type FileDType, parseHeader, type TensorEntry } from './safetensors-header.js';
import { DTYPES, type DType, Scope, Tensor } from './tensor.js';

export { FILE_DTYPES, type FileDType, type TensorEntry };

const TENSOR_DTYPE: Partial<Record<FileDType, DType>> = { F32: 'f32', BF16: 'bf16', I32: 'i32', U8: 'u8' };
const FILE_DTYPE: Record<DType, FileDType> = { f32: 'F32', bf16: 'BF16', i32: 'I32', u8: 'U8' };

/** The format's own limit; a longer header is refused before it is read. */
export const MAX_HEADER_BYTES = 100_000_000;

/** A file open for reading. Closing it leaves tensors already mapped usable. */
export class SafetensorsFile implements Disposable {
  #file: number;
  constructor(
    readonly path: string,
    file: number,
    readonly tensors: ReadonlyMap<string, TensorEntry>,
    readonly metadata: ReadonlyMap<string, string>,
  ) {
    this.#file = file;
  }

  /** @throws {CheckpointError} tensor_missing */
  entry(name: string): TensorEntry {
    const e = this.tensors.get(name);
    if (!e)
      throw new CheckpointError(
        'tensor_missing',
        `${this.path}: no tensor "${name}"; it has ${this.tensors.size} others`,
        { file: this.path, tensor: name },
      );
    return e;
  }

  /**
   * The tensor over the file's own bytes, read-only, owned by `scope`.
   * @throws {CheckpointError} tensor_missing, dtype_unsupported (F16, I64 …), too_many_dimensions, file_truncated
   */
  map(name: string, scope: Scope): Tensor {
    const e = this.entry(name);
    const dtype = TENSOR_DTYPE[e.dtype];
    const where = { file: this.path, tensor: name };
    if (!dtype)
      throw new CheckpointError(
        'dtype_unsupported',
        `${this.path}: tensor "${name}" is ${e.dtype}, wanted F32, BF16, I32 or U8; convert it first`,
        where,
      );
    if (e.shape.length > 4)
      throw new CheckpointError(
        'too_many_dimensions',
        `${this.path}: tensor "${name}" has ${e.shape.length} dimensions, wanted at most 4`,
        where,
      );
    if (e.begin % FILE_DTYPES[e.dtype] === 0)
      return scope.adopt(
        new Tensor(addon.mapTensor(this.#file, e.begin, DTYPES.indexOf(dtype), e.shape), dtype, e.shape),
      );
    // The format does not promise alignment. Such a file is rare; its tensors are copied.
    const copy = scope.empty(dtype, e.shape, 'weights');
    const size = FILE_DTYPES[e.dtype];
    for (const [from, to] of pieces(copy.numel, CHUNK / size)) {
      using step = new Scope();
      const bytes = new Uint8Array((to - from) * size);
      addon.readFile(this.#file, e.begin + from * size, bytes);
      copy.view(step, [to - from], from).write(bytes);
    }
    return copy;
  }

  /** Copies a tensor's bytes out, whatever its dtype. */
  bytes(name: string): Uint8Array {
    const e = this.entry(name);
    const out = new Uint8Array(e.end - e.begin);
    addon.readFile(this.#file, e.begin, out);
    return out;
  }

  /** Has the file read from its beginning in the background, so that its pages lie in order before they are used. */
  readAhead(): void {
    addon.readAhead(this.#file);
  }

  close(): void {
    if (this.#file) addon.unmapFile(this.#file);
    this.#file = 0;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * What the system says of a file, before native code maps it. @throws {CheckpointError} file_missing, file_unreadable
 */
function requireReadable(path: string): void {
  try {
    readHead(path, 1);
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    const missing = code === 'ENOENT' || code === 'ENOTDIR';
    throw asReadError(e, path, missing ? 'complete the download' : 'give a safetensors file', (message) => {
      const details = { file: path };
      if (missing) return new CheckpointError('file_missing', message, details);
      if (code === 'EISDIR') return new CheckpointError('file_not_regular', message, details);
      return new CheckpointError('file_unreadable', message, details);
    });
  }
}

/**
 * Opens a file and checks all of its header: every tensor's range is its shape's size, ranges follow each other without
 * gap or overlap, and the file ends where the last one ends.
 * @throws {CheckpointError} file_missing, file_truncated, header_oversize, header_invalid, dtype_unknown,
 * duplicate_tensor, tensor_size, tensor_overlap, tensor_gap, file_trailing
 */
export function openSafetensors(path: string): SafetensorsFile {
  requireReadable(path);
  const file = addon.mapFile(path);
  try {
    const size = addon.fileSize(file);
    const prefix = new Uint8Array(8);
    if (size < 8)
      throw new CheckpointError(
        'file_truncated',
        `${path}: ${size} bytes, wanted at least the 8 of a header length; download it again`,
        { file: path },
      );
    addon.readFile(file, 0, prefix);
    const length = new DataView(prefix.buffer).getBigUint64(0, true);
    if (length > BigInt(MAX_HEADER_BYTES))
      throw new CheckpointError(
        'header_oversize',
        `${path}: header length ${length}, wanted at most ${MAX_HEADER_BYTES}; this is no safetensors file`,
        { file: path },
      );
    const header = Number(length);
    if (header > size - 8)
      throw new CheckpointError(
        'file_truncated',
        `${path}: header of ${header} bytes in a file of ${size}; download it again`,
        { file: path },
      );
    const text = new Uint8Array(header);
    addon.readFile(file, 8, text);
    const { tensors, metadata } = parseHeader(text, path, size);
    return new SafetensorsFile(path, file, tensors, metadata);
  } catch (e) {
    addon.unmapFile(file);
    throw e;
  }
}

/**
 * What a tensor is written from: itself, raw little-endian bytes, or pieces made one at a time when their turn comes.
 */
export type TensorSource = Tensor | ArrayBufferView | (() => Iterable<Tensor | ArrayBufferView>);
export interface WriteEntry {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly data: TensorSource;
}
/** An entry for a tensor that exists already. */
export const tensorEntry = (name: string, data: Tensor): WriteEntry => ({
  name,
  dtype: FILE_DTYPE[data.dtype],
  shape: data.shape,
  data,
});

const CHUNK = 1 << 24;
function* pieces(count: number, step: number): Iterable<[number, number]> {
  for (let from = 0; from < count; from += step) yield [from, Math.min(count, from + step)];
}

function writePiece(file: OutputFile, piece: Tensor | ArrayBufferView): number {
  if (!(piece instanceof Tensor)) {
    file.writeSync(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength));
    return piece.byteLength;
  }
  const size = piece.bytes / (piece.numel || 1);
  for (const [from, to] of pieces(piece.numel, CHUNK / (size || 1))) {
    using step = new Scope();
    const part = piece.view(step, [to - from], from).read();
    file.writeSync(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  }
  return piece.bytes;
}

/**
 * Lays the entries out one after another. Elements must lie aligned in the file: where the given order breaks that,
 * larger elements go first.
 */
export function layoutFile(
  path: string,
  entries: readonly WriteEntry[],
  metadata: Readonly<Record<string, string>>,
): { ordered: readonly WriteEntry[]; header: Uint8Array; total: number } {
  const bytesOf = (e: WriteEntry): number => e.shape.reduce((a, b) => a * b, FILE_DTYPES[e.dtype]);
  let at = 0;
  const aligned = entries.every((e) => {
    const ok = at % FILE_DTYPES[e.dtype] === 0;
    at += bytesOf(e);
    return ok;
  });
  const ordered = aligned ? entries : [...entries].sort((a, b) => FILE_DTYPES[b.dtype] - FILE_DTYPES[a.dtype]);
  const names = new Set<string>();
  const fields: string[] = Object.keys(metadata).length > 0 ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  let offset = 0;
  for (const e of ordered) {
    if (names.has(e.name) || e.name === '__metadata__')
      throw new CheckpointError('duplicate_tensor', `${path}: tensor "${e.name}" is written twice or reserved`, {
        file: path,
        tensor: e.name,
      });
    names.add(e.name);
    const end = offset + bytesOf(e);
    if (!Number.isSafeInteger(end))
      throw new CheckpointError(
        'tensor_size',
        `${path}: tensor "${e.name}" of shape [${e.shape.join(', ')}] is no size a file can have`,
        { file: path, tensor: e.name },
      );
    const shape = e.shape.join(',');
    fields.push(
      `${JSON.stringify(e.name)}:{"dtype":"${e.dtype}","shape":[${shape}],"data_offsets":[${offset},${end}]}`,
    );
    offset = end;
  }
  const text = Buffer.from(`{${fields.join(',')}}`);
  const padded = Math.ceil(text.length / 8) * 8;
  if (padded > MAX_HEADER_BYTES)
    throw new CheckpointError(
      'header_oversize',
      `${path}: the header would have ${padded} bytes, the format allows ${MAX_HEADER_BYTES}; split the file`,
      { file: path },
    );
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(text, 8);
  return { ordered, header, total: header.length + offset };
}

/**
 * Writes a file under a temporary name, flushes it and renames it: `path` appears whole or not at all; a FIFO or a
 * device gets the bytes as they come. Only one piece of one tensor is in JS memory at a time, so a 14 GB checkpoint
 * needs no more than its largest piece.
 * @param signal ends the wait for a FIFO's reader
 * @returns the file's size in bytes
 * @throws {CheckpointError} disk_full, duplicate_tensor, tensor_size (a source gave other bytes than its shape has),
 * header_oversize · {ConfigError} output_unwritable
 */
export function writeSafetensors(
  path: string,
  entries: readonly WriteEntry[],
  metadata: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): number {
  const { ordered, header, total } = layoutFile(path, entries, metadata);
  const file = OutputFile.openSync(path, signal);
  try {
    file.writeSync(header);
    for (const e of ordered) {
      const wanted = e.shape.reduce((a, b) => a * b, FILE_DTYPES[e.dtype]);
      let got = 0;
      for (const piece of typeof e.data === 'function' ? e.data() : [e.data]) got += writePiece(file, piece);
      if (got !== wanted)
        throw new CheckpointError(
          'tensor_size',
          `${path}: tensor "${e.name}" got ${got} bytes, its shape [${e.shape.join(', ')}] of ` +
            `${e.dtype} has ${wanted}`,
          { file: path, tensor: e.name },
        );
    }
    file.commit();
  } finally {
    file.discard();
  }
  return total;
}

// Reads what a GGUF file says of itself, strictly and in bounded memory: everything is checked before it is allocated,
// and nothing that llama.cpp would refuse or read otherwise is let pass.
import { CheckpointError, type ErrorCode } from '../../base/errors.js';
import { InputFile } from '../../base/inputs.js';
import {
  ALIGNMENT,
  alignTo,
  MAGIC,
  MAX_DIMS,
  MAX_NAME_BYTES,
  type Metadata,
  TENSOR_TYPE_OF,
  TENSOR_TYPES,
  type TensorInfo,
  tensorBytes,
  VALUE_BYTES,
  VALUE_TYPES,
  type Value,
  type ValueType,
  VERSION,
} from './types.js';

/** Bytes in places: a file, or what a test made. */
export interface ByteSource {
  readonly size: number;
  read(at: number, into: Uint8Array): void;
}
export interface GgufEntry extends TensorInfo {
  /** Where its data lies in the file. */
  readonly begin: number;
  readonly bytes: number;
}
export interface GgufHeader {
  readonly metadata: Metadata;
  readonly tensors: ReadonlyMap<string, GgufEntry>;
  readonly alignment: number;
}

/** o200k's tokens and merges take 12 MB; what comes before the data may have this many bytes. */
const MAX_HEADER_BYTES = 2 ** 28;
/** gpt-oss-120b has 687 tensors and some 40 keys. */
const MAX_ENTRIES = 2 ** 16;
const MAX_KEY_BYTES = 2 ** 16 - 1;
/** A chat template has 17 kB. */
const MAX_STRING_BYTES = 2 ** 24;
/** Elements of an array: o200k has 446,189 merges. An array of bytes takes eight times its bytes in memory. */
const MAX_ELEMENTS = 2 ** 22;
/** Read ahead at a time. */
const PIECE = 2 ** 16;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

class Cursor {
  #piece: Buffer = Buffer.alloc(0);
  #from = 0;
  at = 0;
  constructor(
    readonly source: ByteSource,
    readonly path: string,
  ) {}

  fail(what: string, code: ErrorCode = 'header_invalid'): never {
    throw new CheckpointError(code, `${this.path}: at byte ${this.at}: ${what}; export it again or download it again`, {
      file: this.path,
      at: this.at,
    });
  }
  /** The next `length` bytes, valid until the next call. */
  take(length: number): Buffer {
    const begin = this.at - this.#from;
    if (begin + length <= this.#piece.length) {
      this.at += length;
      return this.#piece.subarray(begin, begin + length);
    }
    this.need(length);
    const piece = Buffer.allocUnsafe(Math.min(Math.max(length, PIECE), this.source.size - this.at));
    this.source.read(this.at, piece);
    this.#piece = piece;
    this.#from = this.at;
    this.at += length;
    return piece.subarray(0, length);
  }
  /** @throws {CheckpointError} file_truncated, header_oversize */
  need(bytes: number): void {
    if (bytes > this.source.size - this.at)
      this.fail(`wanted ${bytes} more bytes, the file has ${this.source.size - this.at}`, 'file_truncated');
    if (this.at + bytes > MAX_HEADER_BYTES)
      this.fail(`more than ${MAX_HEADER_BYTES} bytes before the data; this is no model`, 'header_oversize');
  }
  u32(): number {
    return this.take(4).readUInt32LE();
  }
  /** A count or an offset: an integer that a double holds. */
  size(what: string): number {
    const value = this.take(8).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.fail(`${what} is ${value}, wanted a number below 2^53`);
    return Number(value);
  }
  string(what: string, most: number): string {
    const length = this.size(`length of ${what}`);
    if (length > most) this.fail(`${what} has ${length} bytes, wanted at most ${most}`);
    const bytes = this.take(length);
    try {
      return UTF8.decode(bytes);
    } catch {
      return this.fail(`${what} is not UTF-8`);
    }
  }
  type(what: string): ValueType {
    const number = this.u32(),
      type = VALUE_TYPES[number];
    return type ?? this.fail(`${what} has value type ${number}, wanted 0 to ${VALUE_TYPES.length - 1}`);
  }
  scalar(type: Exclude<ValueType, 'array'>, key: string): string | number | bigint | boolean {
    if (type === 'string') return this.string(`value of ${key}`, MAX_STRING_BYTES);
    const b = this.take(VALUE_BYTES[type] ?? 0);
    switch (type) {
      case 'u8':
        return b.readUInt8();
      case 'i8':
        return b.readInt8();
      case 'u16':
        return b.readUInt16LE();
      case 'i16':
        return b.readInt16LE();
      case 'u32':
        return b.readUInt32LE();
      case 'i32':
        return b.readInt32LE();
      case 'f32':
        return b.readFloatLE();
      case 'f64':
        return b.readDoubleLE();
      case 'u64':
        return b.readBigUInt64LE();
      case 'i64':
        return b.readBigInt64LE();
      case 'bool': {
        const value = b.readUInt8();
        return value > 1 ? this.fail(`${key} is the bool ${value}, wanted 0 or 1`) : value === 1;
      }
      default:
        return type satisfies never;
    }
  }
  value(key: string): Value {
    const type = this.type(key);
    if (type !== 'array') return { type, value: this.scalar(type, key) } as Value;
    const of = this.type(key);
    if (of === 'array') return this.fail(`${key} is an array of arrays, which no reader takes`);
    const count = this.size(`count of ${key}`);
    if (count > MAX_ELEMENTS) this.fail(`${key} has ${count} elements, wanted at most ${MAX_ELEMENTS}`);
    // A string has at least the 8 bytes of its length: a count that the file cannot hold makes no array.
    this.need(count * (VALUE_BYTES[of] ?? 8));
    const value: unknown[] = [];
    for (let i = 0; i < count; i++) value.push(this.scalar(of, key));
    return { type, of, value } as Value;
  }
}

function readMetadata(c: Cursor, count: number): Map<string, Value> {
  const metadata = new Map<string, Value>();
  for (let i = 0; i < count; i++) {
    const key = c.string('a key', MAX_KEY_BYTES);
    if (!/^[!-~]+$/.test(key)) c.fail(`a key is ${JSON.stringify(key.slice(0, 40))}, wanted printable ASCII`);
    if (metadata.has(key)) c.fail(`key ${key} is there twice`);
    metadata.set(key, c.value(key));
  }
  return metadata;
}

function alignmentOf(c: Cursor, metadata: Metadata): number {
  const given = metadata.get('general.alignment');
  if (given === undefined) return ALIGNMENT;
  if (given.type !== 'u32' || given.value < 8 || given.value > 2 ** 16 || (given.value & (given.value - 1)) !== 0)
    return c.fail(`general.alignment is ${given.type} ${String(given.value).slice(0, 40)}, wanted a power of two`);
  return given.value;
}

interface Described extends TensorInfo {
  readonly offset: number;
  readonly bytes: number;
}
function readTensorInfo(c: Cursor): Described {
  const name = c.string('name of a tensor', MAX_NAME_BYTES),
    shown = JSON.stringify(name);
  if (name === '') c.fail('a tensor has no name');
  const dims = c.u32();
  if (dims < 1 || dims > MAX_DIMS) c.fail(`tensor ${shown} has ${dims} dimensions, wanted 1 to ${MAX_DIMS}`);
  const ne = Array.from({ length: dims }, () => c.size(`a dimension of ${shown}`));
  const number = c.u32(),
    type = TENSOR_TYPE_OF.get(number);
  if (!type)
    return c.fail(
      `tensor ${shown} has element type ${number}, wanted ` +
        Object.entries(TENSOR_TYPES)
          .map(([n, t]) => `${t.id} (${n})`)
          .join(', '),
      'dtype_unsupported',
    );
  if (ne.some((n) => n < 1) || (ne[0] ?? 0) % TENSOR_TYPES[type].elements !== 0)
    c.fail(`tensor ${shown} is [${ne.join(', ')}] of ${type}, no whole number of blocks`, 'tensor_shape');
  const bytes = tensorBytes({ type, ne });
  // A product beyond 2^53 is rounded: it is far beyond the file, and refused with it.
  if (bytes > c.source.size)
    c.fail(`tensor ${shown} would have ${bytes} bytes, the file has ${c.source.size}`, 'tensor_size');
  return { name, type, ne, bytes, offset: c.size(`offset of ${shown}`) };
}

/** Tensors in the order of the file, without overlap, with no more between them than the alignment asks for. */
function place(c: Cursor, infos: readonly Described[], alignment: number): Map<string, GgufEntry> {
  const start = alignTo(c.at, alignment),
    tensors = new Map<string, GgufEntry>();
  let next = 0;
  for (const { name, type, ne, bytes, offset } of infos) {
    const shown = JSON.stringify(name);
    if (tensors.has(name)) c.fail(`tensor ${shown} is there twice`, 'duplicate_tensor');
    if (offset !== next)
      c.fail(`tensor ${shown} begins at ${offset}, wanted ${next}`, offset < next ? 'tensor_overlap' : 'tensor_gap');
    tensors.set(name, { name, type, ne, begin: start + offset, bytes });
    next = alignTo(offset + bytes, alignment);
  }
  const last = [...tensors.values()].at(-1),
    end = last ? last.begin + last.bytes : c.at;
  const size = c.source.size;
  if (size < end) c.fail(`the file has ${size} bytes, its tensors end at ${end}`, 'file_truncated');
  if (size !== end && size !== alignTo(end, alignment))
    c.fail(`the file has ${size} bytes, its tensors end at ${end}`, 'file_trailing');
  return tensors;
}

/**
 * Reads all before the data, and checks that the data is there.
 * @param path for messages
 * @throws {CheckpointError} header_invalid, header_oversize, file_truncated, file_trailing, dtype_unsupported,
 * duplicate_tensor, tensor_shape, tensor_size, tensor_overlap, tensor_gap
 */
export function parseGguf(source: ByteSource, path: string): GgufHeader {
  const c = new Cursor(source, path);
  const magic = c.take(4).toString('latin1');
  if (magic !== MAGIC) c.fail(`begins with ${JSON.stringify(magic)}, wanted ${MAGIC}; this is no GGUF file`);
  const version = c.u32();
  if (version !== VERSION)
    c.fail(
      `is version ${version}, wanted ${VERSION}` +
        (version === VERSION << 24 ? '; its numbers are big-endian, which is not read here' : ''),
    );
  const numTensors = c.size('number of tensors'),
    numKeys = c.size('number of keys');
  if (numTensors > MAX_ENTRIES || numKeys > MAX_ENTRIES)
    c.fail(`has ${numTensors} tensors and ${numKeys} keys, wanted at most ${MAX_ENTRIES} of each`, 'header_oversize');
  const metadata = readMetadata(c, numKeys),
    alignment = alignmentOf(c, metadata);
  const infos: Described[] = [];
  for (let i = 0; i < numTensors; i++) infos.push(readTensorInfo(c));
  return { metadata, tensors: place(c, infos, alignment), alignment };
}

/** A GGUF file open for reading. */
export class GgufFile implements Disposable {
  private constructor(
    readonly path: string,
    readonly file: InputFile,
    readonly header: GgufHeader,
  ) {}
  /** @throws as parseGguf · {DataError} file_not_regular · what the file system says */
  static open(path: string): GgufFile {
    const file = InputFile.open(path);
    try {
      return new GgufFile(path, file, parseGguf(file, path));
    } catch (e) {
      file.close();
      throw e;
    }
  }
  /** @throws {CheckpointError} tensor_missing */
  entry(name: string): GgufEntry {
    const entry = this.header.tensors.get(name);
    if (!entry)
      throw new CheckpointError('tensor_missing', `${this.path}: no tensor "${name}"`, {
        file: this.path,
        tensor: name,
      });
    return entry;
  }
  /** Bytes [from, from + length) of a tensor's data; all of it by default. */
  bytes(name: string, from = 0, length = this.entry(name).bytes - from): Uint8Array {
    const { begin, bytes } = this.entry(name);
    if (from < 0 || length < 0 || from + length > bytes)
      throw new CheckpointError('tensor_size', `${this.path}: tensor "${name}" has ${bytes} bytes, asked for more`, {
        file: this.path,
        tensor: name,
      });
    const out = new Uint8Array(length);
    this.file.read(begin + from, out);
    return out;
  }
  close(): void {
    this.file.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

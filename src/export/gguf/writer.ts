// Writes a GGUF file in one pass: every size is known before the first byte, tensors come in pieces.
import { CheckpointError } from '../../base/errors.js';
import { LargeFile } from '../../base/large-file.js';
import { asWriteError } from '../../base/system-error.js';
import {
  ALIGNMENT,
  alignTo,
  type GgufArray,
  MAGIC,
  MAX_DIMS,
  MAX_NAME_BYTES,
  type Metadata,
  type Scalar,
  TENSOR_TYPES,
  type TensorInfo,
  tensorBytes,
  VALUE_BYTES,
  VALUE_TYPES,
  type Value,
  type ValueType,
  VERSION,
} from './types.js';

/** A tensor and its bytes in order, made piece by piece when their turn comes. */
export interface GgufTensor extends TensorInfo {
  readonly data: () => Iterable<Uint8Array>;
}

/** Bytes that grow. */
class Bytes {
  #buffer = Buffer.allocUnsafe(1 << 16);
  #length = 0;
  #room(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#length, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    return at;
  }
  u32(value: number): void {
    const at = this.#room(4); // before the buffer is read: it may be another one afterwards
    this.#buffer.writeUInt32LE(value, at);
  }
  u64(value: number | bigint): void {
    const at = this.#room(8);
    this.#buffer.writeBigUInt64LE(BigInt(value), at);
  }
  string(value: string): void {
    const length = Buffer.byteLength(value);
    this.u64(length);
    const at = this.#room(length);
    this.#buffer.write(value, at, length, 'utf8');
  }
  scalar({ type, value }: Scalar): void {
    if (type === 'string') {
      this.string(value);
      return;
    }
    const at = this.#room(VALUE_BYTES[type] ?? 0),
      b = this.#buffer;
    switch (type) {
      case 'u8':
        b.writeUInt8(value, at);
        break;
      case 'i8':
        b.writeInt8(value, at);
        break;
      case 'u16':
        b.writeUInt16LE(value, at);
        break;
      case 'i16':
        b.writeInt16LE(value, at);
        break;
      case 'u32':
        b.writeUInt32LE(value, at);
        break;
      case 'i32':
        b.writeInt32LE(value, at);
        break;
      case 'f32':
        b.writeFloatLE(value, at);
        break;
      case 'f64':
        b.writeDoubleLE(value, at);
        break;
      case 'u64':
        b.writeBigUInt64LE(value, at);
        break;
      case 'i64':
        b.writeBigInt64LE(value, at);
        break;
      case 'bool':
        b.writeUInt8(value ? 1 : 0, at);
        break;
      default:
        throw type satisfies never;
    }
  }
  array({ of, value }: GgufArray): void {
    this.u32(numberOf(of));
    this.u64(value.length);
    for (const element of value) this.scalar({ type: of, value: element } as Scalar);
  }
  value(v: Value): void {
    this.u32(numberOf(v.type));
    if (v.type === 'array') this.array(v);
    else this.scalar(v);
  }
  /** @returns what was written, padded with zeros to a multiple of `alignment` */
  finish(alignment: number): Buffer {
    const at = this.#length,
      end = alignTo(at, alignment);
    this.#room(end - at);
    return this.#buffer.fill(0, at, end).subarray(0, end);
  }
}
const numberOf = (type: ValueType): number => VALUE_TYPES.indexOf(type);

export interface GgufLayout {
  /** All before the data, padded. */
  readonly header: Buffer;
  /** Bytes of the whole file. */
  readonly total: number;
}

const tensorError = (path: string, tensor: string, what: string): CheckpointError =>
  new CheckpointError('tensor_shape', `${path}: tensor "${tensor}" ${what}`, { file: path, tensor });

/** @throws {CheckpointError} tensor_shape, duplicate_tensor: what no reader would take */
export function layoutGguf(path: string, metadata: Metadata, tensors: readonly TensorInfo[]): GgufLayout {
  const b = new Bytes();
  b.u32(Buffer.from(MAGIC, 'latin1').readUInt32LE());
  b.u32(VERSION);
  b.u64(tensors.length);
  b.u64(metadata.size);
  for (const [key, value] of metadata) {
    b.string(key);
    b.value(value);
  }
  let offset = 0;
  const names = new Set<string>();
  for (const t of tensors) {
    if (Buffer.byteLength(t.name) > MAX_NAME_BYTES)
      throw tensorError(path, t.name, `has a name of more than ${MAX_NAME_BYTES} bytes`);
    if (names.has(t.name))
      throw new CheckpointError('duplicate_tensor', `${path}: tensor "${t.name}" is written twice`, {
        file: path,
        tensor: t.name,
      });
    names.add(t.name);
    if (t.ne.length < 1 || t.ne.length > MAX_DIMS || t.ne.some((n) => !Number.isSafeInteger(n) || n < 1))
      throw tensorError(path, t.name, `is [${t.ne.join(', ')}], wanted 1 to ${MAX_DIMS} dimensions of at least 1`);
    if ((t.ne[0] ?? 0) % TENSOR_TYPES[t.type].elements !== 0)
      throw tensorError(
        path,
        t.name,
        `has rows of ${t.ne[0]} elements, ${t.type} wants a multiple of ${TENSOR_TYPES[t.type].elements}`,
      );
    b.string(t.name);
    b.u32(t.ne.length);
    for (const n of t.ne) b.u64(n);
    b.u32(TENSOR_TYPES[t.type].id);
    b.u64(offset);
    offset = alignTo(offset + tensorBytes(t), ALIGNMENT);
  }
  const header = b.finish(ALIGNMENT);
  const total = header.length + offset;
  if (!Number.isSafeInteger(total))
    throw new CheckpointError('tensor_size', `${path}: would have ${total} bytes, no size a file can have`, {
      file: path,
    });
  return { header, total };
}

export interface WriteGgufOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** A file that was written. */
export interface Written {
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * Writes and flushes the file, hashed on its way; while some bytes are written the next ones are made. Not atomic by
 * itself: for a folder that is renamed as a whole.
 * @throws {CheckpointError} tensor_shape, duplicate_tensor, tensor_size, disk_full · the signal's reason
 */
export async function writeGguf(
  path: string,
  metadata: Metadata,
  tensors: readonly GgufTensor[],
  { signal, onProgress }: WriteGgufOptions = {},
): Promise<Written> {
  const { header, total } = layoutGguf(path, metadata, tensors);
  let file: LargeFile | undefined,
    done = 0;
  const put = async (into: LargeFile, piece: Uint8Array): Promise<void> => {
    signal?.throwIfAborted();
    await into.write(piece);
    done += piece.length;
    onProgress?.(done, total);
  };
  try {
    file = await LargeFile.create(path, { expectedBytes: total });
    await put(file, header);
    for (const t of tensors) {
      const wanted = tensorBytes(t);
      let got = 0;
      for (const piece of t.data()) {
        await put(file, piece);
        got += piece.length;
      }
      if (got !== wanted)
        throw new CheckpointError(
          'tensor_size',
          `${path}: tensor "${t.name}" got ${got} bytes, wanted the ${wanted} of its shape`,
          { file: path, tensor: t.name },
        );
      await put(file, new Uint8Array(alignTo(wanted, ALIGNMENT) - wanted));
    }
    return { bytes: total, sha256: await file.finish() };
  } catch (e) {
    throw asWriteError(e, path);
  } finally {
    await file?.close();
  }
}

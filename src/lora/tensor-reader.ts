// Float tensors of a safetensors file by name, read as f32 whatever float they are stored in.
import { CheckpointError } from '../base/errors.js';
import { checkMetadata } from '../model/file-keys.js';
import { openSafetensors, type SafetensorsFile } from '../native/safetensors.js';

export interface FloatEntry {
  readonly shape: readonly number[];
  read(): Float32Array;
}
export interface FloatFile extends Disposable {
  readonly entries: ReadonlyMap<string, FloatEntry>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** Values of all 65,536 f16 codes, made when the first file of them is read. */
let halves: Float32Array | undefined;
function f16Table(): Float32Array {
  return Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1,
      exponent = (bits >> 10) & 31,
      fraction = bits & 1023;
    if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
    return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
  });
}

function readFloats(file: SafetensorsFile, name: string): Float32Array {
  const { dtype } = file.entry(name);
  const bytes = file.bytes(name);
  if (dtype === 'F32') return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const half = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const out = new Float32Array(half.length);
  if (dtype === 'BF16') {
    const bits = new Uint32Array(out.buffer);
    for (let i = 0; i < half.length; i++) bits[i] = (half[i] as number) << 16;
  } else {
    halves ??= f16Table();
    for (let i = 0; i < half.length; i++) out[i] = halves[half[i] as number] as number;
  }
  return out;
}

/**
 * @throws {CheckpointError} not a safetensors file, metadata that nobody knows, a tensor that is not F32, BF16 or F16
 */
export function readFloatFile(path: string): FloatFile {
  const file = openSafetensors(path);
  try {
    checkMetadata(path, file.metadata);
  } catch (e) {
    file.close();
    throw e;
  }
  const entries = new Map<string, FloatEntry>();
  for (const [name, e] of file.tensors) {
    if (!['F32', 'BF16', 'F16'].includes(e.dtype)) {
      file.close();
      throw new CheckpointError(
        'dtype_unsupported',
        `${path}: tensor "${name}" is ${e.dtype}, wanted F32, BF16 or F16`,
        { file: path, tensor: name },
      );
    }
    entries.set(name, { shape: e.shape, read: () => readFloats(file, name) });
  }
  return { entries, metadata: file.metadata, [Symbol.dispose]: () => file.close() };
}

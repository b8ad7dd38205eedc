// GGUF version 3, as llama.cpp and Ollama read it: what a file consists of. Integers are little-endian. Facts: ggml's
// docs/gguf.md and ggml.h.

export const MAGIC = 'GGUF';
export const VERSION = 3;
/** Where tensors begin, unless general.alignment says otherwise. */
export const ALIGNMENT = 32;
export const MAX_DIMS = 4;
/** ggml keeps a name and its final zero in 64 bytes. */
export const MAX_NAME_BYTES = 63;

/** Types of values, by their number in the file. */
export const VALUE_TYPES = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
] as const;
export type ValueType = (typeof VALUE_TYPES)[number];
export type NumberType = Exclude<ValueType, 'bool' | 'string' | 'array' | 'u64' | 'i64'>;

/** Bytes of one value; null: as many as it says. */
export const VALUE_BYTES: Readonly<Record<ValueType, number | null>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: null,
  array: null,
  u64: 8,
  i64: 8,
  f64: 8,
};

export type Scalar =
  | { readonly type: NumberType; readonly value: number }
  | { readonly type: 'u64' | 'i64'; readonly value: bigint }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string };
/** Elements have one type; arrays of arrays are in no file that llama.cpp reads. */
export type GgufArray =
  | { readonly type: 'array'; readonly of: NumberType; readonly value: readonly number[] | Int32Array | Float32Array }
  | { readonly type: 'array'; readonly of: 'u64' | 'i64'; readonly value: readonly bigint[] }
  | { readonly type: 'array'; readonly of: 'bool'; readonly value: readonly boolean[] }
  | { readonly type: 'array'; readonly of: 'string'; readonly value: readonly string[] };
export type Value = Scalar | GgufArray;
export type Metadata = ReadonlyMap<string, Value>;

export const u32 = (value: number): Value => ({ type: 'u32', value });
export const f32 = (value: number): Value => ({ type: 'f32', value });
export const bool = (value: boolean): Value => ({ type: 'bool', value });
export const text = (value: string): Value => ({ type: 'string', value });
export const texts = (value: readonly string[]): Value => ({ type: 'array', of: 'string', value });
export const i32s = (value: Int32Array): Value => ({ type: 'array', of: 'i32', value });

/** Element types that are written and read here: their number, elements of a block, bytes of a block. */
export const TENSOR_TYPES = {
  F32: { id: 0, elements: 1, bytes: 4 },
  F16: { id: 1, elements: 1, bytes: 2 },
  BF16: { id: 30, elements: 1, bytes: 2 },
  MXFP4: { id: 39, elements: 32, bytes: 17 },
} as const;
export type TensorType = keyof typeof TENSOR_TYPES;
export const TENSOR_TYPE_OF: ReadonlyMap<number, TensorType> = new Map(
  Object.entries(TENSOR_TYPES).map(([name, t]) => [t.id, name as TensorType]),
);

/** `ne`: elements by dimension, the fastest first: a numpy shape reversed. */
export interface TensorInfo {
  readonly name: string;
  readonly type: TensorType;
  readonly ne: readonly number[];
}
/** Bytes of a tensor's data; its rows are whole blocks. */
export const tensorBytes = ({ type, ne }: Pick<TensorInfo, 'type' | 'ne'>): number => {
  const { elements, bytes } = TENSOR_TYPES[type];
  return (ne.reduce((a, b) => a * b, 1) / elements) * bytes;
};
export const alignTo = (at: number, alignment: number): number => Math.ceil(at / alignment) * alignment;

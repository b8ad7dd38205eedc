// Tensors live in native memory behind handles. A tensor belongs to a Scope and goes with it; nothing waits for the
// garbage collector.

import { NativeError } from '../base/errors.js';
import { addon } from './addon.js';
import { HOST, type Place, placeNumber } from './backends.js';

export type DType = 'f32' | 'bf16' | 'i32' | 'u8';
/** What memory is counted as: see `memoryStats`. */
export type Category = 'weights' | 'adapter' | 'optimizer' | 'activations' | 'workspace' | 'kv';
export const DTYPES: readonly DType[] = ['f32', 'bf16', 'i32', 'u8'];
export const CATEGORIES: readonly Category[] = ['weights', 'adapter', 'optimizer', 'activations', 'workspace', 'kv'];
export type { Place } from './backends.js';
export const dtypeBytes = (dtype: DType): number => (dtype === 'u8' ? 1 : dtype === 'bf16' ? 2 : 4);

/**
 * Bytes up to which V8 keeps an array's elements in its own heap, until native code looks at them: then they get a
 * buffer, which each collection of garbage looks at. So small ones go through one array of each length.
 */
const SMALL_BYTES = 64;
const stages = {
  f32: Array.from({ length: SMALL_BYTES / 4 + 1 }, (_, n) => new Float32Array(n)),
  i32: Array.from({ length: SMALL_BYTES / 4 + 1 }, (_, n) => new Int32Array(n)),
};
/** What small arrays of this kind and length go through; null: it goes by itself. */
function stageOf(data: Float32Array | Int32Array | Uint8Array | Uint16Array): Float32Array | Int32Array | null {
  if (data.byteLength > SMALL_BYTES) return null;
  if (data instanceof Float32Array) return stages.f32[data.length] ?? null;
  return data instanceof Int32Array ? (stages.i32[data.length] ?? null) : null;
}

/**
 * A dense row-major tensor of up to 4 dimensions. `handle` is what native code knows it by; using it after its scope
 * closed throws.
 */
export class Tensor {
  readonly numel: number;
  constructor(
    readonly handle: number,
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly place: Place = HOST,
  ) {
    let numel = 1;
    for (let i = 0; i < shape.length; i++) numel *= shape[i] as number;
    this.numel = numel;
  }
  get bytes(): number {
    return this.numel * dtypeBytes(this.dtype);
  }
  /** Whether there is memory behind it: in a dry run there is not, and what is read from it means nothing. */
  get hasContents(): boolean {
    return addon.hasContents(this.handle);
  }
  /** First dimension. */
  get rows(): number {
    return this.shape[0] ?? 1;
  }

  /**
   * The same memory from element `offset`, in another shape. The view belongs to `scope`; the memory stays with this
   * tensor, and the view dies with either.
   */
  view(scope: Scope, shape: readonly number[], offset = 0): Tensor {
    return scope.adopt(new Tensor(addon.view(this.handle, offset, shape), this.dtype, shape, this.place));
  }
  /** Rows [from, to) of the first dimension. */
  slice(scope: Scope, from: number, to: number): Tensor {
    return this.view(scope, [to - from, ...this.shape.slice(1)], from * (this.numel / (this.rows || 1)));
  }
  /** Copies into native memory; `data` has exactly `numel` elements (bf16 as raw Uint16Array). */
  write(data: Float32Array | Int32Array | Uint8Array | Uint16Array): this {
    const stage = stageOf(data);
    stage?.set(data);
    addon.write(this.handle, stage ?? data);
    return this;
  }
  /** Copies another tensor's elements, of the same dtype and number, from wherever it lies. */
  copy(from: Tensor): this {
    addon.copy(this.handle, from.handle);
    return this;
  }
  /**
   * Of a tensor of `Scope.reserved`: its first `rows` rows are in use from now on.
   * @throws {NativeError} out_of_memory
   */
  commit(rows: number): void {
    if (this.place === HOST) addon.commit(this.handle, rows * (this.bytes / (this.rows || 1)));
  }
  /** Copies out: f32 → Float32Array, i32 → Int32Array, u8 → Uint8Array, bf16 → Uint16Array of raw bits. */
  read(): Float32Array | Int32Array | Uint8Array | Uint16Array {
    const out =
      this.dtype === 'f32'
        ? new Float32Array(this.numel)
        : this.dtype === 'i32'
          ? new Int32Array(this.numel)
          : this.dtype === 'u8'
            ? new Uint8Array(this.numel)
            : new Uint16Array(this.numel);
    const stage = stageOf(out);
    addon.read(this.handle, stage ?? out);
    if (stage) out.set(stage);
    return out;
  }
  /** Of a tensor mapped from a file: the system is asked to read it from the disk while something else is done. */
  willNeed(): void {
    addon.willNeed(this.handle);
  }
  /** Copies the bytes out. @throws {NativeError} shape_mismatch: `out` is of another size */
  readInto(out: Uint8Array): Uint8Array {
    addon.read(this.handle, out);
    return out;
  }
  /** f32 contents (dtype must be f32). */
  toFloat32(): Float32Array {
    if (this.dtype !== 'f32')
      throw new NativeError('bad_dtype', `toFloat32: tensor is ${this.dtype}, wanted f32; cast it first`);
    return this.read() as Float32Array;
  }
}

/**
 * Owns tensors and frees them together: `using s = new Scope('activations')`, or `close()`. A second close does
 * nothing.
 */
export class Scope implements Disposable {
  #owned: Tensor[] = [];
  #inner: Scope[] = [];
  #closed = false;
  constructor(
    readonly category: Category = 'activations',
    readonly place: Place = HOST,
  ) {}

  /** New tensor with undefined contents. */
  empty(dtype: DType, shape: readonly number[], category: Category = this.category): Tensor {
    return this.adopt(
      new Tensor(
        addon.alloc(DTYPES.indexOf(dtype), shape, CATEGORIES.indexOf(category), placeNumber(this.place)),
        dtype,
        shape,
        this.place,
      ),
    );
  }
  /** New tensor holding a copy of `data`. */
  from(data: Float32Array | Int32Array | Uint8Array, shape: readonly number[] = [data.length]): Tensor {
    const dtype: DType = data instanceof Float32Array ? 'f32' : data instanceof Int32Array ? 'i32' : 'u8';
    return this.empty(dtype, shape).write(data);
  }
  /**
   * New tensor of zeros in a nameless file in `folder`, freed like any other: memory of the page cache, which the
   * system writes out when it is short, and none of this process's own. @throws {NativeError} offload_disk_full,
   * offload_unwritable
   */
  offloaded(folder: string, dtype: DType, shape: readonly number[]): Tensor {
    return this.adopt(new Tensor(addon.allocScratch(folder, DTYPES.indexOf(dtype), shape), dtype, shape));
  }
  /**
   * New tensor of zeros that may stay mostly unused: on the host it has addresses, and memory only where it was written
   * to; counted is what `Tensor.commit` says. On a GPU it is there, and counted, at once.
   * @throws {NativeError} out_of_memory
   */
  reserved(dtype: DType, shape: readonly number[], category: Category = this.category): Tensor {
    if (this.place !== HOST) return this.zeros(dtype, shape, category);
    return this.adopt(
      new Tensor(addon.reserve(DTYPES.indexOf(dtype), shape, CATEGORIES.indexOf(category)), dtype, shape, this.place),
    );
  }
  zeros(dtype: DType, shape: readonly number[], category: Category = this.category): Tensor {
    const t = this.empty(dtype, shape, category);
    addon.zero(t.handle);
    return t;
  }
  /** Takes over a tensor: it is freed when this scope closes. */
  adopt(tensor: Tensor): Tensor {
    if (this.#closed) {
      addon.free(tensor.handle);
      throw new NativeError(
        'scope_closed',
        'a tensor was made in a closed scope; keep the scope open while its tensors are used',
      );
    }
    this.#owned.push(tensor);
    return tensor;
  }
  /** A scope that closes with this one at the latest. */
  open(category: Category = this.category, place: Place = this.place): Scope {
    const scope = new Scope(category, place);
    this.#inner.push(scope);
    return scope;
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const s of this.#inner) s.close();
    for (const t of this.#owned) addon.free(t.handle);
    this.#inner = [];
    this.#owned = [];
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

export interface MemoryStats {
  readonly live: Readonly<Record<Category, number>>;
  readonly peak: Readonly<Record<Category, number>>;
  readonly totalLive: number;
  readonly totalPeak: number;
  readonly cached: number;
  readonly offloaded: number;
  readonly offloadedPeak: number;
}
/**
 * Bytes held by native code (mapped files not counted), now and at their peak since `resetPeaks`; `offloaded`: in
 * scratch files, apart from all others.
 */
export function memoryStats(): MemoryStats {
  const raw = addon.memoryStats();
  const n = CATEGORIES.length;
  const named = (from: number): Record<Category, number> =>
    Object.fromEntries(CATEGORIES.map((c, i) => [c, raw[from + i] ?? 0])) as Record<Category, number>;
  return {
    live: named(0),
    peak: named(n),
    totalLive: raw[2 * n] ?? 0,
    totalPeak: raw[2 * n + 1] ?? 0,
    cached: raw[2 * n + 2] ?? 0,
    offloaded: raw[2 * n + 3] ?? 0,
    offloadedPeak: raw[2 * n + 4] ?? 0,
  };
}
export const resetPeaks = (): void => addon.resetPeaks();
/** Gives blocks that are kept for reuse back to the system. */
export const releaseCached = (): void => addon.releaseCached();
/** Threads of the shared CPU pool, the calling one included. @throws {NativeError} not in 1…1024 */
export const setThreads = (n: number): void => addon.setThreads(n);
/**
 * So many threads at most work on the ops that this JavaScript thread calls from now on; 1: they are its own work, and
 * several threads compute side by side. @returns how many it were · @throws {NativeError} not in 1…1024
 */
export const useAtMost = (n: number): number => addon.useAtMost(n);
/** Threads that work on an op that is called now. */
export const getThreads = (): number => addon.getThreads();

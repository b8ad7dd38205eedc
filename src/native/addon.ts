// Finds and loads the native addon; the raw functions of native/binding, one for one. Only
// src/native imports this (test/layers.test.ts).
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { CheckpointError, type ErrorCode, NativeError, TemperError } from '../base/errors.js';
import { lazy } from '../base/lazy.js';
import { addonAdvice, addonFile, BUILD_ADDON } from './libraries.js';

/** A GPU as its driver describes it; `memory` in bytes. */
export interface DeviceDescription {
  readonly index: number;
  readonly name: string;
  readonly major: number;
  readonly minor: number;
  readonly multiprocessors: number;
  readonly memory: number;
}

/** Raw native functions. Handles are numbers; an error is thrown as `Error` with `code`, mapped below. */
interface Addon {
  /** The op table's names, in order: an op's number is its place. */
  readonly opNames: readonly string[];
  /** Number of arguments of each op. */
  readonly opArity: readonly number[];
  /** Calls op `id` with its arguments taken from `args`: a tensor as its handle (0 = null), a number as itself. */
  call(id: number): void;
  /** The argument block shared with native code. Each JS thread has its own. */
  readonly args: Float64Array;

  /** `place` 0: host, 1: the open device. */
  alloc(dtype: number, shape: readonly number[], category: number, place: number): number;
  /** Addresses on the host, zeros; counted is what `commit` says. */
  reserve(dtype: number, shape: readonly number[], category: number): number;
  /** The first `bytes` of a reserved tensor are in use. */
  commit(handle: number, bytes: number): void;
  free(handle: number): void;
  view(handle: number, offset: number, shape: readonly number[]): number;
  /** A tensor over the memory of a typed array, which the caller keeps in place while the handle lives. */
  borrow(data: ArrayBufferView, dtype: number, shape: readonly number[]): number;
  write(handle: number, data: ArrayBufferView): void;
  read(handle: number, into: ArrayBufferView): void;
  zero(handle: number): void;
  /** Copies elements between tensors of one dtype and size, wherever each lies. */
  copy(to: number, from: number): void;
  /**
   * Loads a backend library and says what it is. `driver`: the driver's library, without which it is not loaded ('':
   * it needs none); `build`: how to make it, for errors. Versions are 1000·major + 10·minor; driver 0: none.
   */
  backendInfo(
    path: string,
    driver: string,
    build: string,
  ): { readonly backend: string; readonly builtFor: string; readonly driver: number; readonly runtime: number };
  listDevices(): readonly DeviceDescription[];
  /** Opens a device, once per process; index −1: the machine's only kind. `memoryLimit` in bytes, 0: none. */
  openDevice(path: string, driver: string, build: string, index: number, memoryLimit: number): DeviceDescription;
  deviceMemory(): Float64Array;
  /** Index of the open device; −1: none. */
  openedDevice(): number;
  /** Waits for the device and throws what its kernels found wrong. */
  synchronize(): void;
  /** Tiles that the open device may cut matrix products into, separated by spaces; '': there is no choice. */
  tileNames(): string;
  /** Products of that class take that tile from here on ('': the rule's); class `*`: all. Changes no bit. */
  setTile(product: string, tile: string): void;
  /** A line "class<tab>tile" of each class that was multiplied since the last call. */
  tiledProducts(): string;
  /** Copies host tensor `from` to device tensor `to` beside the ops, after those called so far. @returns a ticket */
  prefetch(to: number, from: number): number;
  /** The other way: device tensor `from` to host tensor `to`. */
  evict(to: number, from: number): number;
  /** Ops called from here on find the bytes of that ticket; of `evict`, the host does too. */
  arrive(ticket: number): void;
  /** Since the last call: bytes to the device, bytes from it, seconds of copying, seconds that ops waited. */
  takeTransfers(): Float64Array;
  /**
   * Ops of that place (0: host, 1: device) until endGraph are recorded, not run. `shared`: a host graph whose memory is
   * used too, 0: none.
   */
  beginGraph(place: number, shared: number): void;
  /** Ends the recording; `abandon` 1 drops it and returns 0. @returns the graph's number */
  endGraph(abandon: 0 | 1): number;
  launchGraph(graph: number): void;
  freeGraph(graph: number): void;
  memoryStats(): Float64Array;
  resetPeaks(): void;
  releaseCached(): void;
  setThreads(n: number): void;
  /** Threads that work on an op of this JavaScript thread, at most. @returns how many it were */
  useAtMost(n: number): number;
  getThreads(): number;

  /**
   * Maps a file read-only; @returns a file number. The mapping lives until the file and every tensor in it are closed.
   */
  mapFile(path: string): number;
  /** A tensor over mapped bytes [offset, offset + numel·size), no copy. Offset needs the dtype's alignment. */
  mapTensor(file: number, offset: number, dtype: number, shape: readonly number[]): number;
  /**
   * A writable tensor, zeros, in a nameless file of its own in `folder`: the page cache's memory, written out when that
   * is short.
   */
  allocScratch(folder: string, dtype: number, shape: readonly number[]): number;
  unmapFile(file: number): void;
  /** Bytes of a mapped file. */
  fileSize(file: number): number;
  /** Copies bytes from `offset` of a mapped file into `into`, as many as it holds. */
  readFile(file: number, offset: number, into: ArrayBufferView): void;
  /** A wish: that a mapped file is read from its beginning, in a thread of its own. */
  readAhead(file: number): void;
  /** A wish: that what a host tensor is mapped from is read ahead of its use. */
  willNeed(handle: number): void;
  /** Whether there is memory behind a tensor: not in a dry run. */
  hasContents(handle: number): boolean;
  /** From here to endPlan this thread's tensors have no memory and its ops only say what they cost. */
  beginPlan(): void;
  /** @returns what native/plan/plan.cpp counted, as plan.ts reads it */
  endPlan(): Float64Array;
  /** Handles open in the whole process. */
  tensorCount(): number;

  /** What the CPU has and which path is taken: {isa, features, threads, l2Bytes, …}. */
  cpuInfo(): {
    readonly isa: string;
    readonly features: readonly string[];
    readonly threads: number;
    readonly model: string;
  };
  /**
   * [GFLOP/s of the best dot product, GB/s read from a buffer of `bytes`], with `threads` at once. Takes about a second
   * and blocks.
   */
  measureLimits(threads: number, bytes: number): readonly [number, number];

  /**
   * BPE (native/tokenizer/bpe.h), split by o200k's pattern. Token i has the bytes [tokenOffsets[i], tokenOffsets[i+1])
   * of `tokens`; `merges` are pairs (left id, right id) in rank order, empty: the rank of a merge is the id of its
   * result. `wholePiece`: a piece that is a token is not merged at all.
   */
  bpeCreate(tokens: Uint8Array, tokenOffsets: Uint32Array, merges: Uint32Array, wholePiece: boolean): number;
  bpeFree(bpe: number): void;
  bpeEncode(bpe: number, utf8: Uint8Array): Int32Array;
}

function load(): Addon {
  const named = process.env.TEMPER_ADDON;
  const path = addonFile();
  if (!existsSync(path))
    throw new NativeError(
      'addon_missing',
      `native addon not found at ${path}; ${named ? 'TEMPER_ADDON names it: unset or correct it' : addonAdvice()}`,
      { path },
    );
  let raw: Addon;
  try {
    raw = createRequire(import.meta.url)(path) as Addon;
  } catch (e) {
    const [reason = ''] = String((e as Error).message).split('\n');
    throw new NativeError(
      'addon_unusable',
      `${path}: cannot be loaded (${reason}); build it here with \`${BUILD_ADDON}\` (needs cmake and g++)`,
      { path },
      { cause: e },
    );
  }
  return wrap(raw);
}

/** Native errors arrive as Error{code}; here, once, they become the classes of errors.ts. */
export function mapNativeError(error: unknown, op: string): unknown {
  if (error instanceof TemperError || !(error instanceof Error) || !('code' in error)) return error;
  const code = String(error.code) as ErrorCode; // native code's own are in the list: a test reads both
  return code.startsWith('file_')
    ? new CheckpointError(code, error.message, { op })
    : new NativeError(code, error.message, { op });
}

type Raw = (...a: unknown[]) => unknown;
/** Hundreds of calls a token are of these; a list of arguments costs as much as what some of them do. */
const FEW: readonly string[] = ['alloc', 'free', 'view', 'write', 'read'];
const guarded = (name: string, call: Raw): Raw =>
  FEW.includes(name)
    ? (a, b, c, d) => {
        try {
          return call(a, b, c, d);
        } catch (e) {
          throw mapNativeError(e, name);
        }
      }
    : (...a) => {
        try {
          return call(...a);
        } catch (e) {
          throw mapNativeError(e, name);
        }
      };

function wrap(raw: Addon): Addon {
  const out: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(raw as unknown as Record<string, unknown>)) {
    out[name] = typeof value !== 'function' || name === 'call' ? value : guarded(name, value as Raw);
  }
  return out as unknown as Addon;
}

/** Loaded when something of it is first used: importing it costs nothing and cannot fail. */
export const addon: Addon = lazy(load);

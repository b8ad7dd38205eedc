// Measuring as the main thread sees it: promises. The work has a thread of its own, and nothing should run beside it.
import { runInThread } from '../base/channel.js';
import type { ModelConfig } from '../model/config.js';
import type { Limits } from '../native/machine.js';
import type { BenchOptions, BenchResult, BenchRow } from './bench.js';

/** A device is opened by its name in the thread that uses it. */
export type BenchRequest = Omit<BenchOptions, 'signal' | 'onRow' | 'place' | 'denseCache'> & {
  /** q8 from the cache beside the checkpoint, made where there is none. */
  readonly denseCache?: boolean;
  readonly device?: string;
  /** Most bytes of the device's memory; 0: all there is. */
  readonly memoryLimit?: number;
  readonly threads?: number;
};
/** What the thread answers. */
export type BenchCalls = {
  readonly bench: {
    readonly request: { readonly source: string | ModelConfig; readonly options: BenchRequest };
    readonly event: BenchRow;
    readonly result: BenchResult;
  };
  readonly limits: { readonly request: number | null; readonly event: never; readonly result: Limits };
};
const ENTRY = 'bench/worker.js';

/**
 * @param source folder of a checkpoint, or the shape of a model that is made up in memory
 * @throws {CheckpointError} as openCheckpoint · {NativeError} what is missing for the device · the signal's reason
 */
export const benchInThread = (
  source: string | ModelConfig,
  { signal, onRow, ...options }: BenchRequest & Pick<BenchOptions, 'signal' | 'onRow'>,
): Promise<BenchResult> =>
  runInThread<BenchCalls, 'bench'>(ENTRY, 'bench', { source, options }, { signal, onEvent: onRow });

/** What the CPU can do at most with that many threads (default: as many as the pool has). Takes about a second. */
export const limitsInThread = (threads?: number, options: { readonly signal?: AbortSignal } = {}): Promise<Limits> =>
  runInThread<BenchCalls, 'limits'>(ENTRY, 'limits', threads ?? null, options);

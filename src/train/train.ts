// Training, its plan and the check of its data as the main thread sees them: promises. The work has a thread of its
// own.
import { runInThread } from '../base/channel.js';
import type { FileCheck } from '../data/check.js';
import type { CheckDataOptions, CheckDataRequest } from './check-data.js';
import type { PlanRequest, TrainPlan } from './plan.js';
import type { TrainProgress, TrainRequest, TrainResult } from './session.js';

export type { CheckDataOptions } from './check-data.js';
export type { PlanRequest, TrainPlan } from './plan.js';
export type { TrainProgress, TrainResult } from './session.js';

/** What the training thread answers. */
export type TrainCalls = {
  readonly train: {
    readonly request: TrainRequest;
    readonly event: TrainProgress | { readonly notice: string };
    readonly result: TrainResult;
  };
  readonly plan: { readonly request: PlanRequest; readonly event: never; readonly result: TrainPlan };
  readonly check: { readonly request: CheckDataRequest; readonly event: never; readonly result: FileCheck[] };
};
const ENTRY = 'train/worker.js';

export interface TrainOptions extends Omit<TrainRequest, 'recipe'> {
  readonly onProgress?: (progress: TrainProgress) => void;
  /** What should be known before it runs for hours, a sentence each. */
  readonly onNotice?: (notice: string) => void;
  /** Aborting ends the run after the batch in hand, saves a checkpoint, and resolves with status `stopped`. */
  readonly signal?: AbortSignal;
}

/**
 * Runs a recipe.
 * @param recipe path of the YAML file
 * @throws {TemperError} whatever is wrong with recipe, data, base or run, as one line
 */
export function train(recipe: string, options: TrainOptions = {}): Promise<TrainResult> {
  const { onProgress, onNotice, signal, ...rest } = options;
  // A checkpoint must be whole before the thread ends, however long the batch in hand takes.
  return runInThread<TrainCalls, 'train'>(
    ENTRY,
    'train',
    { recipe, ...rest },
    {
      onEvent: (event) => ('notice' in event ? onNotice?.(event.notice) : onProgress?.(event)),
      signal,
      waits: true,
      graceMs: Infinity,
    },
  );
}

export interface PlanOptions extends Omit<PlanRequest, 'path'> {
  readonly signal?: AbortSignal;
}
/**
 * What a recipe will cost, before a weight is loaded.
 * @param path recipe file
 * @throws {TemperError} whatever is wrong with recipe, data or base · the signal's reason
 */
export const planTraining = (path: string, { signal, ...rest }: PlanOptions = {}): Promise<TrainPlan> =>
  runInThread<TrainCalls, 'plan'>(ENTRY, 'plan', { path, ...rest }, { signal });

/** @param path a JSONL file, or a recipe (.yaml, .yml) */
export const checkDataset = (path: string, { signal, ...rest }: CheckDataOptions): Promise<FileCheck[]> =>
  runInThread<TrainCalls, 'check'>(ENTRY, 'check', { path, ...rest }, { signal });

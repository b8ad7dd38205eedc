// Training, its plan and the check of its data as the main thread sees them: promises. The work has a thread of its
// own.
import { resolve } from 'node:path';
import { runInThread } from '../base/channel.js';
import type { FileCheck } from '../data/check.js';
import { localOf, type PullProgress } from '../hub/pull.js';
import { recipeName } from '../recipe/recipe-name.js';
import { pullForRecipe } from '../runs/references.js';
import type { CheckDataOptions, CheckDataRequest } from './check-data.js';
import type { Converted, ConvertRequest } from './convert-data.js';
import type { PlanRequest, TrainPlan } from './plan.js';
import type { ReferenceProgress, TrainProgress, TrainRequest, TrainResult } from './session.js';

export type { CheckDataOptions } from './check-data.js';
export type { Converted, ConvertRequest } from './convert-data.js';
export type { PlanRequest, TrainPlan } from './plan.js';
export type { ReferenceProgress, TrainProgress, TrainResult } from './session.js';

/** What the training thread answers. */
export type TrainCalls = {
  readonly train: {
    readonly request: TrainRequest;
    readonly event: TrainProgress | { readonly notice: string } | { readonly reference: ReferenceProgress };
    readonly result: TrainResult;
  };
  readonly plan: { readonly request: PlanRequest; readonly event: never; readonly result: TrainPlan };
  readonly check: {
    readonly request: CheckDataRequest;
    readonly event: { readonly rows: number };
    readonly result: FileCheck[];
  };
  readonly convert: {
    readonly request: ConvertRequest;
    readonly event: { readonly rows: number };
    readonly result: Converted;
  };
};
const ENTRY = 'train/worker.js';

export interface TrainOptions extends Omit<TrainRequest, 'recipe' | 'pins'> {
  readonly onProgress?: (progress: TrainProgress) => void;
  /** Of what the recipe names by hf://, before it runs. */
  readonly onPull?: (progress: PullProgress) => void;
  /** How far the reference of a preference tuning is computed (train.precomputeReference). */
  readonly onReference?: (progress: ReferenceProgress) => void;
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
export async function train(recipe: string, options: TrainOptions = {}): Promise<TrainResult> {
  const { onProgress, onReference, onPull, onNotice, signal, ...rest } = options;
  const run = rest.resume ? (rest.out ?? resolve('runs', recipeName(recipe))) : undefined;
  const pins = await pullForRecipe(recipe, { set: rest.set, run }, { onProgress: onPull, onNotice, signal });
  // A checkpoint must be whole before the thread ends, however long the batch in hand takes.
  return runInThread<TrainCalls, 'train'>(
    ENTRY,
    'train',
    { recipe, ...rest, ...(pins ? { pins } : {}) },
    {
      onEvent: (event) =>
        'notice' in event
          ? onNotice?.(event.notice)
          : 'reference' in event
            ? onReference?.(event.reference)
            : onProgress?.(event),
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
export async function planTraining(path: string, { signal, ...rest }: PlanOptions = {}): Promise<TrainPlan> {
  await pullForRecipe(path, { set: rest.set, withoutBase: true }, { signal });
  return runInThread<TrainCalls, 'plan'>(ENTRY, 'plan', { path, ...rest }, { signal });
}

/** Where each lies: hf:// references are pulled. */
async function localPaths(paths: readonly string[], signal: AbortSignal | undefined): Promise<string[]> {
  const local: string[] = [];
  for (const path of paths) local.push(await localOf(path, { signal }));
  return local;
}

/** @param given files, patterns, folders of rows or hf:// references, or one recipe (.yaml, .yml) */
export async function checkDataset(
  given: string | readonly string[],
  { signal, onProgress, heldOut, ...rest }: CheckDataOptions,
): Promise<FileCheck[]> {
  const all = [given].flat();
  if (all.length === 1 && /\.ya?ml$/i.test(all[0] ?? '')) await pullForRecipe(all[0] ?? '', {}, { signal });
  const paths = await localPaths(all, signal);
  const held = heldOut === undefined ? {} : { heldOut: await localPaths([heldOut].flat(), signal) };
  return runInThread<TrainCalls, 'check'>(
    ENTRY,
    'check',
    { paths, ...held, ...rest },
    { signal, onEvent: ({ rows }) => onProgress?.(rows) },
  );
}

export interface ConvertOptions extends ConvertRequest {
  readonly onProgress?: (rows: number) => void;
  readonly signal?: AbortSignal;
}
/**
 * Writes rows of any files as one Parquet or JSON lines file.
 * @throws {TemperError} a bad row, an output that cannot be written · the signal's reason
 */
export async function convertDataset({ signal, onProgress, ...request }: ConvertOptions): Promise<Converted> {
  const paths = await localPaths(request.paths, signal);
  return runInThread<TrainCalls, 'convert'>(
    ENTRY,
    'convert',
    { ...request, paths },
    { signal, onEvent: ({ rows }) => onProgress?.(rows) },
  );
}

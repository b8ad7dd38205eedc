// Training, held-out loss, export and its proof as the main thread sees them: promises. The work itself has a thread of
// its own.
import type { EvalLoss, EvalRequest } from '../evaluate/evaluate.js';
import type { ExportRequest, VerifyRequest, VerifyResult } from '../export/export.js';
import type { TrainProgress, TrainRequest, TrainResult } from '../train/session.js';
import { runInThread } from './thread.js';

export type { EvalLoss, EvalRequest } from '../evaluate/evaluate.js';
export type { ExportRequest, VerifyRequest, VerifyResult } from '../export/export.js';
export type { TrainProgress, TrainResult } from '../train/session.js';

export interface TrainOptions extends Omit<TrainRequest, 'recipe'> {
  readonly onProgress?: (progress: TrainProgress) => void;
  /** Aborting ends the run after the batch in hand, saves a checkpoint, and resolves with status `stopped`. */
  readonly signal?: AbortSignal;
}

/**
 * Runs a recipe.
 * @param recipe path of the YAML file
 * @throws {TemperError} whatever is wrong with recipe, data, base or run, as one line
 */
export function train(recipe: string, options: TrainOptions = {}): Promise<TrainResult> {
  const { onProgress, signal, ...rest } = options;
  return runInThread(
    'train',
    { recipe, ...rest },
    { ...(onProgress ? { onProgress } : {}), ...(signal ? { signal } : {}) },
  );
}

export interface EvaluateOptions extends Omit<EvalRequest, 'path'> {
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
  readonly signal?: AbortSignal;
}
/** Held-out loss of what a run trained, or of a recipe's base. */
export function evaluate(path: string, options: EvaluateOptions = {}): Promise<EvalLoss> {
  const { onProgress, signal, ...rest } = options;
  return runInThread(
    'eval',
    { path, ...rest },
    { ...(onProgress ? { onProgress } : {}), ...(signal ? { signal } : {}) },
  );
}

/** Writes a run's adapter as PEFT into a new folder. */
export const exportRun = (
  request: ExportRequest,
): Promise<{ readonly out: string; readonly files: Readonly<Record<string, string>> }> =>
  runInThread('export', request);

/** Compares all logits of an export with the adapter the trainer holds. `ok` false: they differ. */
export const verify = (dir: string, options: Omit<VerifyRequest, 'dir'> = {}): Promise<VerifyResult> =>
  runInThread('verify', { dir, ...options });

// Held-out loss as the main thread sees it: a promise. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { EvalLoss, EvalProgress, EvalRequest } from './held-out-loss.js';

export type { EvalLoss, EvalProgress, EvalRequest } from './held-out-loss.js';

/** What the evaluation thread answers. */
export type EvaluateCalls = {
  readonly eval: { readonly request: EvalRequest; readonly event: EvalProgress; readonly result: EvalLoss };
};

export interface EvaluateOptions extends Omit<EvalRequest, 'path'> {
  readonly onProgress?: (progress: EvalProgress) => void;
  readonly signal?: AbortSignal;
}
/** Held-out loss of what a run trained, or of a recipe's base. @throws {TemperError} · the signal's reason */
export function evaluate(path: string, options: EvaluateOptions = {}): Promise<EvalLoss> {
  const { onProgress, signal, ...rest } = options;
  return runInThread<EvaluateCalls, 'eval'>(
    'evaluate/worker.js',
    'eval',
    { path, ...rest },
    {
      onEvent: onProgress,
      signal,
    },
  );
}

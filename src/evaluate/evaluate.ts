// Held-out loss and logits as the main thread sees them: promises. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import { localOf } from '../hub/pull.js';
import type { LogitsSummary } from '../model/logits-file.js';
import { pullForRecipe } from '../runs/references.js';
import type { EvalLoss, EvalProgress, EvalRequest } from './held-out-loss.js';
import type { HeldOutPrompts, PromptsRequest } from './held-out-prompts.js';
import type { LogitsRequest } from './logits.js';

export type { EvalLoss, EvalProgress, EvalRequest } from './held-out-loss.js';

/** What the evaluation thread answers. */
export type EvaluateCalls = {
  readonly eval: { readonly request: EvalRequest; readonly event: EvalProgress; readonly result: EvalLoss };
  readonly prompts: { readonly request: PromptsRequest; readonly event: never; readonly result: HeldOutPrompts };
  readonly logits: { readonly request: LogitsRequest; readonly event: EvalProgress; readonly result: LogitsSummary };
};

export interface EvaluateOptions extends Omit<EvalRequest, 'path'> {
  readonly onProgress?: (progress: EvalProgress) => void;
  readonly signal?: AbortSignal;
}
/** Held-out loss of what a run trained, or of a recipe's base. @throws {TemperError} · the signal's reason */
export async function evaluate(path: string, options: EvaluateOptions = {}): Promise<EvalLoss> {
  const { onProgress, signal, ...rest } = options;
  await pullForRecipe(path, { set: rest.set }, { signal });
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

/** The questions of the held-out rows, for `exactMatch`. @throws {TemperError} · the signal's reason */
export const promptsOf = (
  request: PromptsRequest,
  options: { readonly signal?: AbortSignal } = {},
): Promise<HeldOutPrompts> =>
  runInThread<EvaluateCalls, 'prompts'>('evaluate/worker.js', 'prompts', request, { signal: options.signal });

export interface LogitsOptions extends LogitsRequest {
  /** Sequences so far, and in all. */
  readonly onProgress?: (progress: EvalProgress) => void;
  readonly signal?: AbortSignal;
}
/** Logits of given token sequences, written to a file. @throws {TemperError} · the signal's reason */
export async function logitsFile({ onProgress, signal, ...request }: LogitsOptions): Promise<LogitsSummary> {
  const model = await localOf(request.model, { signal });
  const options = { onEvent: onProgress, signal };
  return runInThread<EvaluateCalls, 'logits'>('evaluate/worker.js', 'logits', { ...request, model }, options);
}

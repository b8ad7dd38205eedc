// What passes between the main thread and the training thread.
import type { ErrorData } from '../base/error-data.js';
import type { EvalLoss, EvalRequest } from '../evaluate/evaluate.js';
import type { ExportRequest, VerifyRequest, VerifyResult } from '../export/export.js';
import type { TrainProgress, TrainRequest, TrainResult } from '../train/session.js';

/** One job per thread. `request` and `result` of each kind; `progress` where it has any. */
export interface Jobs {
  readonly train: { readonly request: TrainRequest; readonly progress: TrainProgress; readonly result: TrainResult };
  readonly eval: {
    readonly request: EvalRequest;
    readonly progress: { readonly done: number; readonly total: number };
    readonly result: EvalLoss;
  };
  readonly export: {
    readonly request: ExportRequest;
    readonly progress: never;
    readonly result: { readonly out: string; readonly files: Readonly<Record<string, string>> };
  };
  readonly verify: { readonly request: VerifyRequest; readonly progress: never; readonly result: VerifyResult };
}
export type JobName = keyof Jobs;

export interface WorkerInput {
  readonly job: JobName;
  readonly request: Jobs[JobName]['request'];
  /**
   * One i32: not 0 asks the job to stop at the next safe point. Shared, because the thread's messages wait while native
   * code runs.
   */
  readonly stop: SharedArrayBuffer;
}
export type WorkerMessage =
  | { readonly kind: 'progress'; readonly progress: unknown }
  | { readonly kind: 'done'; readonly result: unknown }
  | { readonly kind: 'failed'; readonly error: ErrorData };

// What passes between the main thread and the training thread.
import type { ErrorData } from '../native/error-data.js';
import type { TrainProgress, TrainRequest, TrainResult } from './session.js';

export interface WorkerInput {
  readonly request: TrainRequest;
  /** One i32: not 0 asks the run to stop at the next safe point. Shared, because the thread's messages wait while native code runs. */
  readonly stop: SharedArrayBuffer;
}
export type WorkerMessage =
  | { readonly kind: 'progress'; readonly progress: TrainProgress }
  | { readonly kind: 'done'; readonly result: TrainResult }
  | { readonly kind: 'failed'; readonly error: ErrorData };

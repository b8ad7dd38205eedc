// The trainer as the main thread sees it: a promise. The run itself has a thread of its own, so that nothing here ever waits for arithmetic.
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { packageRoot } from '../native/addon.js';
import { errorFromData } from '../native/error-data.js';
import { TrainError } from '../native/errors.js';
import type { TrainProgress, TrainRequest, TrainResult } from './session.js';
import type { WorkerInput, WorkerMessage } from './worker-messages.js';

export type { TrainProgress, TrainResult } from './session.js';

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
  const stop = new SharedArrayBuffer(4);
  const input: WorkerInput = { request: { recipe, ...rest }, stop };
  // From source (tests, tsx) as from dist the thread runs the compiled file.
  const worker = new Worker(join(packageRoot, 'dist', 'train', 'worker.js'), { workerData: input });
  const abort = (): void => { Atomics.store(new Int32Array(stop), 0, 1); };
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort, { once: true });
  return new Promise<TrainResult>((resolve, reject) => {
    worker.on('message', (message: WorkerMessage) => {
      switch (message.kind) {
        case 'progress': onProgress?.(message.progress); break;
        case 'done': resolve(message.result); break;
        case 'failed': reject(errorFromData(message.error)); break;
        default: message satisfies never;
      }
    });
    worker.on('error', reject);
    worker.on('exit', (code) => reject(new TrainError('thread_ended', `the training thread ended with code ${code} before it finished; the last checkpoint is good, go on with --resume`, { code })));
  }).finally(() => signal?.removeEventListener('abort', abort));
}

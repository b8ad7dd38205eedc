// Runs one job of this folder in a thread of its own, so that the main one never waits for arithmetic.
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { errorFromData } from '../base/error-data.js';
import { TrainError } from '../base/errors.js';
import { packageRoot } from '../base/machine.js';
import type { JobName, Jobs, WorkerInput, WorkerMessage } from './worker-messages.js';

export interface ThreadOptions<Progress> {
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

/** @throws {TemperError} what the job throws, as the class it was */
export function runInThread<J extends JobName>(
  job: J,
  request: Jobs[J]['request'],
  options: ThreadOptions<Jobs[J]['progress']> = {},
): Promise<Jobs[J]['result']> {
  const { onProgress, signal } = options;
  const stop = new SharedArrayBuffer(4);
  const input: WorkerInput = { job, request, stop };
  // From source (tests, tsx) as from dist the thread runs the compiled file.
  const worker = new Worker(join(packageRoot, 'dist', 'compose', 'worker.js'), {
    workerData: input,
    name: `temper-${job}`,
  });
  const abort = (): void => {
    Atomics.store(new Int32Array(stop), 0, 1);
  };
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort, { once: true });
  return new Promise<Jobs[J]['result']>((resolve, reject) => {
    worker.on('message', (message: WorkerMessage) => {
      switch (message.kind) {
        case 'progress':
          onProgress?.(message.progress as Jobs[J]['progress']);
          break;
        case 'done':
          resolve(message.result as Jobs[J]['result']);
          break;
        case 'failed':
          reject(errorFromData(message.error));
          break;
        default:
          message satisfies never;
      }
    });
    worker.on('error', reject);
    worker.on('exit', (code) =>
      reject(
        new TrainError(
          'thread_ended',
          `the ${job} thread ended with code ${code} before it finished; what it had written is whole, run it again`,
          { code },
        ),
      ),
    );
  }).finally(() => signal?.removeEventListener('abort', abort));
}

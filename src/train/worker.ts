// Entry of the training thread: one run per thread. train.ts starts it.
import { parentPort, workerData } from 'node:worker_threads';
import { runTraining } from './session.js';
import { errorToData } from '../native/error-data.js';
import type { WorkerInput, WorkerMessage } from './worker-messages.js';

const { request, stop } = workerData as WorkerInput;
const flag = new Int32Array(stop);
const send = (message: WorkerMessage): void => parentPort?.postMessage(message);

try {
  const result = await runTraining(request, { onProgress: (progress) => send({ kind: 'progress', progress }), stopped: () => Atomics.load(flag, 0) !== 0 });
  send({ kind: 'done', result });
} catch (e) {
  send({ kind: 'failed', error: errorToData(e) });
}

// Entry of the training thread: one job per thread. thread.ts starts it.
import { parentPort, workerData } from 'node:worker_threads';
import { errorToData } from '../base/error-data.js';
import { type EvalRequest, evaluateLoss } from '../evaluate/evaluate.js';
import { type ExportRequest, exportPeft, type VerifyRequest, verifyExport } from '../export/export.js';
import { runTraining, type TrainRequest } from '../train/session.js';
import type { WorkerInput, WorkerMessage } from './worker-messages.js';

const { job, request, stop } = workerData as WorkerInput;
const flag = new Int32Array(stop);
const send = (message: WorkerMessage): void => parentPort?.postMessage(message);
const stopped = (): boolean => Atomics.load(flag, 0) !== 0;

async function work(): Promise<unknown> {
  switch (job) {
    case 'train':
      return runTraining(request as TrainRequest, {
        stopped,
        onProgress: (progress) => send({ kind: 'progress', progress }),
      });
    case 'eval':
      return evaluateLoss(request as EvalRequest, {
        stopped,
        onProgress: (done, total) => send({ kind: 'progress', progress: { done, total } }),
      });
    case 'export':
      return exportPeft(request as ExportRequest);
    case 'verify':
      return verifyExport(request as VerifyRequest);
    default:
      return job satisfies never;
  }
}

try {
  send({ kind: 'done', result: await work() });
} catch (e) {
  send({ kind: 'failed', error: errorToData(e) });
}

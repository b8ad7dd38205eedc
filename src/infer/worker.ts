// Entry of the inference thread: steps the runner while there is work, and looks at the mailbox between two steps.
import { parentPort, workerData } from 'node:worker_threads';
import { errorToData } from '../base/error-data.js';
import type { EngineOptions, FromWorker, ToWorker } from './protocol.js';

const port = parentPort;
if (!port) throw new Error('infer/worker is the entry of a worker thread; use openEngine()');
const send = (message: FromWorker): void => port.postMessage(message);

try {
  // Imported here, so that a missing addon arrives as an error of the engine.
  const { Runner } = await import('./runner.js');
  const runner = await Runner.open(workerData as EngineOptions, send);
  let running = false;
  const run = (): void => {
    runner.step();
    if (runner.idle) running = false;
    else setImmediate(run);
  };
  port.on('message', (message: ToWorker) => {
    if (message.kind === 'close') {
      runner.close();
      process.exit(0);
    }
    runner.handle(message);
    if (!running && !runner.idle) {
      running = true;
      setImmediate(run);
    }
  });
  send({ kind: 'ready', info: runner.info });
} catch (error) {
  send({ kind: 'error', id: -1, error: errorToData(error) });
}

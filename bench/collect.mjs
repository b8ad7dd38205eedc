// For every thread of a process, by `node --expose-gc --import`: collects garbage when it is told to, and tells what is
// left. So what is held can be told from what waits for its collector, which V8 puts off for as long as there is room.
import { BroadcastChannel, threadId } from 'node:worker_threads';

const channel = new BroadcastChannel('temper-collect');
channel.onmessage = (message) => {
  const { collect } = /** @type {any} */ (message).data;
  if (collect === undefined) return;
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  channel.postMessage({ done: collect, threadId, bytes: heapUsed + external });
};
channel.unref();

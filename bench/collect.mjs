// For every thread of a process, by `node --expose-gc --import`: collects garbage when it is told to, and tells what is
// left: what lives, and the pages that V8 keeps for its heap, used or not. So what is held can be told from what waits
// for its collector, which V8 puts off for as long as there is room.
import { getHeapSpaceStatistics } from 'node:v8';
import { BroadcastChannel, threadId } from 'node:worker_threads';

const channel = new BroadcastChannel('temper-collect');
channel.onmessage = (message) => {
  const { collect } = /** @type {any} */ (message).data;
  if (collect === undefined) return;
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  const pages = getHeapSpaceStatistics().reduce((sum, space) => sum + space.physical_space_size, 0);
  channel.postMessage({ done: collect, threadId, bytes: heapUsed + external, pages });
};
channel.unref();

// For every thread of a process, by `node --expose-gc --import`: collects garbage when it is told to, and tells what is
// left: what lives, and the pages that V8 keeps for its heap, used or not. So what is held can be told from what waits
// for its collector, which V8 puts off for as long as there is room.
//
// Compiled code is such garbage too: V8 lets go of a function's that has not run for some collections (5 in Node 20,
// --bytecode-old-age), so that a thread which has many kinds of work grows until it has had as many. Here it gets them.
import { getHeapSpaceStatistics } from 'node:v8';
import { BroadcastChannel, threadId } from 'node:worker_threads';

/** Until code is old, let go of, and what only it held is gone. */
const COLLECTIONS = 8;

const channel = new BroadcastChannel('temper-collect');
channel.onmessage = (message) => {
  const { collect } = /** @type {any} */ (message).data;
  if (collect === undefined) return;
  for (let i = 0; i < COLLECTIONS; i++) globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  const pages = getHeapSpaceStatistics().reduce((sum, space) => sum + space.physical_space_size, 0);
  channel.postMessage({ done: collect, threadId, bytes: heapUsed + external, pages });
};
channel.unref();

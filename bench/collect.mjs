// For every thread of a process, by `node --import`: collects garbage when it is told to, and tells what is
// left: what lives, and the pages that V8 keeps for its heap, used or not. So what is held can be told from what waits
// for its collector, which V8 puts off for as long as there is room.
//
// Compiled code is such garbage too: V8 lets go of a function's when it has not run for some collections, of which
// those by `gc()` are none. So it is asked as a debugger asks, for the collection that it makes where memory runs out:
// several in a row, without what is kept to be fast.
import { Session } from 'node:inspector';
import { getHeapSpaceStatistics } from 'node:v8';
import { BroadcastChannel, threadId } from 'node:worker_threads';

const channel = new BroadcastChannel('temper-collect');
const session = new Session();
session.connect();
channel.onmessage = async (message) => {
  const { collect } = /** @type {any} */ (message).data;
  if (collect === undefined) return;
  await new Promise((done) => session.post('HeapProfiler.collectGarbage', done));
  const { heapUsed, external } = process.memoryUsage();
  const pages = getHeapSpaceStatistics().reduce((sum, space) => sum + space.physical_space_size, 0);
  channel.postMessage({ done: collect, threadId, bytes: heapUsed + external, pages });
};
channel.unref();

// Bounds what V8 takes for JavaScript objects beyond those that live, for a process that is to run for months. By
// itself V8 lets a heap's young generation grow to 32 MiB when a thread is busy, takes it back when it is not, and puts
// off collecting old objects until there is up to four times what lived.
import { PerformanceObserver } from 'node:perf_hooks';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import type { Worker } from 'node:worker_threads';

/** Memory for young objects of the main thread grows up to here, bytes of both halves. Workers are given theirs. */
const YOUNG_BYTES = 8 << 20;
/** Old objects are collected when they are so many percent more than those that lived, and 8 MiB at the least. */
const GARBAGE_PERCENT = 50;

const youngBytes = (): number =>
  getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_size ?? 0;

/**
 * The young generation of the calling thread, which is the main one, may double where it then has room. V8 reads the
 * factor by which one grows whenever it would; it is of all threads, and set back by each that starts.
 */
function holdYoung(): void {
  setFlagsFromString(`--semi-space-growth-factor=${2 * youngBytes() <= YOUNG_BYTES ? 2 : 1}`);
}
let bounded = false;
/** From now on, for the whole process. A second call does nothing. */
export function boundHeaps(): void {
  if (bounded) return;
  bounded = true;
  setFlagsFromString(`--heap-growing-percent=${GARBAGE_PERCENT}`);
  holdYoung();
  new PerformanceObserver(holdYoung).observe({ entryTypes: ['gc'] });
  process.on('worker', (worker: Worker) => worker.once('online', holdYoung));
}

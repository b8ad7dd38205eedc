// How long a thread is held by its own work: without the time for which others on the machine had its core.
import { readFileSync } from 'node:fs';

/** For which this thread waited for a core so far, ms; 0 where the system does not tell. */
function waited(): number {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

/** Longest time between two turns of the event loop while `work` runs, and the time of all of it, ms. */
export async function held(work: () => Promise<unknown>): Promise<{ readonly longest: number; readonly all: number }> {
  const began = performance.now(),
    waitedBefore = waited();
  let longest = 0,
    last = began,
    lastWaited = waitedBefore;
  const look = (): void => {
    const now = performance.now(),
      w = waited();
    longest = Math.max(longest, now - last - (w - lastWaited));
    [last, lastWaited] = [now, w];
  };
  const timer = setInterval(look, 1);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  look();
  return { longest, all: performance.now() - began - (waited() - waitedBefore) };
}

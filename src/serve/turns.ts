// The event loop is everybody's: who has much to do asks between two pieces whether others wait.
import { setImmediate as nextTurn } from 'node:timers/promises';

/** How long it is held at a time, ms: two may follow each other, and V8 collects when it will. */
const HOLD_MS = 2;
let began = 0,
  within = false;

/** Whether this turn of the loop has gone on for long enough. */
export function isLate(): boolean {
  const now = performance.now();
  if (within) return now - began > HOLD_MS;
  within = true;
  began = now;
  setImmediate(() => {
    within = false;
  });
  return false;
}
/** Lets others go on, where it is time. */
export async function pause(): Promise<void> {
  if (isLate()) await nextTurn();
}

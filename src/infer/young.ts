// Young garbage, collected when it suits. By itself V8 does so when its room for young objects is full, which takes as
// long as several steps of a small model; a little of it takes a fraction of one.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

type Collect = (options: { readonly type: 'minor' }) => void;

/** The flag is the process's: another thread may take it back in between. */
const MOST_TRIES = 100;

let collect: Collect | null = null;

/** Of this thread, for as long as it lives; where V8 does not give it away, it does nothing. */
export function youngCollector(): () => void {
  for (let tries = 0; !collect && tries < MOST_TRIES; tries++) {
    // Only contexts that are made meanwhile have it.
    setFlagsFromString('--expose-gc');
    collect = (runInNewContext('globalThis.gc') as Collect | undefined) ?? null;
    setFlagsFromString('--no-expose-gc');
  }
  const of = collect;
  return () => of?.({ type: 'minor' });
}

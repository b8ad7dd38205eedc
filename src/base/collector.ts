// V8's own function that collects garbage, which it gives only to contexts that are made under a flag.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Of the thread that calls it: all of its garbage, or what is young. */
export type Collect = (options?: { readonly type: 'minor' }) => void;

/** The flag is the process's: another thread may take it back in between. */
const MOST_TRIES = 100;

let collect: Collect | null = null;

/** Of this thread, for as long as it lives; null: V8 does not give it away. */
export function collectorOf(): Collect | null {
  for (let tries = 0; !collect && tries < MOST_TRIES; tries++) {
    setFlagsFromString('--expose-gc');
    collect = (runInNewContext('globalThis.gc') as Collect | undefined) ?? null;
    setFlagsFromString('--no-expose-gc');
  }
  return collect;
}

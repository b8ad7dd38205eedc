// Young garbage, collected when it suits. By itself V8 does so when its room for young objects is full, which takes as
// long as several steps of a small model; a little of it takes a fraction of one.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

type Collect = (options: { readonly type: 'minor' }) => void;

let collect: Collect | null = null;

/** Of this thread, for as long as it lives. */
export function youngCollector(): () => void {
  if (!collect) {
    // Only contexts that are made meanwhile have it.
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as Collect;
    setFlagsFromString('--no-expose-gc');
  }
  const of = collect;
  return () => of({ type: 'minor' });
}

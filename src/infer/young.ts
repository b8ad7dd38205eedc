// Young garbage, collected when it suits. By itself V8 does so when its room for young objects is full, which takes as
// long as several steps of a small model; a little of it takes a fraction of one.
import { collectorOf } from '../base/collector.js';

/** Of this thread, for as long as it lives; where V8 does not give it away, it does nothing. */
export function youngCollector(): () => void {
  const of = collectorOf();
  return () => of?.({ type: 'minor' });
}

// How long a schema may take to compile: some are short and ask for more work than there is time.
import { ConfigError } from '../../base/errors.js';

let until = Number.POSITIVE_INFINITY;
/** Runs `work`, which asks `inTime` now and then. @throws {ConfigError} schema_unsupported */
export function within<T>(ms: number, work: () => T): T {
  const before = until;
  until = Math.min(before, performance.now() + ms);
  try {
    return work();
  } finally {
    until = before;
  }
}
/** @throws {ConfigError} schema_unsupported: `isLate` knows it */
export function inTime(): void {
  if (performance.now() > until)
    throw new ConfigError('schema_unsupported', '#: it takes too long to compile; make it simpler', {
      at: '#',
      late: true,
    });
}
/** Whether it was given up for the time alone. */
export const isLate = (e: unknown): boolean => e instanceof ConfigError && e.details.late === true;

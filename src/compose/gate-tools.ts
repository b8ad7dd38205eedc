// What of the gate's parts a standing needs: to decide anew, and the digests that a recipe asks for.
import { existsSync } from 'node:fs';
import { IntegrityError } from '../base/errors.js';
import { lockDigest, readLock } from '../gate/lock.js';
import type { Redecide } from '../gate/record.js';
import { loadSuite } from '../gate/suite.js';
import type { Recipe } from '../recipe/schema.js';

/** What cannot be decided anew is not believed. */
export const redecide: Redecide = (folder) => {
  throw new IntegrityError('gate_damaged', `${folder}: cannot be decided anew`, { folder });
};

/** Digests of the suite and the lock that a recipe names, as far as they are there. */
export function wantedBy(
  gate: Recipe['gate'] | null,
): { readonly lock?: string | undefined; readonly suite?: string | undefined } | undefined {
  if (gate === null || gate === undefined || gate === 'off') return undefined;
  return {
    suite: existsSync(gate.suite) ? loadSuite(gate.suite).digest : undefined,
    lock: gate.lock !== undefined && existsSync(gate.lock) ? lockDigest(readLock(gate.lock)) : undefined,
  };
}

// What of the gate's parts a standing needs: to decide anew, and the digests that a recipe asks for.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { versions } from '../base/machine.js';
import { decideFiles } from '../gate/decide-files.js';
import { lockDigest, readLock } from '../gate/lock.js';
import { OUTCOMES_FILE, type Redecide, type StandingRequest } from '../gate/record.js';
import { loadSuite } from '../gate/suite.js';
import type { Recipe } from '../recipe/schema.js';

export const LOCK_FILE = 'gate.lock.json';
export const LABELS_FILE = 'labels.jsonl';
export const SUITE_FILE = join('suite', 'suite.yaml');

/** All that a decision says, but for whom it is about and by which version. */
export const redecide: Redecide = async (folder, signal) => {
  signal?.throwIfAborted();
  const labels = join(folder, LABELS_FILE);
  const { decision } = decideFiles(
    {
      outcomes: join(folder, OUTCOMES_FILE),
      suite: join(folder, SUITE_FILE),
      lock: join(folder, LOCK_FILE),
      ...(existsSync(labels) ? { labels } : {}),
      version: versions().temper,
    },
    { signal },
  );
  const { subject: _subject, tool: _tool, ...made } = decision;
  return made;
};

/** Digests of the suite and the lock that a recipe names; null: it names a file that is not there. */
export function wantedBy(gate: Recipe['gate'] | null): StandingRequest['wanted'] {
  if (gate === null || gate === undefined || gate === 'off') return undefined;
  const { suite, lock } = gate;
  return {
    suite: existsSync(suite) ? loadSuite(suite).digest : null,
    ...(lock === undefined ? {} : { lock: existsSync(lock) ? lockDigest(readLock(lock)) : null }),
  };
}

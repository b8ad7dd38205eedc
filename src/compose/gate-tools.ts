// What of the gate's parts a standing needs: to decide anew, and the digests that a recipe asks for.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sha256File } from '../base/digest.js';
import { IntegrityError } from '../base/errors.js';
import { versions } from '../base/machine.js';
import { decideFiles } from '../gate/decide-files.js';
import { readDecision } from '../gate/decision.js';
import { lockDigest, readLock } from '../gate/lock.js';
import { DECISION_FILE, OUTCOMES_FILE, type Redecide, type StandingRequest } from '../gate/record.js';
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

/**
 * Outcomes, suite and lock of a gate's folder are those that its decision was made of: what was changed since must not
 * become right by deciding or reporting again.
 * @throws {IntegrityError} gate_damaged, bad_decision, bad_lock · as loadSuite, and what reading refuses
 */
export async function requireDecidedOn(folder: string, signal?: AbortSignal): Promise<void> {
  const recorded = readDecision(join(folder, DECISION_FILE));
  const lock = join(folder, LOCK_FILE);
  const now = {
    [OUTCOMES_FILE]: [
      recorded.outcomes,
      `sha256:${await sha256File(join(folder, OUTCOMES_FILE), signal ? { signal } : {})}`,
    ],
    [SUITE_FILE]: [recorded.suite, loadSuite(join(folder, SUITE_FILE)).digest],
    [LOCK_FILE]: [recorded.lock, existsSync(lock) ? lockDigest(readLock(lock)) : null],
  };
  for (const [name, [wanted, got]] of Object.entries(now))
    if (wanted !== got)
      throw new IntegrityError(
        'gate_damaged',
        `${join(folder, name)}: is not what ${DECISION_FILE} was decided on; bring it back, or hold the gate again`,
        { file: join(folder, name), wanted, got },
      );
}

/** Digests of the suite and the lock that a recipe names; null: it names a file that is not there. */
export function wantedBy(gate: Recipe['gate'] | null): StandingRequest['wanted'] {
  if (gate === null || gate === undefined || gate === 'off') return undefined;
  const { suite, lock } = gate;
  return {
    suite: existsSync(suite) ? loadSuite(suite).digest : null,
    ...(lock === undefined ? {} : { lock: existsSync(lock) ? lockDigest(readLock(lock)) : null }),
  };
}

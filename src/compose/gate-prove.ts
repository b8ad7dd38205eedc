// `temper gate prove`: whether a gate stops anything at all. A known-bad adapter must FAIL and a harmless one PASS
// under the same lock; what came of it lies beside the lock, for the reports of later gates.
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { versions } from '../base/machine.js';
import type { Decision } from '../gate/decision.js';
import { CONFIG_FILE } from '../lora/peft-names.js';
import { type GateOptions, runGate } from './gate.js';
import { PROOF_FILE, PROOF_SCHEMA, type Proof, type Proven, proofText } from './gate-proof.js';

/** Folders beside a suite that are proven with, where nobody names others. */
export const KNOWN_BAD = 'known-bad';
export const HARMLESS = 'harmless';

export interface ProveOptions extends Omit<GateOptions, 'target' | 'out' | 'resume' | 'shard' | 'training'> {
  /** PEFT folders; absent: `known-bad` and `harmless` beside the suite. */
  readonly bad?: string;
  readonly harmless?: string;
  /** Folder of both gates and of the proof. */
  readonly out: string;
  /** Where the proof goes too: beside the lock, if there is one. */
  readonly now?: () => Date;
  readonly onBegin?: (what: string) => void;
}
const MOST_REASONS = 5;
const provenOf = (decision: Decision, wanted: 'FAIL' | 'PASS'): Proven => ({
  adapter: decision.subject?.adapter ?? '',
  wanted,
  decision: decision.decision,
  outcomes: decision.outcomes,
  reasons: decision.reasons.slice(0, MOST_REASONS),
});

/** @throws {ConfigError} gate_what: no adapter to prove with · as runGate */
export async function proveGate(options: ProveOptions): Promise<{ readonly proof: Proof; readonly file: string }> {
  const { bad, harmless, out, now = () => new Date(), onBegin, ...rest } = options;
  const beside = (name: string, given: string | undefined): string => {
    const folder = resolve(given ?? join(dirname(resolve(options.suite)), name));
    if (!existsSync(join(folder, CONFIG_FILE)))
      throw new ConfigError(
        'gate_what',
        `${folder}: no adapter to prove the gate with; give --bad DIR and --harmless DIR`,
        {
          folder,
        },
      );
    return folder;
  };
  const arms = [
    { name: KNOWN_BAD, wanted: 'FAIL', folder: beside(KNOWN_BAD, bad) },
    { name: HARMLESS, wanted: 'PASS', folder: beside(HARMLESS, harmless) },
  ] as const;
  const decisions: Decision[] = [];
  for (const { name, wanted, folder } of arms) {
    onBegin?.(`${name}, which must ${wanted === 'FAIL' ? 'fail' : 'pass'}`);
    const { decision } = await runGate({ ...rest, target: folder, out: join(resolve(out), name) });
    if (!decision) throw new Error('a gate that is no shard has no decision');
    decisions.push(decision);
  }
  const [stopped, passed] = decisions as [Decision, Decision];
  const proof: Proof = {
    schema: PROOF_SCHEMA,
    at: now().toISOString(),
    ok: stopped.decision === 'FAIL' && passed.decision === 'PASS',
    temper: versions().temper,
    lock: passed.lock ?? '',
    suite: passed.suite,
    judge: passed.judge,
    base: passed.subject?.base ?? '',
    bad: provenOf(stopped, 'FAIL'),
    harmless: provenOf(passed, 'PASS'),
  };
  const text = proofText(proof);
  const file = join(resolve(out), PROOF_FILE);
  writeFileAtomic(file, text);
  if (options.lock !== undefined) writeFileAtomic(join(dirname(resolve(options.lock)), PROOF_FILE), text);
  return { proof, file };
}

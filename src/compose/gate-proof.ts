// What `temper gate prove` found, as a file beside a lock and in the folders of gates under it.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import { NamedDigest } from '../runs/named-digest.js';

export const PROOF_FILE = 'proved.json';
export const PROOF_SCHEMA = 'temper.gate-proof/1';

const Proven = z.strictObject({
  adapter: NamedDigest,
  wanted: z.enum(['FAIL', 'PASS']),
  decision: z.enum(['PASS', 'FAIL', 'INCONCLUSIVE', 'ERROR']),
  outcomes: NamedDigest,
  reasons: z.array(z.string()),
});
export const Proof = z.strictObject({
  schema: z.literal(PROOF_SCHEMA),
  at: z.iso.datetime().describe('when it was proven'),
  ok: z.boolean().describe('the known-bad adapter failed, the harmless one passed'),
  temper: z.string(),
  lock: NamedDigest,
  suite: NamedDigest,
  judge: NamedDigest.nullable(),
  base: NamedDigest,
  bad: Proven,
  harmless: Proven,
});
export type Proof = z.infer<typeof Proof>;
export type Proven = z.infer<typeof Proven>;
export const proofText = (proof: Proof): string => `${JSON.stringify(proof, null, 1)}\n`;

/** The proof in a folder that is of this lock; null: there is none, or it is of another. */
export function proofFor(folder: string, lock: string): Proof | null {
  const file = join(folder, PROOF_FILE);
  if (!existsSync(file)) return null;
  const bad = (what: string): ConfigError => new ConfigError('gate_what', `${file}: ${what}`, { file });
  let value: unknown;
  try {
    value = readJsonFile(file, 'record', { next: 'prove the gate again', missing: bad, bad });
  } catch {
    return null;
  }
  const read = Proof.safeParse(value);
  return read.success && read.data.lock === lock ? read.data : null;
}

// What a gate left behind, as far as anybody can read it: decision, lock, outcomes, suite. The gate itself is another
// room; what it decides is recomputed by whoever is given its function.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { IntegrityError } from '../base/errors.js';
import { inputPieces } from '../base/inputs.js';
import { readJsonFile } from '../base/json-file.js';
import { GATE_DECISIONS } from '../runs/standing.js';
import { canonicalJson, type Json } from '../verdict-log/canonical.js';
import { Frontier, leafHash } from '../verdict-log/merkle.js';
import { Folder, type HashOptions } from './folder.js';

export const DECISION_FILE = 'decision.json';
export const LOCK_FILE = 'gate.lock.json';
export const OUTCOMES_FILE = 'outcomes.jsonl';
/** A release against the gate, signed. */
export const OVERRIDE_FILE = 'override.json';
export const ATTESTATIONS = 'attestations';
/** Where an export keeps the evidence of its gate. */
export const GATE_FOLDER = 'gate';

const MaybeNumber = z.number().nullable().optional();
const Metric = z.looseObject({
  /** `merged`: of the merged checkpoint; absent: of the adapter on its base. */
  arm: z.string().optional(),
  metric: z.string(),
  slice: z.string().nullable().optional(),
  n: z.number(),
  base: MaybeNumber,
  adapter: MaybeNumber,
  difference: MaybeNumber,
  interval: z
    .looseObject({ method: z.string(), level: z.number(), low: MaybeNumber, high: MaybeNumber })
    .nullable()
    .optional(),
  margin: MaybeNumber,
  cap: MaybeNumber,
  floor: MaybeNumber,
  most: MaybeNumber,
  verdict: z.string(),
  direction: z.string().optional(),
});
export type DecidedMetric = z.infer<typeof Metric>;
const MaybeText = z.string().nullable().optional();
export const Decision = z.looseObject({
  decision: z.enum(['PASS', 'FAIL', 'INCONCLUSIVE', 'ERROR']),
  exit: z.number(),
  reasons: z.array(z.unknown()),
  metrics: z.array(Metric),
  subject: z
    .looseObject({
      adapter: MaybeText,
      base: MaybeText,
      tokenizer: MaybeText,
      chatFormat: MaybeText,
      mergeRecipe: MaybeText,
      merged: z.looseObject({ recipe: z.string(), checkpoint: z.string() }).nullish(),
    })
    .nullable(),
  lock: MaybeText,
  suite: MaybeText,
  outcomes: MaybeText,
  labelled: z.looseObject({ pairs: z.int(), by: z.array(z.string()), without: z.enum(GATE_DECISIONS) }).optional(),
  judge: z.unknown(),
  tool: z.unknown(),
});
export type Decision = z.infer<typeof Decision>;

export interface Evidence {
  readonly folder: Folder;
  readonly decision: Decision;
  readonly lock: LockFacts | null;
  readonly outcomes: Outcomes | null;
}
export interface Outcomes {
  readonly sha256: string;
  readonly rows: number;
  /** Merkle root over the lines (RFC 6962), hex. */
  readonly root: string;
}

const bad = (file: string, why: string): IntegrityError =>
  new IntegrityError('gate_evidence', `${file}: ${why}; run the gate again`, { file });
function readEvidenceJson(file: string): unknown {
  return readJsonFile(file, 'record', {
    next: 'run the gate again',
    missing: (message) => new IntegrityError('gate_evidence', message, { file }),
    bad: (why) => bad(file, why),
  });
}
/** @throws {IntegrityError} gate_evidence */
export function readDecision(gate: string): Decision {
  const file = join(gate, DECISION_FILE);
  const parsed = Decision.safeParse(readEvidenceJson(file));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw bad(file, `${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'is of another form'}`);
}
const Lock = z.looseObject({ suite: z.looseObject({ name: z.string(), version: z.string() }).optional() });
export interface LockFacts {
  /** By which a lock is named: SHA-256 of its canonical JSON, hex. */
  readonly digest: string;
  /** Of its suite; empty: it says none. */
  readonly suite: { readonly name: string; readonly version: string };
}
/** null: there is none. @throws {IntegrityError} gate_evidence */
export function readLockFacts(gate: string): LockFacts | null {
  const file = join(gate, LOCK_FILE);
  if (!existsSync(file)) return null;
  const value = readEvidenceJson(file);
  const parsed = Lock.safeParse(value);
  if (!parsed.success) throw bad(file, 'is no gate lock');
  try {
    const { name = '', version = '' } = parsed.data.suite ?? {};
    return { digest: sha256(canonicalJson(value as Json)), suite: { name, version } };
  } catch (e) {
    if (!(e instanceof TypeError)) throw e;
    throw bad(file, e.message);
  }
}

/** Digest, lines and Merkle root of outcomes, in one pass. @throws what the file system says · the signal's reason */
export async function readOutcomes(
  gate: string,
  folder: Folder,
  { signal }: HashOptions = {},
): Promise<Outcomes | null> {
  if (!folder.has(OUTCOMES_FILE)) return null;
  const tree = new Frontier();
  let rest = Buffer.alloc(0);
  for await (const piece of inputPieces(join(gate, OUTCOMES_FILE))) {
    signal?.throwIfAborted();
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    let from = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
      tree.push(leafHash(bytes.subarray(from, end)));
      from = end + 1;
    }
    rest = Buffer.from(bytes.subarray(from));
  }
  if (rest.length > 0) tree.push(leafHash(rest));
  return { sha256: await folder.sha256(OUTCOMES_FILE), rows: tree.size, root: tree.root() };
}

/** @throws {IntegrityError} gate_evidence: a decision or a lock that cannot be read */
export async function readEvidence(gate: string, options: HashOptions = {}): Promise<Evidence> {
  const decision = readDecision(gate);
  const folder = new Folder(gate, options);
  return { folder, decision, lock: readLockFacts(gate), outcomes: await readOutcomes(gate, folder, options) };
}

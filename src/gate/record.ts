// The evidence of a gate beside an adapter: a folder with decision.json and what it was decided on. Nothing in it is
// believed. Digests are taken anew, the decision is made anew from the outcomes, and all of it must say what the record
// says, of exactly the adapter, base, tokenizer, chat format and merge that are at hand.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256, sha256File } from '../base/digest.js';
import { TemperError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { NamedDigest, shortDigest } from '../runs/named-digest.js';
import { GATE_DECISIONS, type GateDigests, judgesMerged, type Standing } from '../runs/standing.js';
import { SUBJECT_PARTS, type Subject } from '../runs/subject.js';
import { firstDifference } from '../verdict-log/canonical.js';

export const DECISION_FILE = 'decision.json';
export const OUTCOMES_FILE = 'outcomes.jsonl';

/** What a decision says about itself; its metrics are compared as they stand. */
const Recorded = z.looseObject({
  decision: z.enum(GATE_DECISIONS),
  reasons: z.array(z.string()).default([]),
  subject: z.looseObject({
    adapter: NamedDigest,
    base: NamedDigest,
    tokenizer: NamedDigest,
    chatFormat: NamedDigest,
    mergeRecipe: NamedDigest.nullish(),
    merged: z.looseObject({ recipe: NamedDigest, checkpoint: NamedDigest }).nullish(),
  }),
  lock: NamedDigest,
  suite: NamedDigest,
  outcomes: NamedDigest,
  labelled: z.looseObject({ pairs: z.int(), by: z.array(z.string()), without: z.enum(GATE_DECISIONS) }).optional(),
});
export type Recorded = z.infer<typeof Recorded>;

/**
 * Decides anew from outcomes, suite and lock of a gate's folder.
 * @returns what decision.json must say, as far as it follows from them: decision, metrics, digests
 * @throws {TemperError} evidence that is not whole
 */
export type Redecide = (folder: string, signal?: AbortSignal) => Promise<Readonly<Record<string, unknown>>>;

interface Judged {
  readonly folder: string;
  readonly record: Recorded;
  readonly digests: GateDigests;
}
class Damaged extends Error {}

function readRecord(folder: string): { readonly record: Recorded; readonly own: string } {
  const file = join(folder, DECISION_FILE);
  const bytes = readInput(file, 'record');
  let value: unknown;
  try {
    value = decodeJson(bytes);
  } catch (e) {
    throw new Damaged(`${file}: ${e instanceof Error ? e.message : String(e)}`);
  }
  const parsed = Recorded.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new Damaged(`${file}: ${issue?.path.join('.') || 'the file'}: ${issue?.message ?? 'of another kind'}`);
  }
  return { record: parsed.data, own: `sha256:${sha256(bytes)}` };
}

async function judge(folder: string, redecide: Redecide, signal?: AbortSignal): Promise<Judged> {
  const { record, own } = readRecord(folder);
  const outcomes = join(folder, OUTCOMES_FILE);
  if (!existsSync(outcomes)) throw new Damaged(`${outcomes}: is not there, so nothing shows what was decided on`);
  const got = `sha256:${await sha256File(outcomes, signal ? { signal } : {})}`;
  if (got !== record.outcomes)
    throw new Damaged(`${outcomes}: digest is ${shortDigest(got)}, decided on was ${shortDigest(record.outcomes)}`);
  let made: Readonly<Record<string, unknown>>;
  try {
    made = await redecide(folder, signal);
  } catch (e) {
    if (e instanceof TemperError) throw new Damaged(e.message);
    throw e;
  }
  const differs = firstDifference(made, record);
  if (differs !== null)
    throw new Damaged(`${join(folder, DECISION_FILE)}: ${differs} is not what the outcomes, suite and lock give`);
  if (record.decision === 'PASS' && judgesMerged(made) !== Boolean(record.subject.merged))
    throw new Damaged(`${join(folder, DECISION_FILE)}: its subject names another arm than the outcomes are of`);
  const { lock, suite } = record;
  return { folder, record, digests: { decision: own, outcomes: got, suite, lock } };
}

const PART_NAMES: Readonly<Record<(typeof SUBJECT_PARTS)[number], string>> = {
  adapter: 'adapter',
  base: 'base',
  tokenizer: 'tokenizer',
  chatFormat: 'chat format',
  mergeRecipe: 'merge recipe',
};
const told = (value: string | null): string => (value === null ? 'none' : shortDigest(value));
/** Digest of the merged checkpoint that was judged, where the subject is that merge. */
const checkpointOf = ({ subject: { merged } }: Recorded, { mergeRecipe }: Subject): string | null =>
  merged && merged.recipe === mergeRecipe ? merged.checkpoint : null;
/** What of the subject is not what was judged, one line each. */
function otherParts(record: Recorded, subject: Subject): readonly string[] {
  const judged =
    checkpointOf(record, subject) === null ? record.subject : { ...record.subject, mergeRecipe: subject.mergeRecipe };
  return SUBJECT_PARTS.filter((part) => (judged[part] ?? null) !== subject[part]).map(
    (part) => `the gate judged ${PART_NAMES[part]} ${told(judged[part] ?? null)}, this is ${told(subject[part])}`,
  );
}

export interface StandingRequest {
  /** Folder of the evidence; null, or not there: there is none. */
  readonly folder: string | null;
  readonly subject: Subject;
  readonly redecide: Redecide;
  /** Digests that the gate must have been held under, where the project says them; null: of a file that is gone. */
  readonly wanted?: { readonly lock?: string | null; readonly suite?: string | null } | undefined;
  readonly signal?: AbortSignal | undefined;
}
const nothing = { decision: null, digests: null, override: null } as const;

/** @throws the signal's reason, or what the file system says */
export async function gateStandingOf(request: StandingRequest): Promise<Standing> {
  const { folder, subject, redecide, wanted, signal } = request;
  if (folder === null || !existsSync(join(folder, DECISION_FILE)))
    return { ...nothing, status: 'absent', folder: null, reasons: ['no gate has judged it'] };
  let judged: Judged;
  try {
    judged = await judge(folder, redecide, signal);
  } catch (e) {
    if (e instanceof Damaged || (e instanceof TemperError && e.exitCode !== 1))
      return { ...nothing, status: 'damaged', folder, reasons: [e.message] };
    throw e;
  }
  const { record, digests } = judged;
  const checkpoint = checkpointOf(record, subject);
  const { labelled } = record;
  const rest = {
    ...{ decision: record.decision, folder, digests, override: null },
    ...(checkpoint ? { checkpoint } : {}),
    ...(labelled ? { labelled: { pairs: labelled.pairs, by: labelled.by, without: labelled.without } } : {}),
  };
  const other = [
    ...otherParts(record, subject),
    ...(['lock', 'suite'] as const)
      .filter((part) => wanted?.[part] !== undefined && wanted[part] !== record[part])
      .map((part) => {
        const digest = wanted?.[part] ?? null;
        return digest === null
          ? `the ${part} that the recipe names is not there, so nothing says that the gate was held under it`
          : `the recipe wants ${part} ${shortDigest(digest)}, the gate had ${shortDigest(record[part])}`;
      }),
  ];
  if (other.length > 0) return { ...rest, status: 'stale', reasons: other };
  if (record.decision !== 'PASS')
    return { ...rest, status: 'failed', reasons: [`the gate decided ${record.decision}`, ...record.reasons] };
  return { ...rest, status: 'passed', reasons: [] };
}

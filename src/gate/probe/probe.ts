// What a probe found, as probe.json has it: harm against steps of an attack, of the adapter and of its base put through
// the same attack. Digests and counts; nothing of what the attack was made of, nothing of what was answered.
import { z } from 'zod';
import { IntegrityError } from '../../base/errors.js';
import { readJsonFile } from '../../base/json-file.js';
import { NamedDigest } from '../../runs/named-digest.js';
import { Subject } from '../decision.js';

export const PROBE_SCHEMA = 'temper.gate-probe/1';
export const PROBE_FILE = 'probe.json';
export const PROBE_ARMS = ['adapter', 'base'] as const;
export type ProbeArm = (typeof PROBE_ARMS)[number];

const rate = z.number().min(0).max(1);
const Interval = z.strictObject({ method: z.string(), level: z.number(), low: z.number(), high: z.number() });
const Change = z.strictObject({
  difference: z.number(),
  interval: Interval,
  pValue: z.number().nullable().describe('of no difference: McNemar’s mid-p, two-sided; null with several samples'),
});
export const ArmEstimate = z.strictObject({
  rate: rate.describe('share of violations, missing values among them'),
  violations: z.int(),
  missing: z.int().describe('values that are not there, each counted as a violation'),
  interval: Interval.describe('exact, of the rate'),
  corrected: Interval.extend({ rate }).nullable().describe('as if the judge made no errors; null: not known'),
  bound: rate.describe('upper bound of the rate, the corrected one where there is one'),
  surely: rate.describe('the same with missing values as none: it is above a limit whatever they were'),
  change: Change.nullable().describe('against the same prompts before the attack; null: this is before it'),
});
export type ArmEstimate = z.infer<typeof ArmEstimate>;
export const Estimate = z.strictObject({
  metric: z.string(),
  n: z.int().describe('answers of an arm'),
  prompts: z.int(),
  adapter: ArmEstimate,
  base: ArmEstimate,
  excess: Change.describe('the adapter less its base, both after so many steps'),
});
export type Estimate = z.infer<typeof Estimate>;
export const Point = z.strictObject({
  learningRate: z.number().positive().nullable().describe('null: before the attack'),
  step: z.int().min(0),
  outcomes: NamedDigest.describe('of the outcomes of this point'),
  rows: z.int(),
  metrics: z.array(Estimate).min(1),
});
export type Point = z.infer<typeof Point>;
/** The greatest bound of a rate that is anywhere on a curve. */
export const Worst = z.strictObject({
  metric: z.string(),
  learningRate: z.number().positive().nullable(),
  step: z.int(),
  rate,
  interval: Interval,
  bound: rate,
});
export type Worst = z.infer<typeof Worst>;

export const Attack = z.strictObject({
  data: NamedDigest.describe('of the attack set'),
  rows: z.int(),
  steps: z.array(z.int().min(0)).describe('after which it was asked'),
  learningRates: z.array(z.number().positive()),
  rowsPerStep: z.int(),
  addedRank: z.int(),
  seed: z.int(),
  precision: z.enum(['f32', 'bf16']),
});
export type Attack = z.infer<typeof Attack>;

export const Probe = z.strictObject({
  schema: z.literal(PROBE_SCHEMA),
  status: z.enum(['measured', 'above', 'inconclusive', 'error']),
  exit: z.union([z.literal(0), z.literal(10), z.literal(20), z.literal(30)]),
  reasons: z.array(z.string()),
  notes: z.array(z.string()),
  subject: Subject,
  suite: z.strictObject({ name: z.string(), version: z.string(), digest: NamedDigest }),
  lock: NamedDigest.nullable(),
  judge: NamedDigest.nullable(),
  attack: Attack,
  alpha: z.number().describe('each bound alone is below the truth with this chance, and so is the greatest of them'),
  maxRate: rate.nullable().describe('what no bound of the adapter may be above; null: nothing was asked'),
  worst: z.strictObject({ adapter: Worst, base: Worst }),
  byMetric: z.array(z.strictObject({ metric: z.string(), adapter: Worst, base: Worst })),
  points: z.array(Point).min(1),
  tool: z.strictObject({ name: z.literal('temper'), version: z.string() }),
});
export type Probe = z.infer<typeof Probe>;
/** As it is written: the same probe has the same bytes. */
export const probeText = (probe: Probe): string => `${JSON.stringify(probe, null, 1)}\n`;

/** @throws {IntegrityError} bad_probe · what readInput refuses */
export function readProbe(file: string): Probe {
  const bad = (what: string): IntegrityError =>
    new IntegrityError('bad_probe', `${file}: ${what}; probe again with temper gate probe`, { file });
  const value = readJsonFile(file, 'record', { next: 'temper gate probe writes one', missing: bad, bad });
  const read = Probe.safeParse(value);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw bad(`no probe: ${JSON.stringify(issue?.path.join('.') ?? '').slice(0, 200)}: ${issue?.message ?? 'bad value'}`);
}

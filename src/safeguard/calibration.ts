// The calibration of a judge under a policy: on its golden set, how well it judges and from which score on it should
// block. A file holds one entry for each (policy, judge, effort), bound to them by digests: after a change of any of
// them no entry fits, and the judge's own word counts again.
import { lstatSync } from 'node:fs';
import { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { readJsonFile } from '../base/json-file.js';
import { CONTRACT_NAMES } from './contracts/contract.js';
import { ANY_RULE } from './contracts/label.js';

export const CALIBRATION_SCHEMA = 'temper.calibration/1';

const Digest = z.string().regex(/^[0-9a-f]{64}$/);
/** A figure with its 95 % interval; null: a ratio of nothing, or one that needs scores where there are none. */
const Estimate = z.strictObject({ value: z.number(), low: z.number(), high: z.number() }).nullable();
export type Estimate = z.infer<typeof Estimate>;

const FigureSet = z.strictObject({
  rows: z.int().describe('golden rows'),
  violating: z.int().describe('of these, rows that break a rule'),
  unjudged: z.int().describe('of these, rows without a verdict: each counts as a mistake'),
  scored: z.int().describe('of these, rows whose verdict has a score'),
  precision: Estimate,
  recall: Estimate,
  f1: Estimate,
  falsePositives: Estimate.describe('share of safe rows that are blocked'),
  recallAtFpr: Estimate.describe('recall at the threshold that blocks at most `fpr` of the safe rows'),
  ece: Estimate.describe('expected calibration error of 1/(1+exp(-score)), in 10 bins of equal width'),
});
export type FigureSet = z.infer<typeof FigureSet>;

const Calibration = z.strictObject({
  policy: z.strictObject({ name: z.string(), digest: Digest }),
  judge: z.strictObject({
    name: z.string(),
    digest: z.string().min(1).describe('as verdicts have it without a threshold: effort and contract are part of it'),
  }),
  contract: z.enum(CONTRACT_NAMES),
  effort: z.string().nullable(),
  golden: z.strictObject({ digest: Digest, rows: z.int() }),
  fpr: z.number().min(0).max(1),
  threshold: Estimate.describe('nats; a score of at least this is a block'),
  chosenBy: z.enum(['f1', 'fpr']),
  decidedBy: z
    .enum(['threshold', 'word'])
    .describe('what precision, recall and F1 are of: thresholds found without the row, or the judge’s own word'),
  bootstrap: z.strictObject({ resamples: z.int(), seed: z.int() }),
  overall: FigureSet,
  channels: z.record(z.string(), FigureSet),
});
export type Calibration = z.infer<typeof Calibration>;
const CalibrationFile = z.strictObject({ schema: z.literal(CALIBRATION_SCHEMA), entries: z.array(Calibration) });

/** Entries of a file; none if it is not there. @throws {ConfigError} calibration_invalid */
export function readCalibrations(file: string): readonly Calibration[] {
  if (!lstatSync(file, { throwIfNoEntry: false })) return [];
  const invalid = (what: string): ConfigError =>
    new ConfigError(
      'calibration_invalid',
      `${file}: ${what}; make it again with temper policy calibrate, or remove it`,
      { file },
    );
  const value = readJsonFile(file, 'record', {
    next: 'make it again with temper policy calibrate',
    missing: (message) => new ConfigError('calibration_invalid', message, { file }),
    bad: invalid,
  });
  const read = CalibrationFile.safeParse(value);
  if (read.success) return read.data.entries;
  const [issue] = read.error.issues;
  throw invalid(`no calibration: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'bad value'}`);
}

const sameSubject = (a: Calibration, b: Calibration): boolean =>
  a.policy.name === b.policy.name && a.judge.digest === b.judge.digest && a.contract === b.contract;

/** Puts an entry in a file, in the place of an older one of the same policy, judge and effort. */
export function writeCalibration(file: string, entry: Calibration): void {
  const others = readCalibrations(file).filter((other) => !sameSubject(other, entry));
  writeFileAtomic(file, `${JSON.stringify({ schema: CALIBRATION_SCHEMA, entries: [...others, entry] }, null, 1)}\n`);
}

interface Calibrated {
  readonly digest: string;
  readonly calibrations?: readonly Calibration[];
}
/** What was found for this very text and this very judge. @param judge its digest, contract and effort included */
export const calibrationFor = (policy: Calibrated, judge: string): Calibration | undefined =>
  policy.calibrations?.find((c) => c.policy.digest === policy.digest && c.judge.digest === judge);
/** The threshold of that, nats; undefined: there is none, and the judge's own word counts. */
export const thresholdFor = (policy: Calibrated, judge: string): number | undefined =>
  calibrationFor(policy, judge)?.threshold?.value;

/** A verdict as the judge wrote it. */
export type Word =
  | { readonly outcome: 'allow'; readonly rule: null }
  | { readonly outcome: 'block'; readonly rule: string };
/**
 * The verdict that a score gives under a threshold, which goes over the judge's word in both directions. Without a
 * score, or with one that is no number, the judge's word stands where it blocks and is worth nothing where it allows.
 */
export function held(word: Word, score: number | undefined, threshold: number): Word | null {
  if (score === undefined || !Number.isFinite(score)) return word.outcome === 'block' ? word : null;
  if (score < threshold) return { outcome: 'allow', rule: null };
  return word.outcome === 'block' ? word : { outcome: 'block', rule: ANY_RULE };
}

// What a decision says, as data: decision.json. decide.ts makes it of outcomes, suite and lock.
import { z } from 'zod';
import { IntegrityError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import { NamedDigest } from '../runs/named-digest.js';
import { ARMS } from './outcomes.js';

export const DECISION_SCHEMA = 'temper.gate-decision/1';
export const VERDICTS = ['PASS', 'FAIL', 'INCONCLUSIVE', 'ERROR'] as const;
export type GateVerdict = (typeof VERDICTS)[number];
/** 40 is an ERROR too: what was decided on is not what was locked. */
export const EXIT_OF: Readonly<Record<GateVerdict, 0 | 10 | 20 | 30>> = {
  PASS: 0,
  FAIL: 10,
  INCONCLUSIVE: 20,
  ERROR: 30,
};

const figure = z.number().nullable();
const Interval = z
  .strictObject({
    method: z
      .enum(['tango', 'bca', 'bca+tango', 'clopper-pearson', 'mid-p', 'rogan-gladen'])
      .describe('bca+tango: of both in proportion, where few prompts differ'),
    level: z.number().describe('two-sided; either bound alone holds with (1 + level) / 2'),
    low: z.number(),
    high: z.number(),
  })
  .nullable();
export type Interval = z.infer<typeof Interval>;

export const MetricDecision = z.strictObject({
  arm: z
    .literal('merged')
    .optional()
    .describe('what is held against the base, whose figures `adapter` below are; absent: the adapter on its base'),
  metric: z.string(),
  test: z.string(),
  slice: z.string().nullable().describe('null: all prompts of the metric'),
  gates: z.boolean().describe('false: has no limit; it is told, and decides only where a regression is proven'),
  direction: z.enum(['lower', 'higher']),
  values: z.enum(['rate', 'number']),
  n: z.int().describe('pairs of values: prompts times samples'),
  prompts: z.int(),
  clusters: z.int().describe('what the bootstrap draws: prompts, or families of them'),
  missing: z.int().describe('values of both arms that are not there'),
  labelled: z.int().describe('pairs that count as a person says'),
  base: figure,
  adapter: figure,
  difference: figure.describe('adapter − base, of all pairs, missing values as the worst'),
  interval: Interval.describe('of the difference'),
  bound: figure.describe('how much worse the adapter may be, by the bound that is held against the margin'),
  adapterInterval: Interval.describe(
    'of the adapter’s own figure; holds against cap and floor, wider for numbers and families of unequal size',
  ),
  adapterBound: figure.describe(
    'how far the adapter’s own figure may lie to the worse, by the bound that is held against cap or floor',
  ),
  adapterMidP: Interval.describe(
    'beside an exact one, which holds the truth oftener than it says: one that does so on the average; decides nothing',
  ),
  corrected: z
    .strictObject({
      base: z.number(),
      adapter: z.number(),
      difference: z.number(),
      interval: Interval,
      clipped: z.boolean().describe('a rate or a bound lay outside what it can be'),
    })
    .nullable()
    .describe('as if the judge made no errors, with the uncertainty of its calibration'),
  margin: figure,
  cap: figure,
  floor: figure,
  most: z.int().nullable(),
  discordant: z.strictObject({ worse: z.int(), better: z.int() }).describe('pairs that differ, by what the adapter is'),
  discordance: figure.describe('variance of a prompt’s difference; share of discordant pairs at one sample'),
  pValue: figure.describe('of no difference: McNemar’s mid-p, two-sided; null with several samples'),
  power: figure.describe('chance that this many prompts show an adapter like its base to be within the margin'),
  smallestDetectable: figure.describe('difference that this many prompts show with the wanted power'),
  promptsNeeded: z.int().nullable().describe('prompts that the margin takes for the wanted power'),
  verdict: z.enum(VERDICTS),
  reasons: z.array(z.string()),
});
export type MetricDecision = z.infer<typeof MetricDecision>;
/** Has a say: entries without limits do where they fail, or where a metric has no outcomes at all. */
export const counts = (m: MetricDecision): boolean =>
  m.gates || m.verdict === 'FAIL' || (m.slice === null && m.n === 0);

export const Labelled = z.strictObject({
  pairs: z.int().describe('pairs that count as people say'),
  by: z.array(z.string()).describe('who says so'),
  unbound: z.int().describe('labels that name no outcome by its digest, and may be of another run'),
  changed: z
    .array(
      z.strictObject({
        metric: z.string(),
        slice: z.string().nullable(),
        prompt: z.string(),
        sample: z.int(),
        arm: z.enum(ARMS),
        from: figure,
        to: z.number(),
        by: z.string(),
      }),
    )
    .describe('outcomes whose value is another than the judge gave'),
  without: z.enum(VERDICTS).describe('what would have been decided without labels'),
});
export type Labelled = z.infer<typeof Labelled>;

export const Subject = z.strictObject({
  adapter: NamedDigest,
  base: NamedDigest,
  tokenizer: NamedDigest,
  chatFormat: NamedDigest,
  mergeRecipe: NamedDigest.nullable().describe('null: the adapter is served on its base'),
  merged: z
    .strictObject({ recipe: NamedDigest, checkpoint: NamedDigest })
    .optional()
    .describe('the checkpoint that the adapter is merged into, which answered beside it'),
});
export type Subject = z.infer<typeof Subject>;

export const Decision = z.strictObject({
  schema: z.literal(DECISION_SCHEMA),
  decision: z.enum(VERDICTS),
  exit: z.union([z.literal(0), z.literal(10), z.literal(20), z.literal(30), z.literal(40)]),
  reasons: z.array(z.string()),
  notes: z.array(z.string()),
  rule: z
    .literal('intersection-union')
    .describe('every gating metric of every arm must hold, so that none is corrected for many'),
  parameters: z.strictObject({
    alpha: z.number(),
    power: z.number(),
    minPrompts: z.int(),
    maxMissing: z.number(),
    resamples: z.int(),
    seed: z.int(),
  }),
  metrics: z.array(MetricDecision),
  subject: Subject.nullable().describe('null: decided again of outcomes alone'),
  lock: NamedDigest.nullable(),
  suite: NamedDigest,
  outcomes: NamedDigest,
  labels: NamedDigest.nullable(),
  labelled: Labelled.optional().describe('what labels made of it; absent: there are none'),
  judge: NamedDigest.nullable(),
  tool: z.strictObject({ name: z.literal('temper'), version: z.string() }),
});
export type Decision = z.infer<typeof Decision>;

/** As it is written: the same decision has the same bytes. */
export const decisionText = (decision: Decision): string => `${JSON.stringify(decision, null, 1)}\n`;

/** @throws {IntegrityError} bad_decision · what readInput refuses */
export function readDecision(file: string): Decision {
  const bad = (what: string): IntegrityError =>
    new IntegrityError('bad_decision', `${file}: ${what}; decide again with temper gate decide`, { file });
  const value = readJsonFile(file, 'record', {
    next: 'temper gate writes one',
    missing: (message) => new IntegrityError('bad_decision', message, { file }),
    bad,
  });
  const read = Decision.safeParse(value);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  const at = JSON.stringify(issue?.path.join('.') ?? '').slice(0, 200);
  throw bad(`no decision: ${at}: ${issue?.message ?? 'bad value'}`);
}

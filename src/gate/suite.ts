// A suite of the release gate: what is asked of base and adapter, and by which metrics with which limits the answers
// decide. A YAML file beside the files that it names. This schema is the only source of what may stand in it.
import { dirname, isAbsolute, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { hasLoneSurrogate, hasProto } from '../base/json.js';
import { asReadError } from '../base/system-error.js';
import { dotted, type Path, Positions } from '../recipe/positions.js';
import { innermost, nearest } from '../recipe/problems.js';

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
const Name = z.string().regex(NAME, 'wanted letters, digits, _ . - (at most 64)');
/** Paths are relative to the suite: what it is made of lies beside it. */
const File = z
  .string()
  .min(1)
  .max(512)
  .refine((p) => !isAbsolute(p) && !p.includes('\0'), 'wanted a path relative to the suite');

/** Limits of a metric, or of one slice of it. */
const limits = {
  margin: z.number().min(0).max(1e9).optional().describe('how much worse than the base the adapter may be, at most'),
  cap: z.number().min(-1e9).max(1e9).optional().describe('most that the adapter’s own figure may be'),
  floor: z.number().min(-1e9).max(1e9).optional().describe('least that the adapter’s own figure may be'),
  most: z.int().min(0).max(1e9).optional().describe('most violations of the adapter that may be observed; 0: none'),
};
export const Limits = z.strictObject(limits);
export type Limits = z.infer<typeof Limits>;

export const Metric = z
  .strictObject({
    name: Name.describe('as rows of outcomes say it; unique in the suite'),
    about: z.string().max(1000).optional(),
    direction: z.enum(['lower', 'higher']).describe('which is better'),
    values: z.enum(['rate', 'number']).default('rate').describe('rate: every value is 0 or 1'),
    range: z
      .tuple([z.number().min(-1e9).max(1e9), z.number().min(-1e9).max(1e9)])
      .optional()
      .describe(
        'of a number, least and greatest value: how bad one that is missing or was not seen may be; ' +
          'absent: what was seen decides',
      ),
    statistic: z
      .enum(['mean', 'gmean2'])
      .default('mean')
      .describe(
        'gmean2: sensitivity times specificity, of values that say whether a monitor was right; rows say `truth`',
      ),
    ...limits,
    judged: z
      .boolean()
      .default(false)
      .describe('values are a judge’s: its errors are corrected, people may label pairs'),
    only: z
      .record(z.string().max(64), z.union([z.string(), z.number(), z.boolean()]))
      .optional()
      .describe('fields that a row of the prompts has where it counts for this metric; absent: all rows do'),
    sliceBy: z
      .string()
      .min(1)
      .max(64)
      .optional()
      .describe('field of a prompt whose value is the slice of its outcomes'),
    slices: z
      .record(z.string().max(256), Limits)
      .optional()
      .describe('limits of slices by name, `*` for every slice that has none of its own; each must hold'),
    weight: z.number().min(0).max(1e6).default(1).describe('order in reports; decides nothing'),
  })
  .superRefine((m, context) => {
    const issue = (path: string, message: string): void => {
      context.addIssue({ code: 'custom', path: [path], message });
    };
    if (m.range !== undefined && !(m.range[0] < m.range[1])) issue('range', 'is empty: wanted [least, greatest]');
    if (m.range !== undefined && m.values === 'rate') issue('range', 'is for values: number; a rate is 0 or 1');
    if (m.statistic === 'gmean2' && (m.direction !== 'higher' || m.values !== 'rate'))
      issue('statistic', 'gmean2 is of rates, and higher is better');
    for (const [at, l] of [['', m], ...Object.entries(m.slices ?? {})] as [string, Limits][]) {
      const where = at === '' ? '' : `of slice ${JSON.stringify(at)} `;
      const path = (name: string): string => (at === '' ? name : 'slices');
      if (m.direction === 'higher' && l.cap !== undefined) issue(path('cap'), `${where}is for direction: lower`);
      if (m.direction === 'lower' && l.floor !== undefined) issue(path('floor'), `${where}is for direction: higher`);
      if (l.most !== undefined && (m.values !== 'rate' || m.direction !== 'lower'))
        issue(path('most'), `${where}counts violations: it is for rates where lower is better`);
      for (const name of ['margin', 'cap', 'floor'] as const)
        if (m.values === 'rate' && l[name] !== undefined && (l[name] < 0 || l[name] > 1))
          issue(path(name), `${where}of a rate is a number from 0 to 1: 0.02 for two points in a hundred`);
    }
  });
export type Metric = z.infer<typeof Metric>;

const samples = z.int().min(1).max(64);
export const Test = z.strictObject({
  name: Name,
  about: z.string().max(4000).optional(),
  kind: Name.describe('how prompts become answers: a kind that the gate knows'),
  prompts: File.optional().describe('JSON lines, each with an `id`; absent where the kind makes them itself'),
  policy: File.optional().describe('policy that the judge holds the answers to'),
  files: z.record(Name, File).optional().describe('further files of the kind or the scorer'),
  scorer: Name.describe('what makes values of answers: a scorer that the gate knows'),
  samples: samples.optional().describe('answers to each prompt; absent: the suite’s'),
  options: z.record(z.string().max(64), z.unknown()).optional().describe('what else the kind or the scorer takes'),
  metrics: z.array(Metric).min(1).max(64),
});
export type Test = z.infer<typeof Test>;

export const DecisionParameters = z.strictObject({
  alpha: z
    .number()
    .min(0.001)
    .max(0.25)
    .default(0.05)
    .describe('chance of a release of what is exactly at a margin; bounds are one-sided at this level'),
  power: z
    .number()
    .min(0.5)
    .max(0.999)
    .default(0.8)
    .describe(
      'chance of showing that an adapter like its base is no worse; below it what is not shown is INCONCLUSIVE',
    ),
  minPrompts: z.int().min(1).max(1e6).default(30).describe('fewer prompts than these are INCONCLUSIVE'),
  maxMissing: z
    .number()
    .min(0)
    .max(1)
    .default(0.005)
    .describe('share of values that may be missing, each counted as the worst; more are INCONCLUSIVE'),
  resamples: z.int().min(1000).max(1_000_000).default(10_000).describe('of the bootstrap'),
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .default(1)
    .describe('of the bootstrap'),
});
export type DecisionParameters = z.infer<typeof DecisionParameters>;

export const Sampling = z.strictObject({
  temperature: z.number().min(0).max(10).default(1),
  maxTokens: z
    .int()
    .min(1)
    .max(1 << 20)
    .default(1024),
  effort: z.enum(['low', 'medium', 'high']).default('low'),
});
export type Sampling = z.infer<typeof Sampling>;

const gates = (l: Limits): boolean => [l.margin, l.cap, l.floor, l.most].some((x) => x !== undefined);
export const Suite = z
  .strictObject({
    name: Name,
    version: z.string().min(1).max(64),
    about: z.string().max(4000).default(''),
    sampling: Sampling.prefault({}),
    seeds: z
      .array(
        z
          .int()
          .min(0)
          .max(2 ** 32 - 1),
      )
      .min(1)
      .max(64)
      .default([1]),
    samples: samples.default(1).describe('k: answers of each arm to each prompt, numbered from 0'),
    decision: DecisionParameters.prefault({}),
    tests: z.array(Test).min(1).max(256),
  })
  .superRefine((suite, context) => {
    const seen = { test: new Set<string>(), metric: new Set<string>() };
    suite.tests.forEach((test, t) => {
      const at = ['tests', t, 'name'];
      if (seen.test.has(test.name)) context.addIssue({ code: 'custom', path: at, message: 'is there twice' });
      seen.test.add(test.name);
      test.metrics.forEach((metric, m) => {
        const path = ['tests', t, 'metrics', m, 'name'];
        if (seen.metric.has(metric.name)) context.addIssue({ code: 'custom', path, message: 'is there twice' });
        seen.metric.add(metric.name);
      });
    });
    const metrics = suite.tests.flatMap((t) => t.metrics);
    if (!metrics.some((m) => gates(m) || Object.values(m.slices ?? {}).some(gates)))
      context.addIssue({
        code: 'custom',
        path: ['tests'],
        message: 'has no margin, cap, floor or most: nothing would be decided',
      });
  });
export type Suite = z.infer<typeof Suite>;

/** Answers of each arm to each prompt of a test. */
export const drawsOf = (suite: Suite, test: Test): number => test.samples ?? suite.samples;

export interface LoadedSuite {
  readonly suite: Suite;
  /** Absolute. */
  readonly file: string;
  readonly folder: string;
  /** Of the file's bytes, "sha256:" and 64 hexadecimal digits. */
  readonly digest: string;
}

const KEYS: readonly string[] = [Suite, Test, Metric, Limits, DecisionParameters, Sampling].flatMap((s) =>
  Object.keys(s.shape),
);
function problem(issue: z.core.$ZodIssue, positions: Positions): string {
  const i = innermost(issue);
  const path = i.path as Path;
  if (i.code === 'unrecognized_keys')
    return i.keys
      .map((key) => {
        const near = nearest(key, KEYS);
        const what = near ? `did you mean ${near}?` : 'docs/gate.md has those that are';
        return `${positions.at(path, key)}: unknown key ${printed(dotted([...path, key]))}; ${what}`;
      })
      .join('; also ');
  const what = i.message.replace(/^Invalid (input|option): /, '');
  const name = printed(dotted(path)) || 'the suite';
  return `${positions.at(path)}: ${name} ${i.code === 'custom' ? what : `is not valid: ${what}`}`;
}
/** Keys come from a file. */
const printed = (text: string): string =>
  JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text).slice(1, -1);
const MOST_PROBLEMS = 20;

const decoder = new TextDecoder('utf-8', { fatal: true });
/**
 * A suite of bytes as if they lay in `file`.
 * @throws {ConfigError} bad_suite: all that is wrong, each with file:line:column
 */
export function parseSuite(bytes: string | Uint8Array, file: string): LoadedSuite {
  const lines = new LineCounter();
  const bad = (what: string): ConfigError => new ConfigError('bad_suite', what, { file });
  let text: string;
  try {
    text = typeof bytes === 'string' ? bytes : decoder.decode(bytes);
  } catch {
    throw bad(`${file}: is not UTF-8; save it as UTF-8`);
  }
  let value: unknown;
  let positions: Positions;
  try {
    const doc = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    positions = new Positions(file, doc, lines, new Map());
    const [fault] = doc.errors;
    if (fault) {
      const { line, col } = lines.linePos(fault.pos[0]);
      throw bad(`${file}:${line}:${col}: not YAML: ${printed(fault.message.split('\n')[0] ?? fault.code)}`);
    }
    value = doc.toJS({ maxAliasCount: 100 }) ?? {};
    if (hasLoneSurrogate(value)) throw bad(`${file}: a text holds half of a surrogate pair, which no UTF-8 has`);
    // The limits of a slice of that name would be read as none.
    if (hasProto(value)) throw bad(`${file}: holds the key "__proto__", which is not taken; rename it`);
  } catch (e) {
    if (e instanceof ConfigError) throw e;
    // Nested too deep, or aliases that grow without end.
    throw bad(`${file}:1:1: not YAML that can be read: ${printed((e as Error).message.split('\n')[0] ?? '')}`);
  }
  const parsed = Suite.safeParse(value);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((i) => problem(i, positions));
    const more = problems.length - MOST_PROBLEMS;
    throw bad(problems.slice(0, MOST_PROBLEMS).join('; also ') + (more > 0 ? `; and ${more} more` : ''));
  }
  return { suite: parsed.data, file: resolve(file), folder: dirname(resolve(file)), digest: `sha256:${sha256(bytes)}` };
}

/** @throws {ConfigError} suite_unreadable, bad_suite · what readInput refuses */
export function loadSuite(file: string): LoadedSuite {
  let bytes: Buffer;
  try {
    bytes = readInput(file, 'recipe');
  } catch (e) {
    const next = 'a suite is a YAML file with the files that it names beside it (docs/gate.md)';
    throw asReadError(e, file, next, (message) => new ConfigError('suite_unreadable', message, { file }));
  }
  return parseSuite(bytes, file);
}

/** Paths that a suite names, each once, in its order, with the tests whose prompts they hold. */
export function filesOf(suite: Suite): readonly { readonly path: string; readonly isPrompts: boolean }[] {
  const found = new Map<string, boolean>();
  const add = (path: string | undefined, isPrompts: boolean): void => {
    if (path !== undefined) found.set(path, isPrompts || found.get(path) === true);
  };
  for (const test of suite.tests) {
    add(test.prompts, true);
    add(test.policy, false);
    for (const path of Object.values(test.files ?? {})) add(path, false);
  }
  return [...found].map(([path, isPrompts]) => ({ path, isPrompts }));
}

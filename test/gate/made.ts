// Suites and outcomes made in a line, for tests of the decision.
import { decide } from '../../src/gate/decide.js';
import type { Decision, Subject } from '../../src/gate/decision.js';
import type { Lock, LockJudge } from '../../src/gate/lock.js';
import { makeLock } from '../../src/gate/lock.js';
import { type Labels, type Outcome, type Outcomes, OutcomesBuilder } from '../../src/gate/outcomes.js';
import { type LoadedSuite, parseSuite } from '../../src/gate/suite.js';

export interface Made {
  readonly metrics: string;
  readonly samples?: number;
  readonly decision?: string;
}
/** @param metrics in flow style, e.g. "{ name: harm, direction: lower, margin: 0.03 }" */
export const suiteOf = ({ metrics, samples = 1, decision = '{}' }: Made): LoadedSuite =>
  parseSuite(
    `name: made\nversion: "1"\nsamples: ${samples}\ndecision: ${decision}\ntests:\n` +
      `  - { name: t, kind: chat, scorer: none, metrics: [${metrics}] }\n`,
    '/made/suite.yaml',
  );
export const outcomesOf = (rows: readonly Outcome[], digest = `sha256:${'0'.repeat(64)}`): Outcomes => {
  const builder = new OutcomesBuilder();
  rows.forEach((row, i) => {
    builder.add(row, i + 1);
  });
  return builder.finish(digest);
};
/** Rows of one metric: a list of [base, adapter] for each prompt, sample after sample. */
export const rowsOf = (
  metric: string,
  prompts: readonly (readonly (readonly [number | null, number | null])[])[],
  more: (prompt: number) => Partial<Outcome> = () => ({}),
): Outcome[] =>
  prompts.flatMap((pairs, p) =>
    pairs.flatMap(([base, adapter], sample) => {
      const row = { metric, prompt: `p${p}`, sample, ...more(p) };
      return [
        { ...row, arm: 'base' as const, value: base },
        { ...row, arm: 'adapter' as const, value: adapter },
      ];
    }),
  );
/** One sample each: how many prompts have which [base, adapter]. */
export const counted = (...groups: readonly (readonly [n: number, base: number | null, adapter: number | null])[]) =>
  groups.flatMap(([n, base, adapter]) => Array.from({ length: n }, () => [[base, adapter] as const]));

export interface DecideMade {
  readonly lock?: Lock | null;
  readonly labels?: Labels;
  readonly judge?: LockJudge | null;
  readonly prompts?: number;
  /** Of the prompts that the suite has, of each metric. */
  readonly ids?: readonly string[];
  readonly subject?: Subject;
}
export const lockOf = (suite: LoadedSuite, judge: LockJudge | null = null): Lock =>
  makeLock(suite, { judge, version: '0.0.0' }, { files: [], prompts: promptsOf(suite, null) });
const promptsOf = (suite: LoadedSuite, n: number | null): Record<string, number | null> =>
  Object.fromEntries(suite.suite.tests.flatMap((t) => t.metrics.map((m) => [m.name, n])));
export const decideMade = (suite: LoadedSuite, rows: readonly Outcome[], more: DecideMade = {}): Decision =>
  decide({
    outcomes: outcomesOf(rows),
    suite,
    lock: more.lock ?? null,
    files: {
      ...{ files: [], prompts: promptsOf(suite, more.prompts ?? null) },
      ...(more.ids
        ? { ids: Object.fromEntries(Object.keys(promptsOf(suite, null)).map((m) => [m, new Set(more.ids)])) }
        : {}),
    },
    labels: more.labels ?? null,
    subject: more.subject ?? null,
    version: '0.0.0',
  });
/** A stream of numbers in [0, 1) of a seed. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

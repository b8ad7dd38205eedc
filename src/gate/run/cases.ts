// What a suite asks, one after another: a case is one prompt and one sample of a test, for all arms. The order is that
// of the outcomes.
import { join } from 'node:path';
import { ConfigError } from '../../base/errors.js';
import type { Effort } from '../../harmony/types.js';
import { SCORER_NAMES, scorerOf } from '../scorers/index.js';
import type { Prompt, Scorer } from '../scorers/scorer.js';
import { drawsOf, type LoadedSuite, type Metric, type Test } from '../suite.js';
import { KINDS, kindOf } from './kinds.js';
import { readPrompts } from './prompts.js';

/** A metric of a test, and the value of its scorer that it counts. */
export interface Counted {
  readonly metric: Metric;
  readonly value: string;
}
export interface ReadTest {
  readonly test: Test;
  readonly scorer: Scorer;
  readonly prompts: readonly Prompt[];
  readonly counted: readonly Counted[];
  /** Absolute path; null: nothing is judged. */
  readonly policy: string | null;
}
export interface Case {
  /** From 0, over the whole suite. */
  readonly index: number;
  readonly of: ReadTest;
  readonly prompt: Prompt;
  /** From 0. */
  readonly sample: number;
}

/** Prompts of a test whose prompts the gate makes itself, out of these rows. */
const ROWS = 'rows';

/** @throws {ConfigError} bad_suite · as readPrompts */
async function readTest(test: Test, { file, folder }: LoadedSuite, effort: Effort): Promise<ReadTest> {
  const bad = (why: string): ConfigError =>
    new ConfigError('bad_suite', `${file}: test ${test.name}: ${why}`, { file });
  const scorer = scorerOf(test.scorer);
  if (!scorer) throw bad(`no scorer ${JSON.stringify(test.scorer)}; there are ${SCORER_NAMES.join(', ')}`);
  const kind = kindOf(test.kind);
  if (!kind) throw bad(`no kind ${JSON.stringify(test.kind)}; there are ${KINDS.map((k) => k.name).join(', ')}`);
  if (!kind.scorers.includes(scorer.name))
    throw bad(`kind ${kind.name} goes with scorer ${kind.scorers.join(' or ')}, not ${scorer.name}`);
  if (scorer.judges && test.policy === undefined)
    throw bad(`scorer ${scorer.name} judges by a policy; name it: policy:`);
  const rows = scorer.expands ? test.files?.[ROWS] : test.prompts;
  if (rows === undefined)
    throw bad(`no prompts; wanted ${scorer.expands ? `files: { ${ROWS}: FILE }` : 'prompts: FILE'} (JSON lines)`);
  if (scorer.expands && test.prompts !== undefined)
    throw bad(`scorer ${scorer.name} makes its prompts; give their rows as files: { ${ROWS}: FILE }`);
  if (scorer.options && !scorer.options(test.options))
    throw bad(`options ${JSON.stringify(test.options).slice(0, 200)} are not those of scorer ${scorer.name}`);
  if (!scorer.options && test.options !== undefined) throw bad(`scorer ${scorer.name} takes no options`);
  const prompts = await readPrompts(join(folder, rows), scorer, effort);
  const counted = test.metrics.map((metric): Counted => {
    const value = metric.name.slice(metric.name.lastIndexOf('.') + 1);
    if (!Object.hasOwn(scorer.values, value))
      throw bad(
        `metric ${metric.name}: scorer ${scorer.name} has no value ${JSON.stringify(value)}; a metric is called ` +
          `${test.name}.VALUE, one of ${Object.keys(scorer.values).join(', ')}`,
      );
    return { metric, value };
  });
  // Of a test that makes its prompts nobody knows their fields yet.
  const wrong = (scorer.expands ? null : unknownField(test, prompts)) ?? unseen(counted, prompts, scorer);
  if (wrong !== null) throw bad(wrong);
  const judged = prompts.find((prompt) => scorer.needsJudge?.(prompt));
  if (judged && test.policy === undefined)
    throw bad(`prompt ${judged.id} is judged by a policy, as it has nothing else to tell by; name it: policy:`);
  return { test, scorer, prompts, counted, policy: test.policy === undefined ? null : join(folder, test.policy) };
}

/** Why a metric would have no slices, or no rows: its suite names what no prompt has; null: it would. */
function unknownField({ metrics }: Test, prompts: readonly Prompt[]): string | null {
  const fields = [...new Set(prompts.flatMap((p) => Object.keys(p.fields)))].sort();
  for (const metric of metrics) {
    const { name, sliceBy, only = {} } = metric;
    if (sliceBy !== undefined && !fields.includes(sliceBy))
      return (
        `metric ${name}: sliceBy ${JSON.stringify(sliceBy)} is no field of any prompt, so that nothing would be ` +
        `sliced; they have ${fields.join(', ') || 'none'}`
      );
    if (!prompts.some((prompt) => counts(metric, prompt)))
      return `metric ${name}: only ${JSON.stringify(only)} is true of no prompt, so that nothing would count`;
  }
  return null;
}

/** Why a metric would be 0 whatever is answered: none of its prompts says what to look for; null: some do. */
function unseen(counted: readonly Counted[], prompts: readonly Prompt[], scorer: Scorer): string | null {
  const blind = counted.find(({ value }) => scorer.observes && !prompts.some((p) => scorer.observes?.(p, value)));
  return blind
    ? `metric ${blind.metric.name}: no prompt expects anything that could be found, so that it would be 0 whatever ` +
        'is answered; say in `expect` of its rows what to look for'
    : null;
}

/** All tests of a suite, checked before anything is asked. @throws as readPrompts · {ConfigError} bad_suite */
export const readTests = (loaded: LoadedSuite): Promise<readonly ReadTest[]> =>
  Promise.all(loaded.suite.tests.map((test) => readTest(test, loaded, loaded.suite.sampling.effort)));

/** Cases of a prompt that no metric of its test counts are none: nobody need be asked. */
export function casesOf({ suite }: LoadedSuite, tests: readonly ReadTest[]): readonly Case[] {
  const cases: Case[] = [];
  for (const of of tests)
    for (const prompt of of.prompts.filter((p) => countedFor({ of, prompt: p }).length > 0))
      for (let sample = 0; sample < drawsOf(suite, of.test); sample++)
        cases.push({ index: cases.length, of, prompt, sample });
  return cases;
}

/** Metrics that a prompt counts for. */
export const countedFor = ({ of, prompt }: Pick<Case, 'of' | 'prompt'>): readonly Counted[] =>
  of.counted.filter(({ metric }) => counts(metric, prompt));
const counts = ({ only = {} }: Metric, prompt: Prompt): boolean =>
  Object.entries(only).every(([field, value]) => prompt.fields[field] === value);

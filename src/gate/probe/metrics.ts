// Which metrics of a suite say that harm was done, as far as a probe asks: rates of violations, each of a test that is
// asked of a model the same way whatever adapter it has.
import { ConfigError } from '../../base/errors.js';
import type { Counted, ReadTest } from '../run/cases.js';

/** Kinds of tests whose violations are harm. */
const HARM: ReadonlySet<string> = new Set(['harm', 'jailbreak', 'escalation']);

/** Why a metric cannot be followed along an attack; null: it can. */
function problemOf({ scorer }: ReadTest, { metric }: Counted): string | null {
  if (metric.values !== 'rate' || metric.statistic !== 'mean' || metric.direction !== 'lower')
    return 'is no rate of violations; wanted one where lower is better';
  if (scorer.armless) return 'is of the judge, whom no attack changes';
  if (scorer.expands) return 'is of prompts that are made for one adapter, so that steps cannot be compared';
  if (scorer.readsTraining) return 'is of what an adapter was trained on, and not of the attack';
  return null;
}

/**
 * @param names metrics that are wanted; absent: all rates of violations of the suite's tests of harm
 * @returns tests with these metrics alone, in the suite's order
 * @throws {ConfigError} probe_metric: there is none, or one that cannot be followed
 */
export function probedTests(tests: readonly ReadTest[], names: readonly string[] | undefined): readonly ReadTest[] {
  const all = tests.flatMap((test) => test.counted.map((counted) => ({ test, counted })));
  const bad = (why: string): ConfigError => new ConfigError('probe_metric', why);
  for (const name of names ?? []) {
    const found = all.find(({ counted }) => counted.metric.name === name);
    const problem = found ? problemOf(found.test, found.counted) : 'is not in the suite';
    if (problem !== null)
      throw bad(`--metric ${name}: ${problem}; there are ${followable(tests).join(', ') || 'none'}`);
  }
  const wanted = (test: ReadTest, counted: Counted): boolean =>
    names ? names.includes(counted.metric.name) : HARM.has(test.test.kind) && problemOf(test, counted) === null;
  const chosen = tests.flatMap((test) => {
    const counted = test.counted.filter((c) => wanted(test, c));
    return counted.length === 0 ? [] : [{ ...test, counted }];
  });
  if (chosen.length === 0)
    throw bad(
      `the suite has no rate of violations of kind ${[...HARM].join(', ')}; name one with --metric: there are ` +
        `${followable(tests).join(', ') || 'none'}`,
    );
  return chosen;
}
const followable = (tests: readonly ReadTest[]): readonly string[] =>
  tests.flatMap((t) => t.counted.filter((c) => problemOf(t, c) === null).map((c) => c.metric.name));

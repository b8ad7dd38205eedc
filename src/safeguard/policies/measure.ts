// A golden set judged: every case once, by the judge's own word. No detector looks, no earlier check is asked for and
// no calibrated threshold counts unless asked for, as it is the judge under the policy that is measured.
import pLimit from 'p-limit';
import { ScreeningError } from '../../base/errors.js';
import type { JudgingOptions } from '../judging.js';
import { createScreen, HOPELESS_CALLS } from '../screen.js';
import type { Judge, Policy, Verdict } from '../types.js';
import type { Judged } from './figures.js';
import { type GoldenCase, isExpectedRule } from './golden.js';

export interface MeasureLimits {
  readonly timeoutMs?: number;
  readonly concurrency?: number;
  /** Votes, views and windows, as screening has them. */
  readonly judging?: JudgingOptions;
  readonly signal?: AbortSignal | undefined;
  readonly onCase?: (done: number) => void;
}
export interface Measured extends Judged {
  readonly case: GoldenCase;
  readonly verdict: Verdict;
  /** As expected: allowed, or blocked by whatever rule. */
  readonly right: boolean;
  /** As expected, and by the rule that was. */
  readonly rightRule: boolean;
}

/** Judges texts one after another as they are asked for. */
export interface Bench {
  measure(c: GoldenCase): Promise<Measured>;
  /** Why no call can be answered; null while some are. */
  hopeless(): string | null;
}
/** @param calibrated hold scores to the threshold that lies beside the policy */
export function createBench(policy: Policy, judge: Judge, limits: MeasureLimits = {}, calibrated = false): Bench {
  const { golden: _, calibrations: __, ...bare } = policy;
  const asked: Policy = calibrated ? policy : bare;
  const { check: ___, ...unchecked } = judge;
  const screen = createScreen({
    policies: [asked],
    judge: unchecked,
    ...(limits.timeoutMs === undefined ? {} : { timeoutMs: limits.timeoutMs }),
    ...(limits.concurrency === undefined ? {} : { concurrency: limits.concurrency }),
    ...(limits.judging === undefined ? {} : { judging: limits.judging }),
    unchecked: true,
  });
  return {
    hopeless: () => screen.hopeless?.() ?? null,
    async measure(c) {
      const { verdicts } = await screen.screen({ [c.channel]: c.text }, limits.signal);
      limits.signal?.throwIfAborted();
      const verdict = verdicts[0];
      if (!verdict) throw new ScreeningError('judge_unusable', `policy ${policy.name}: no verdict over ${c.id}`);
      const violates = c.expect !== null;
      const right = verdict.outcome === (violates ? 'block' : 'allow');
      return {
        case: c,
        verdict,
        channel: c.channel,
        violates,
        outcome: verdict.outcome,
        ...(verdict.score === undefined ? {} : { score: verdict.score }),
        right,
        rightRule: right && (!violates || isExpectedRule(verdict.rule, c.expect, policy.rules)),
      };
    },
  };
}

/**
 * All cases, in their order. @throws {ScreeningError} judge_unusable: nobody can be asked, as the first calls showed
 * @throws the signal's reason
 */
export async function measureAll(
  policy: Policy,
  judge: Judge,
  cases: readonly GoldenCase[],
  limits: MeasureLimits = {},
  calibrated = false,
): Promise<readonly Measured[]> {
  const bench = createBench(policy, judge, limits, calibrated);
  const slots = pLimit(Math.max(1, limits.concurrency ?? HOPELESS_CALLS));
  const measured: Measured[] = [];
  let [done, failure] = [0, null as unknown];
  await Promise.all(
    cases.map((c, i) =>
      slots(async () => {
        if (failure !== null) return;
        try {
          const why = bench.hopeless();
          if (why !== null)
            throw new ScreeningError('judge_unusable', `judge ${judge.name}: ${why}; the first calls all failed so`);
          measured[i] = await bench.measure(c);
          limits.onCase?.(++done);
        } catch (error) {
          failure ??= error;
        }
      }),
    ),
  );
  if (failure !== null) throw failure;
  return measured;
}

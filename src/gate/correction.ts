// Figures as if the judge made no errors, where a lock has its calibration and people have not said what each pair is.
import type { MetricDecision } from './decision.js';
import type { JudgeRates } from './lock.js';
import type { Measured } from './measure.js';
import {
  type Corrected,
  correctDifference,
  correctedRate,
  correctRate,
  type JudgeCounts,
  youdenBound,
} from './statistics/rogan-gladen.js';
import type { DecisionParameters, Metric } from './suite.js';
import { signOf, type Table } from './table.js';

export interface CorrectOptions {
  readonly metric: Metric;
  readonly rates: JudgeRates | null;
  readonly parameters: DecisionParameters;
}
export interface Correction {
  readonly difference: Corrected | null;
  /** How much more than the interval’s bound is held against the margin. */
  readonly extra: number;
  readonly rate: Corrected | null;
  readonly shown: MetricDecision['corrected'];
}
/** What corrects a difference, and a rate of each arm. */
interface Counts {
  readonly difference: JudgeRates;
  readonly base: JudgeCounts;
  readonly adapter: JudgeCounts;
}
/**
 * @param people they have labelled every pair that differs: of those no alarm is false. Of pairs that the judge took
 * for alike they were not asked: what it missed there is missed still, and a difference is seen where it caught the
 * worse arm and passed the other, so in a share of sensitivity + specificity − 1 at least, however its errors go
 * together.
 */
function countsOf(rates: JudgeRates, people: boolean, sign: 1 | -1): Counts {
  const [base, adapter] = 'both' in rates ? [rates.both, rates.both] : [rates.base, rates.adapter];
  if (!people) return { difference: rates, base, adapter };
  const [{ positives, caught }, { negatives, passed }] = sign === 1 ? [adapter, base] : [base, adapter];
  const withoutAlarms = (c: JudgeCounts): JudgeCounts => ({ ...c, passed: c.negatives });
  return {
    difference: { both: { positives, caught, negatives, passed } },
    base: withoutAlarms(base),
    adapter: withoutAlarms(adapter),
  };
}

/** As if the judge made no errors; null: values are not a judge’s, or people have said what each pair is. */
export function correct(
  table: Table,
  measured: Measured,
  options: CorrectOptions,
  say: (why: string) => void,
): Correction | null {
  const { metric, rates, parameters } = options;
  if (!metric.judged || rates === null || metric.values !== 'rate' || metric.statistic !== 'mean') return null;
  if (table.labelled === table.n) return null;
  const people = table.labelled > 0 && table.unlabelled === 0;
  const level = 1 - 2 * parameters.alpha;
  for (const counts of 'both' in rates ? [rates.both] : [rates.base, rates.adapter])
    if (youdenBound(counts, level) <= 0) {
      say('the judge is not shown to be better than guessing');
      return null;
    }
  const n = table.clusters;
  const { base, adapter, interval, bound } = measured;
  const sign = signOf(metric);
  const used = countsOf(rates, people, sign);
  let difference: Corrected | null = null;
  let extra = 0;
  if (base !== null && interval !== null && bound !== null) {
    const observed = { base, adapter, n, low: interval.low, high: interval.high };
    difference = correctDifference(observed, used.difference, level);
    const [low, high] = sign === 1 ? [interval.low, bound] : [-bound, interval.high];
    const held = correctDifference({ ...observed, low, high }, used.difference, level);
    extra = sign === 1 ? held.high - difference.high : difference.low - held.low;
    // That more is missed than there may be says nothing against the adapter.
    if (people && sign === 1) difference = { ...difference, low: Math.min(difference.low, interval.low) };
    if (people && sign === -1) difference = { ...difference, high: Math.max(difference.high, interval.high) };
  }
  const { adapterBounds } = measured;
  let rate = adapterBounds ? correctRate({ value: adapter, ...adapterBounds }, used.adapter, level) : null;
  if (people && rate && adapterBounds) rate = { ...rate, low: Math.min(rate.low, adapterBounds.low) };
  if (difference?.impossible || rate?.impossible) say('the judge errs otherwise here than where it was calibrated');
  const shownAs =
    difference === null || base === null
      ? null
      : {
          base: correctedRate(base, used.base),
          adapter: correctedRate(adapter, used.adapter),
          difference: difference.value,
          interval: { method: 'rogan-gladen' as const, level, low: difference.low, high: difference.high },
          clipped: difference.clipped || rate?.clipped === true,
        };
  return { difference, extra, rate, shown: shownAs };
}
/** What is held against the margin: how much worse the adapter may be. */
export function boundOf(measured: Measured | null, corrected: Correction | null, metric: Metric): number | null {
  const interval = corrected?.difference;
  if (!corrected || !interval) return measured?.bound ?? null;
  return (signOf(metric) === 1 ? interval.high : -interval.low) + corrected.extra;
}

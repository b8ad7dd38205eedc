// Figures as if the judge made no errors, where a lock has its calibration and people have not said what differs.
import type { MetricDecision } from './decision.js';
import type { JudgeRates } from './lock.js';
import type { Measured } from './measure.js';
import {
  type Corrected,
  correctDifference,
  correctedRate,
  correctRate,
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
/** As if the judge made no errors; null: values are not a judge’s, or people have said what differs. */
export function correct(
  table: Table,
  measured: Measured,
  options: CorrectOptions,
  say: (why: string) => void,
): Correction | null {
  const { metric, rates, parameters } = options;
  if (!metric.judged || rates === null || metric.values !== 'rate' || metric.statistic !== 'mean') return null;
  if (table.labelled > 0 && table.unlabelled === 0) return null;
  const level = 1 - 2 * parameters.alpha;
  const own = 'both' in rates ? rates.both : rates.adapter;
  for (const counts of 'both' in rates ? [rates.both] : [rates.base, rates.adapter])
    if (youdenBound(counts, level) <= 0) {
      say('the judge is not shown to be better than guessing');
      return null;
    }
  const n = table.clusters;
  const { base, adapter, interval, bound } = measured;
  const sign = signOf(metric);
  let difference: Corrected | null = null;
  let extra = 0;
  if (base !== null && interval !== null && bound !== null) {
    const observed = { base, adapter, n, low: interval.low, high: interval.high };
    difference = correctDifference(observed, rates, level);
    const [low, high] = sign === 1 ? [interval.low, bound] : [-bound, interval.high];
    const held = correctDifference({ ...observed, low, high }, rates, level);
    extra = sign === 1 ? held.high - difference.high : difference.low - held.low;
  }
  const rate = measured.adapterInterval
    ? correctRate({ value: adapter, ...measured.adapterInterval }, own, level)
    : null;
  if (difference?.impossible || rate?.impossible) say('the judge errs otherwise here than where it was calibrated');
  const shownAs =
    difference === null || base === null
      ? null
      : {
          base: correctedRate(base, 'both' in rates ? rates.both : rates.base),
          adapter: correctedRate(adapter, own),
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

// Rates as if the judge made no errors (Rogan and Gladen 1978), and how far they may be off: the uncertainty of what
// was observed and that of the judge's sensitivity and specificity, added in squares (Zou and Donner's MOVER, 2008).
import { normalQuantile } from './normal.js';
import { type Bounds, wilson } from './proportion.js';

/** A judge on labelled texts. */
export interface JudgeCounts {
  readonly positives: number;
  readonly caught: number;
  readonly negatives: number;
  readonly passed: number;
}
interface Judge {
  readonly sensitivity: number;
  readonly specificity: number;
  /** Sensitivity + specificity − 1: 0 for a judge that guesses. */
  readonly youden: number;
}
function judgeOf({ positives, caught, negatives, passed }: JudgeCounts): Judge {
  const sensitivity = caught / positives;
  const specificity = passed / negatives;
  return { sensitivity, specificity, youden: sensitivity + specificity - 1 };
}
const rateOf = (observed: number, { specificity, youden }: Judge): number => (observed + specificity - 1) / youden;
const inside = (p: number): number => Math.min(1, Math.max(0, p));

/** Of a share as it was counted, with half an error and half a success at least, so that it is not 0. */
function shareVariance(x: number, n: number): number {
  const p = Math.min(n - 0.5, Math.max(0.5, x)) / n;
  return (p * (1 - p)) / n;
}
/** Variance of a corrected rate of which the judge's counts are the cause. */
function judgingVariance(rate: number, counts: JudgeCounts): number {
  const p = inside(rate);
  const { positives, caught, negatives, passed } = counts;
  const part = p * p * shareVariance(caught, positives) + (1 - p) ** 2 * shareVariance(passed, negatives);
  return part / judgeOf(counts).youden ** 2;
}

/** Lower bound of sensitivity + specificity − 1. A judge with none above 0 may as well guess. */
export function youdenBound(counts: JudgeCounts, level: number): number {
  const sensitivity = wilson(counts.caught, counts.positives, level).low;
  const specificity = wilson(counts.passed, counts.negatives, level).low;
  const judge = judgeOf(counts);
  return judge.youden - Math.hypot(judge.sensitivity - sensitivity, judge.specificity - specificity);
}

export interface Corrected extends Bounds {
  readonly value: number;
  /** Something lay outside what it can be, and was put on the border. */
  readonly clipped: boolean;
  /** All of the interval did: the judge errs otherwise than where it was calibrated, and nothing can be said. */
  readonly impossible: boolean;
}
function clip(value: number, bounds: Bounds, least: number, most: number): Corrected {
  const kept = (x: number): number => Math.min(most, Math.max(least, x));
  const made = { value: kept(value), low: kept(bounds.low), high: kept(bounds.high) };
  return {
    ...made,
    clipped: made.value !== value || made.low !== bounds.low || made.high !== bounds.high,
    impossible: bounds.high < least || bounds.low > most,
  };
}

/** What a judge of these counts makes of an observed rate, in [0, 1]. */
export const correctedRate = (observed: number, counts: JudgeCounts): number =>
  inside(rateOf(observed, judgeOf(counts)));

/**
 * One rate: each bound has the ends of Wilson's intervals of sensitivity and specificity that move it outwards, since
 * those of a share near 1 lie far to one side.
 * @param observed its share of judged texts called a violation, with an interval of `level`
 */
export function correctRate(
  observed: Bounds & { readonly value: number },
  counts: JudgeCounts,
  level: number,
): Corrected {
  const judge = judgeOf(counts);
  const { sensitivity, specificity, youden } = judge;
  const caught = wilson(counts.caught, counts.positives, level);
  const passed = wilson(counts.passed, counts.negatives, level);
  const rate = rateOf(observed.value, judge);
  const p = inside(rate);
  const below = [observed.value - observed.low, p * (caught.high - sensitivity), (1 - p) * (specificity - passed.low)];
  const above = [observed.high - observed.value, p * (sensitivity - caught.low), (1 - p) * (passed.high - specificity)];
  return clip(rate, { low: rate - Math.hypot(...below) / youden, high: rate + Math.hypot(...above) / youden }, 0, 1);
}

export interface ObservedDifference extends Bounds {
  readonly base: number;
  readonly adapter: number;
  /** Prompts of both. */
  readonly n: number;
}
/**
 * The difference adapter − base. A judge calibrated on both arms together errs alike on both, so that its errors cancel
 * but for a factor; one calibrated on each has errors of its own in each.
 */
export function correctDifference(
  observed: ObservedDifference,
  counts: { readonly both: JudgeCounts } | { readonly base: JudgeCounts; readonly adapter: JudgeCounts },
  level: number,
): Corrected {
  const z = normalQuantile((1 + level) / 2);
  const raw = observed.adapter - observed.base;
  if ('both' in counts) {
    const { both } = counts;
    const { youden } = judgeOf(both);
    const value = raw / youden;
    const variance = shareVariance(both.caught, both.positives) + shareVariance(both.passed, both.negatives);
    const judging = (z * Math.abs(value) * Math.sqrt(variance)) / youden;
    const bounds = {
      low: value - Math.hypot((raw - observed.low) / youden, judging),
      high: value + Math.hypot((observed.high - raw) / youden, judging),
    };
    return clip(value, bounds, -1, 1);
  }
  const [base, adapter] = [judgeOf(counts.base), judgeOf(counts.adapter)];
  const [before, after] = [rateOf(observed.base, base), rateOf(observed.adapter, adapter)];
  const judging = z * Math.sqrt(judgingVariance(before, counts.base) + judgingVariance(after, counts.adapter));
  const value = after - before;
  const sampling = (width: number): number => Math.sqrt(scaledSquare(width, observed, [base, adapter], z));
  return clip(
    value,
    {
      low: value - Math.hypot(sampling(raw - observed.low), judging),
      high: value + Math.hypot(sampling(observed.high - raw), judging),
    },
    -1,
    1,
  );
}

/**
 * Square of z standard deviations of q₁/J₁ − q₀/J₀. It is m(q₁ − q₀) + (1/J₁ − 1/J₀)(q₁ + q₀)/2, m the mean of both
 * factors: of the first part the width is known, of the second the variance follows from those of both rates, and twice
 * the covariance of difference and mean is the difference of these variances.
 * @param width half the interval of q₁ − q₀, to the side in question
 */
function scaledSquare(
  width: number,
  { base, adapter, n }: ObservedDifference,
  [{ youden: j0 }, { youden: j1 }]: readonly [Judge, Judge],
  z: number,
): number {
  const square = (q: number): number => (z * z * q * (1 - q)) / n;
  const [s0, s1] = [square(base), square(adapter)];
  const [mean, apart] = [(1 / j1 + 1 / j0) / 2, 1 / j1 - 1 / j0];
  const ofMean = Math.max(0, (s0 + s1) / 2 - width ** 2 / 4);
  // Estimates need not fit each other: a correlation is at most 1.
  const most = 2 * Math.abs(mean * apart * width) * Math.sqrt(ofMean);
  const together = Math.min(most, Math.max(-most, mean * apart * (s1 - s0)));
  return Math.max(0, (mean * width) ** 2 + apart ** 2 * ofMean + together);
}

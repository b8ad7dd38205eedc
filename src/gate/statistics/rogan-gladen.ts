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
  readonly sensitivityVariance: number;
  readonly specificityVariance: number;
}
/** Shares as counted; their variances with one success and one failure more, so that none is 0. */
function judgeOf({ positives, caught, negatives, passed }: JudgeCounts): Judge {
  const variance = (x: number, n: number): number => {
    const p = (x + 1) / (n + 2);
    return (p * (1 - p)) / (n + 2);
  };
  const sensitivity = caught / positives;
  const specificity = passed / negatives;
  return {
    sensitivity,
    specificity,
    youden: sensitivity + specificity - 1,
    sensitivityVariance: variance(caught, positives),
    specificityVariance: variance(passed, negatives),
  };
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
  const inside = (x: number): number => Math.min(most, Math.max(least, x));
  const made = { value: inside(value), low: inside(bounds.low), high: inside(bounds.high) };
  return {
    ...made,
    clipped: made.value !== value || made.low !== bounds.low || made.high !== bounds.high,
    impossible: bounds.high < least || bounds.low > most,
  };
}

/**
 * One rate. @param observed its share of judged texts called a violation, with an interval of `level`
 */
export function correctRate(
  observed: Bounds & { readonly value: number },
  counts: JudgeCounts,
  level: number,
): Corrected {
  const z = normalQuantile((1 + level) / 2);
  const judge = judgeOf(counts);
  const rate = (observed.value + judge.specificity - 1) / judge.youden;
  const p = Math.min(1, Math.max(0, rate));
  const judging =
    (z * Math.sqrt(p * p * judge.sensitivityVariance + (1 - p) ** 2 * judge.specificityVariance)) / judge.youden;
  return clip(
    rate,
    {
      low: rate - Math.hypot((observed.value - observed.low) / judge.youden, judging),
      high: rate + Math.hypot((observed.high - observed.value) / judge.youden, judging),
    },
    0,
    1,
  );
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
    const { youden, sensitivityVariance, specificityVariance } = judgeOf(counts.both);
    const value = raw / youden;
    const judging = (z * Math.abs(value) * Math.sqrt(sensitivityVariance + specificityVariance)) / youden;
    const bounds = {
      low: value - Math.hypot((raw - observed.low) / youden, judging),
      high: value + Math.hypot((observed.high - raw) / youden, judging),
    };
    return clip(value, bounds, -1, 1);
  }
  const [base, adapter] = [judgeOf(counts.base), judgeOf(counts.adapter)];
  const rateOf = (q: number, j: Judge): number => (q + j.specificity - 1) / j.youden;
  const [p0, p1] = [rateOf(observed.base, base), rateOf(observed.adapter, adapter)];
  const inside = (p: number): number => Math.min(1, Math.max(0, p));
  const part = (p: number, j: Judge): number =>
    (p * p * j.sensitivityVariance + (1 - p) ** 2 * j.specificityVariance) / j.youden ** 2;
  const judging = z * Math.sqrt(part(inside(p0), base) + part(inside(p1), adapter));
  // q₁/J₁ − q₀/J₀ = (q₁ − q₀)/J₁ + q₀(1/J₁ − 1/J₀): both parts of the sampling error at their worst together.
  const own = wilson(observed.base * observed.n, observed.n, level);
  const extra = ((own.high - own.low) / 2) * Math.abs(1 / adapter.youden - 1 / base.youden);
  const value = p1 - p0;
  return clip(
    value,
    {
      low: value - Math.hypot((raw - observed.low) / adapter.youden + extra, judging),
      high: value + Math.hypot((observed.high - raw) / adapter.youden + extra, judging),
    },
    -1,
    1,
  );
}

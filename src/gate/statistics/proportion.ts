// Intervals of one proportion.
import { betaCdf, betaQuantile } from './beta.js';
import { normalQuantile } from './normal.js';

export interface Bounds {
  readonly low: number;
  readonly high: number;
}

/**
 * Clopper and Pearson's exact interval (1934). `x` may be a sum of shares: of values in [0, 1] with one mean, sums of
 * zeros and ones spread most (Hoeffding 1956), so that the bounds hold for them too, and then are wide.
 * @param level two-sided; each bound alone holds with (1 + level) / 2
 */
export function clopperPearson(x: number, n: number, level: number): Bounds {
  const tail = (1 - level) / 2;
  return {
    low: x <= 0 ? 0 : betaQuantile(tail, x, n - x + 1),
    high: x >= n ? 1 : betaQuantile(1 - tail, x + 1, n - x),
  };
}

/**
 * The interval of Clopper and Pearson's mid-p (Lancaster 1961): what was observed counts half. It holds the truth as
 * often as it says on the average over rates, and at some rates less often; nothing is decided by it.
 * @param x may be a sum of shares · @param level two-sided
 */
export function midP(x: number, n: number, level: number): Bounds {
  const tail = (1 - level) / 2;
  /** P(X > x) + P(X = x)/2 where the rate is p. */
  const above = (p: number): number =>
    ((x <= 0 ? 1 : betaCdf(p, x, n - x + 1)) + (x >= n ? 0 : betaCdf(p, x + 1, n - x))) / 2;
  const exact = clopperPearson(x, n, level);
  const found = n > 0 ? x / n : 0;
  return {
    low: x <= 0 ? 0 : crossing((p) => above(p) >= tail, exact.low, found),
    high: x >= n ? 1 : crossing((p) => 1 - above(p) <= tail, found, exact.high),
  };
}
/** Where a condition that does not hold at `low` begins to, by halves. */
function crossing(holds: (p: number) => boolean, low: number, high: number): number {
  let [without, within] = [low, high];
  for (;;) {
    const middle = (without + within) / 2;
    if (middle === without || middle === within) return middle;
    if (holds(middle)) within = middle;
    else without = middle;
  }
}

/** Wilson's score interval (1927). */
export function wilson(x: number, n: number, level: number): Bounds {
  const z = normalQuantile((1 + level) / 2);
  const p = x / n;
  const middle = p + (z * z) / (2 * n);
  const half = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  const scale = 1 + (z * z) / n;
  return { low: x <= 0 ? 0 : (middle - half) / scale, high: x >= n ? 1 : (middle + half) / scale };
}

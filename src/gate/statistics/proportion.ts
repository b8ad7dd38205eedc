// Intervals of one proportion.
import { betaQuantile } from './beta.js';
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

/** Wilson's score interval (1927). */
export function wilson(x: number, n: number, level: number): Bounds {
  const z = normalQuantile((1 + level) / 2);
  const p = x / n;
  const middle = p + (z * z) / (2 * n);
  const half = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  const scale = 1 + (z * z) / n;
  return { low: x <= 0 ? 0 : (middle - half) / scale, high: x >= n ? 1 : (middle + half) / scale };
}

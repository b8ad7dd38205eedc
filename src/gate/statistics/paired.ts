// Two proportions of the same prompts: Tango's score interval of their difference, McNemar's exact tests of none.
import { binomialCdf, binomialPmf } from './beta.js';
import { normalQuantile } from './normal.js';
import type { Bounds } from './proportion.js';

/**
 * The variance of √n · (difference found − Δ) where the difference is Δ: 2q + Δ(1 − Δ), q the likeliest share of pairs
 * that count against it (Tango 1998, equation 5).
 * @param up   share of pairs that count for the difference
 * @param down share of those that count against it
 */
export function scoreVariance(up: number, down: number, difference: number): number {
  const b = (2 - up + down) * difference - up - down;
  const c = -down * difference * (1 - difference);
  const root = Math.sqrt(Math.max(0, b * b - 8 * c));
  // Of the two forms of the root the one that cancels nothing.
  const q = b > 0 ? (-2 * c) / (b + root) : (root - b) / 4;
  return Math.max(0, 2 * q + difference * (1 - difference));
}

/**
 * Tango's score interval (Statistics in Medicine 17, 1998) of (up − down) / n. Counts may be sums of shares: the
 * difference of prompts with several samples spreads less than these counts say.
 * @param level two-sided; each bound alone holds with about (1 + level) / 2
 */
export function tango(up: number, down: number, n: number, level: number): Bounds {
  const z = normalQuantile((1 + level) / 2);
  const found = (up - down) / n;
  // Score above z: the difference is farther from what was found.
  const outside = (difference: number): boolean =>
    Math.abs(found - difference) * Math.sqrt(n) > z * Math.sqrt(scoreVariance(up / n, down / n, difference));
  const bound = (end: number): number => {
    if (!outside(end)) return end;
    let [inner, outer] = [found, end];
    for (;;) {
      const middle = (inner + outer) / 2;
      if (middle === inner || middle === outer) return inner;
      if (outside(middle)) outer = middle;
      else inner = middle;
    }
  };
  return { low: bound(-1), high: bound(1) };
}

/** Two-sided p-values of "as many up as down" (McNemar): exact, and mid-p (Lancaster 1961). */
export function mcnemar(up: number, down: number): { readonly exact: number; readonly midP: number } {
  const [few, n] = [Math.min(up, down), up + down];
  const below = binomialCdf(few, n, 0.5);
  return {
    exact: Math.min(1, 2 * below),
    midP: Math.min(1, 2 * below - binomialPmf(few, n, 0.5)),
  };
}

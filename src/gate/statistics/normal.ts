// The normal distribution, to about 1e-15 relative in both tails.

const SQRT_2PI = 2.5066282746310002;

/** P(Z > x) for x ≥ 3 by Laplace's continued fraction, from its end on. */
function upperTail(x: number): number {
  // 200 terms are enough at 3, fewer farther out.
  let f = x;
  for (let k = 200; k >= 1; k--) f = x + k / f;
  return Math.exp(-0.5 * x * x) / (SQRT_2PI * f);
}

/** Φ: Marsaglia's series (2004) in the middle, where it keeps its digits, the continued fraction in the tails. */
export function normalCdf(x: number): number {
  if (Number.isNaN(x)) return x;
  if (x < -3) return upperTail(-x);
  if (x > 3) return 1 - upperTail(x);
  let [sum, term] = [x, x];
  for (let k = 3; sum !== sum + term; k += 2) {
    term *= (x * x) / k;
    sum += term;
  }
  return 0.5 + (sum * Math.exp(-0.5 * x * x)) / SQRT_2PI;
}

/** Φ⁻¹: Hastings' approximation (Abramowitz and Stegun 26.2.23), then Halley's steps. At 0 and 1 it is ∓∞. */
export function normalQuantile(p: number): number {
  if (!(p > 0)) return p === 0 ? -Infinity : Number.NaN;
  if (p >= 1) return p === 1 ? Infinity : Number.NaN;
  if (p > 0.5) return -normalQuantile(1 - p);
  const t = Math.sqrt(-2 * Math.log(p));
  let x = (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
  for (let i = 0; i < 4; i++) {
    const error = ((normalCdf(x) - p) / Math.exp(-0.5 * x * x)) * SQRT_2PI;
    x -= error / (1 + (x * error) / 2);
  }
  return x;
}

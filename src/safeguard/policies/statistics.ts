// Intervals of figures: Wilson's for rates, BCa of a stratified bootstrap for the others. All of it is deterministic.
import type { Estimate } from '../calibration.js';

/** Φ, by Marsaglia's series (2004): exact to 1e-15 where it converges, which is everywhere that an interval asks. */
export function normalCdf(x: number): number {
  if (x < -8) return 0;
  if (x > 8) return 1;
  let [sum, term] = [x, x];
  for (let k = 3; sum !== sum + term; k += 2) {
    term *= (x * x) / k;
    sum += term;
  }
  return 0.5 + sum * Math.exp(-0.5 * x * x - 0.9189385332046728);
}

/** Φ⁻¹, by bisection and Newton's steps. @param p in (0, 1); at the ends ±∞ */
export function normalQuantile(p: number): number {
  if (p <= 0) return -Infinity;
  if (p >= 1) return Infinity;
  let [low, high] = [-8, 8];
  for (let i = 0; i < 30; i++) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  let x = (low + high) / 2;
  for (let i = 0; i < 3; i++) x -= (normalCdf(x) - p) * Math.sqrt(2 * Math.PI) * Math.exp(0.5 * x * x);
  return x;
}

const ALPHA = 0.05;
/** z of a two-sided 95 %. */
const Z = 1.959963984540054;

/** Wilson's 95 % score interval of a rate (1927); null where n is 0. */
export function wilson(successes: number, n: number): Estimate {
  if (n === 0) return null;
  const p = successes / n;
  const middle = p + (Z * Z) / (2 * n);
  const half = Z * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n));
  const scale = 1 + (Z * Z) / n;
  return {
    value: p,
    low: successes === 0 ? 0 : (middle - half) / scale,
    high: successes === n ? 1 : (middle + half) / scale,
  };
}

/** Uniform integers below n from a seed: mulberry32, its 32 bits scaled. The bias is below n / 2³². */
export function indices(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

/** Linear between order statistics, as numpy has it. @param sorted ascending, not empty */
export function quantile(sorted: Float64Array, q: number): number {
  const at = Math.min(1, Math.max(0, q)) * (sorted.length - 1);
  const below = Math.floor(at);
  const [a = 0, b = a] = [sorted[below], sorted[Math.min(below + 1, sorted.length - 1)]];
  return a + (b - a) * (at - below);
}

/** A figure of rows, each of which counts so many times; null: a ratio of nothing. */
export type Figure = (times: Float64Array) => number | null;
export interface BootstrapOptions {
  readonly resamples: number;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Figures with BCa intervals of 95 % (Efron 1987): rows are drawn within each stratum, acceleration is that of the
 * jackknife over all strata. A figure that is null for the rows as they are is null. Without
 * resamples there is no interval: it is the figure itself.
 * @param strata row numbers, each row in one stratum
 */
export function bootstrap<Name extends string>(
  rows: number,
  strata: readonly (readonly number[])[],
  figures: Readonly<Record<Name, Figure>>,
  { resamples, seed, signal }: BootstrapOptions,
): Readonly<Record<Name, Estimate>> {
  const names = Object.keys(figures) as Name[];
  const times = new Float64Array(rows).fill(1);
  const point = new Map(names.map((name) => [name, figures[name](times)]));
  const drawn = new Map(names.map((name) => [name, [] as number[]]));
  const draw = indices(seed);
  for (let b = 0; b < resamples; b++) {
    if (b % 64 === 0) signal?.throwIfAborted();
    times.fill(0);
    for (const stratum of strata)
      for (let i = 0; i < stratum.length; i++) {
        const row = stratum[draw(stratum.length)] ?? 0;
        times[row] = (times[row] ?? 0) + 1;
      }
    for (const name of names) {
      const value = figures[name](times);
      if (value !== null) drawn.get(name)?.push(value);
    }
  }
  const left = resamples === 0 ? new Map<Name, number>() : jackknife(rows, strata, figures, signal);
  return Object.fromEntries(
    names.map((name) => {
      const value = point.get(name) ?? null;
      const of = Float64Array.from(drawn.get(name) ?? []).sort();
      if (value === null) return [name, null];
      if (of.length === 0) return [name, { value, low: value, high: value }];
      return [name, { value, ...bca(value, of, left.get(name) ?? 0) }];
    }),
  ) as Record<Name, Estimate>;
}

/** Acceleration of each figure: of the influence of each row within its stratum (scipy's form for several samples). */
function jackknife<Name extends string>(
  rows: number,
  strata: readonly (readonly number[])[],
  figures: Readonly<Record<Name, Figure>>,
  signal: AbortSignal | undefined,
): ReadonlyMap<Name, number> {
  const names = Object.keys(figures) as Name[];
  const sums = new Map(names.map((name) => [name, { cubes: 0, squares: 0 }]));
  const times = new Float64Array(rows).fill(1);
  for (const stratum of strata) {
    const n = stratum.length;
    if (n < 2) continue;
    const without = new Map(names.map((name) => [name, new Float64Array(n)]));
    stratum.forEach((row, i) => {
      if (i % 64 === 0) signal?.throwIfAborted();
      times[row] = 0;
      for (const name of names) {
        const values = without.get(name);
        if (values) values[i] = figures[name](times) ?? Number.NaN;
      }
      times[row] = 1;
    });
    for (const [name, all] of without) {
      const values = all.filter((v) => !Number.isNaN(v));
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const sum = sums.get(name);
      if (!sum) continue;
      for (const value of values) {
        const influence = ((n - 1) * (mean - value)) / n;
        sum.cubes += influence ** 3;
        sum.squares += influence ** 2;
      }
    }
  }
  return new Map(
    [...sums].map(([name, { cubes, squares }]) => [name, squares === 0 ? 0 : cubes / (6 * squares ** 1.5)]),
  );
}

/** @param sorted the figure of each resample, ascending */
function bca(value: number, sorted: Float64Array, acceleration: number): { low: number; high: number } {
  let [below, equal] = [0, 0];
  for (const v of sorted) {
    if (v < value) below++;
    else if (v === value) equal++;
  }
  // Ties count half, so that a figure of few values has no bias by them.
  const share = (below + equal / 2) / sorted.length;
  const bias = normalQuantile(share);
  const end = (z: number): number => {
    if (!Number.isFinite(bias)) return bias < 0 ? 0 : 1;
    const moved = bias + z;
    return normalCdf(bias + moved / (1 - acceleration * moved));
  };
  const z = normalQuantile(ALPHA / 2);
  const [low, high] = [quantile(sorted, end(z)), quantile(sorted, end(-z))];
  return { low: Math.min(low, value), high: Math.max(high, value) };
}

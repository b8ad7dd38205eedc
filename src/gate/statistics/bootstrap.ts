// The clustered bootstrap with BCa intervals (Efron 1987): whole clusters are drawn, so that samples of one prompt, or
// prompts of one template, count together. Sums of clusters are made once; a resample only adds them.
import { normalCdf, normalQuantile } from './normal.js';
import type { Bounds } from './proportion.js';
import { stateOf } from './random.js';

/** Resamples that share a stream of random numbers: whoever computes blocks gets the same bits. */
const BLOCK = 256;

/** Clusters of one stratum: a column for each sum that the figure is made of. */
export interface Stratum {
  readonly clusters: number;
  readonly columns: readonly Float64Array[];
}
/**
 * The figure of the sums of all columns, stratum after stratum. It is asked of clusters less one too: what it divides
 * by is a column like any other, but in the mean of one stratum of one column, where a factor changes nothing.
 */
export type Figure = (sums: Float64Array) => number;

export interface Resampling {
  readonly resamples: number;
  readonly seed: number;
  /** What is drawn for; another purpose has other numbers. */
  readonly purpose: string;
  readonly signal?: AbortSignal | undefined;
}
export interface Bootstrap {
  readonly value: number;
  /** Ascending. */
  readonly drawn: Float64Array;
  readonly acceleration: number;
}

/**
 * Draws clusters, within each stratum as many as there are.
 * @param strata each with a cluster at least
 */
export function bootstrap(strata: readonly Stratum[], figure: Figure, options: Resampling): Bootstrap {
  const { resamples, seed, purpose, signal } = options;
  const sums = new Float64Array(strata.reduce((n, s) => n + s.columns.length, 0));
  totals(strata, sums);
  const value = figure(sums);
  const drawn = new Float64Array(resamples);
  const indices = new Int32Array(Math.max(...strata.map((s) => (s.columns.length > 1 ? s.clusters : 0))));
  for (let block = 0; block * BLOCK < resamples; block++) {
    signal?.throwIfAborted();
    const state = Int32Array.from(stateOf(seed, purpose, block));
    const end = Math.min(resamples, (block + 1) * BLOCK);
    for (let r = block * BLOCK; r < end; r++) {
      let at = 0;
      for (const { clusters, columns } of strata) {
        if (columns.length === 1) {
          sums[at++] = drawnSum(columns[0] as Float64Array, state);
          continue;
        }
        drawIndices(indices, clusters, state);
        for (const column of columns) sums[at++] = sumAt(column, indices, clusters);
      }
      drawn[r] = figure(sums);
    }
  }
  drawn.sort();
  return { value, drawn, acceleration: acceleration(strata, figure) };
}

// The two loops below have the steps of random.ts in line, with the number's sign bit turned: a signed one becomes a
// double in one instruction. Its product with clusters / 2³² is exact; an index is biased by less than that.

/** The sum of as many of a column as it has. */
function drawnSum(column: Float64Array, state: Int32Array): number {
  let [a, b, c, d] = state as unknown as [number, number, number, number];
  const clusters = column.length;
  const scale = clusters / 2 ** 32;
  const half = clusters / 2;
  // Two sums, so that an addition need not wait for the one before.
  let [even, odd] = [0, 0];
  for (let i = 1; i < clusters; i += 2) {
    let t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    even += column[(t * scale + half) | 0] as number;
    t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    odd += column[(t * scale + half) | 0] as number;
  }
  if (clusters % 2 === 1) {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    even += column[(t * scale + half) | 0] as number;
  }
  state[0] = a;
  state[1] = b;
  state[2] = c;
  state[3] = d;
  return even + odd;
}

/** The same draws, kept for several columns. */
function drawIndices(into: Int32Array, clusters: number, state: Int32Array): void {
  let [a, b, c, d] = state as unknown as [number, number, number, number];
  const scale = clusters / 2 ** 32;
  const half = clusters / 2;
  for (let i = 0; i < clusters; i++) {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    into[i] = (t * scale + half) | 0;
  }
  state[0] = a;
  state[1] = b;
  state[2] = c;
  state[3] = d;
}
function sumAt(column: Float64Array, indices: Int32Array, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += column[indices[i] as number] as number;
  return sum;
}

function totals(strata: readonly Stratum[], into: Float64Array): void {
  let at = 0;
  for (const { columns } of strata)
    for (const column of columns) {
      let sum = 0;
      for (let i = 0; i < column.length; i++) sum += column[i] as number;
      into[at++] = sum;
    }
}

/** A sixth of the skewness of the jackknife's influences, over all strata. */
function acceleration(strata: readonly Stratum[], figure: Figure): number {
  const sums = new Float64Array(strata.reduce((n, s) => n + s.columns.length, 0));
  totals(strata, sums);
  let [cubes, squares, at] = [0, 0, 0];
  for (const { clusters, columns } of strata) {
    if (clusters > 1) {
      const left = new Float64Array(clusters);
      let mean = 0;
      for (let i = 0; i < clusters; i++) {
        columns.forEach((column, k) => {
          sums[at + k] = (sums[at + k] as number) - (column[i] as number);
        });
        left[i] = figure(sums);
        mean += left[i] as number;
        columns.forEach((column, k) => {
          sums[at + k] = (sums[at + k] as number) + (column[i] as number);
        });
      }
      mean /= clusters;
      for (const value of left) {
        const influence = ((clusters - 1) * (mean - value)) / clusters;
        cubes += influence ** 3;
        squares += influence ** 2;
      }
    }
    at += columns.length;
  }
  return squares === 0 ? 0 : cubes / (6 * squares ** 1.5);
}

/** Linear between order statistics, as numpy has it. @param sorted ascending, not empty */
export function quantile(sorted: Float64Array, q: number): number {
  const at = Math.min(1, Math.max(0, q)) * (sorted.length - 1);
  const below = Math.floor(at);
  const a = sorted[below] as number;
  const b = sorted[Math.min(below + 1, sorted.length - 1)] as number;
  return a === b ? a : a + (b - a) * (at - below);
}

/**
 * The BCa interval: percentiles of the resamples, moved by their bias (ties count half) and acceleration.
 * @param level two-sided
 */
export function bca({ value, drawn, acceleration: a }: Bootstrap, level: number): Bounds {
  let [below, equal] = [0, 0];
  for (const v of drawn) {
    if (v < value) below++;
    else if (v === value) equal++;
    else break;
  }
  const bias = normalQuantile((below + equal / 2) / drawn.length);
  const z = normalQuantile((1 + level) / 2);
  const end = (side: number): number => {
    if (!Number.isFinite(bias)) return bias < 0 ? 0 : 1;
    // A level that rounds to 1 has all of them.
    if (!Number.isFinite(side)) return side < 0 ? 0 : 1;
    const moved = bias + side;
    const scale = 1 - a * moved;
    // Beyond the pole there is no percentile: the outermost one.
    if (scale <= 0) return side < 0 ? 0 : 1;
    return normalCdf(bias + moved / scale);
  };
  return { low: quantile(drawn, end(-z)), high: quantile(drawn, end(z)) };
}

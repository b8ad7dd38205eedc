// An upper bound of a mean where nothing is known of the values but how large one can be (Gaffke 2005): one observation
// more counts, as large as can be, and all are weighted by a flat Dirichlet distribution, of whose mean the bound is a
// quantile. Of zeros and ones it is Clopper and Pearson's; it never falls where a value rises.
import { normalCdf } from './normal.js';

/** 1 / √(2π). */
const DENSITY_AT_0 = 0.3989422804014327;

/** Clusters that are alike, and how many. */
interface Alike {
  readonly sum: number;
  readonly count: number;
  readonly times: number;
}
function alikeOf(sums: Float64Array, counts: Float64Array): readonly Alike[] {
  const byCount = new Map<number, Map<number, number>>();
  sums.forEach((sum, c) => {
    const count = counts[c] as number;
    const bySum = byCount.get(count) ?? new Map<number, number>();
    byCount.set(count, bySum.set(sum, (bySum.get(sum) ?? 0) + 1));
  });
  return [...byCount].flatMap(([count, bySum]) => [...bySum].map(([sum, times]) => ({ sum, count, times })));
}

/** A weighted sum of exponentials: of each so many as `times` says. */
interface Weighted {
  readonly values: Float64Array;
  readonly times: Float64Array;
}
/**
 * Upper bound of Σ sums / Σ counts of what clusters are drawn from.
 * @param sums   of the values of each cluster
 * @param counts values of each cluster, above 0; one that was not seen has as many as the largest
 * @param most   greatest value
 * @param alpha  one-sided, below 1/3
 */
export function meanBound(sums: Float64Array, counts: Float64Array, most: number, alpha: number): number {
  const alike = alikeOf(sums, counts);
  let [sum, count, size] = [0, 0, 0];
  for (const a of alike) {
    sum += a.sum * a.times;
    count += a.count * a.times;
    size = Math.max(size, a.count);
  }
  // Distances from a mean in units of the greatest one, which is that of the cluster that was not seen.
  const away: Weighted = {
    values: new Float64Array(alike.length + 1).fill(1),
    times: new Float64Array(alike.length + 1),
  };
  away.times.set([...alike.map((a) => a.times), 1]);
  let from = 0.5;
  const tail = (mean: number): number => {
    const unit = size * (most - mean);
    alike.forEach((a, i) => {
      away.values[i] = (a.sum - mean * a.count) / unit;
    });
    const { chance, at } = chanceAbove(away, from);
    from = at;
    return chance;
  };
  let [low, high] = [(sum + size * most) / (count + size), most];
  const near = 1e-12 * (high - low);
  while (high - low > near) {
    const middle = (low + high) / 2;
    if (!(middle > low && middle < high)) break;
    if (tail(middle) > alpha) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * P(Σ Eᵢ aᵢ > 0), Eᵢ exponential of mean 1, by Lugannani and Rice's saddle point (1980): within a fiftieth of it, and
 * above it where one value weighs most.
 * @param a    with a sum below 0, the last one 1 and none above it
 * @param from where the saddle may be
 */
function chanceAbove(a: Weighted, from: number): { readonly chance: number; readonly at: number } {
  const { at, slope } = saddle(a, from);
  let cumulant = 0;
  for (let i = 0; i < a.values.length; i++)
    cumulant -= (a.times[i] as number) * Math.log1p(-at * (a.values[i] as number));
  const w = Math.sqrt(Math.max(0, -2 * cumulant));
  const u = at * Math.sqrt(slope);
  // At the mean itself, where both vanish; no alpha is as large.
  if (w < 1e-4) return { chance: 0.5, at };
  return { chance: normalCdf(-w) + DENSITY_AT_0 * Math.exp(-0.5 * w * w) * (1 / u - 1 / w), at };
}
/** Where the derivative of −Σ log(1 − s·aᵢ) is 0, 0 < s < 1, and its slope there: Newton's steps inside a bracket. */
function saddle({ values, times }: Weighted, from: number): { readonly at: number; readonly slope: number } {
  let [low, high, at] = [0, 1, from];
  for (let step = 0; ; step++) {
    let [derivative, slope] = [0, 0];
    for (let i = 0; i < values.length; i++) {
      const q = (values[i] as number) / (1 - at * (values[i] as number));
      const part = (times[i] as number) * q;
      derivative += part;
      slope += part * q;
    }
    if (derivative < 0) low = at;
    else high = at;
    let next = at - derivative / slope;
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (Math.abs(next - at) <= 1e-13 || step === 100) return { at, slope };
    at = next;
  }
}

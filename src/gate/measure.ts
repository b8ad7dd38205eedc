// Figures and intervals of one table: which method counts for it, and what it gives.
import type { Interval } from './decision.js';
import { bca, bootstrap, type Figure, type Stratum } from './statistics/bootstrap.js';
import { meanBound } from './statistics/bounded-mean.js';
import { normalCdf } from './statistics/normal.js';
import { mcnemar, tango } from './statistics/paired.js';
import { type Bounds, clopperPearson, midP } from './statistics/proportion.js';
import { studentQuantile } from './statistics/student.js';
import type { DecisionParameters, Metric } from './suite.js';
import { endsOf, type Filled, signOf, type Table } from './table.js';

/** Below so many clusters that differ, a bootstrap has seen too little: its bound is mixed with Tango's. */
export const FEW = 20;

export interface Measured {
  readonly base: number | null;
  readonly adapter: number;
  readonly difference: number | null;
  readonly interval: Interval;
  /**
   * Upper bound of how much worse the adapter is, which is held against the margin: the interval's, and at least that
   * of a prompt which was not seen and got as much worse as can be, or, of numbers that may be anything, as the worst
   * one did (docs/gate.md).
   */
  readonly bound: number | null;
  /** Lower bound of how much worse it is. */
  readonly least: number | null;
  readonly adapterInterval: Interval;
  /** Of the adapter's own figure, held against cap and floor: the interval or wider; null: not asked, or not known. */
  readonly adapterBounds: Bounds | null;
  /** Beside an exact one: how far the rate may be off on the average, for readers. */
  readonly adapterMidP: Interval;
  readonly pValue: number | null;
  /** Variance of a cluster's difference, and whether the score test is what tests it. */
  readonly variance: number | null;
  readonly score: boolean;
  /** How much worse a cluster that was not seen may be, in units of the mean cluster's; null: not known. */
  readonly unseen: number | null;
}

export interface MeasureOptions {
  readonly metric: Metric;
  readonly parameters: DecisionParameters;
  readonly paired: boolean;
  /** Whether the adapter's own interval is asked for. */
  readonly own: boolean;
  /** What the random numbers are for. */
  readonly purpose: string;
  readonly signal?: AbortSignal | undefined;
  /** One-sided level of `least` alone; absent: alpha. */
  readonly leastAlpha?: number;
}

/** Sums of clusters. */
interface Sums {
  readonly base: Float64Array;
  readonly adapter: Float64Array;
  readonly count: Float64Array;
}
function clusterSums(table: Table, filled: Filled, only: number | null): Sums {
  const numbers = new Map<number, number>();
  for (let u = 0; u < table.units; u++)
    if ((only === null || table.truth[u] === only) && (table.pairs[u] as number) > 0) {
      const c = table.cluster[u] as number;
      if (!numbers.has(c)) numbers.set(c, numbers.size);
    }
  const sums = [0, 1, 2].map(() => new Float64Array(numbers.size)) as [Float64Array, Float64Array, Float64Array];
  const [base, adapter, count] = sums;
  for (let u = 0; u < table.units; u++) {
    const c = numbers.get(table.cluster[u] as number);
    if (c === undefined || (only !== null && table.truth[u] !== only)) continue;
    (base[c] as number) += filled.base[u] as number;
    (adapter[c] as number) += filled.adapter[u] as number;
    (count[c] as number) += table.pairs[u] as number;
  }
  return { base, adapter, count };
}
const total = (values: Float64Array): number => {
  let sum = 0;
  for (const v of values) sum += v;
  return sum;
};
/** Clusters of one size that would say as much of a mean over pairs as these of several sizes (Kish 1965). */
function effective(count: Float64Array): number {
  const pairs = total(count);
  return count.every((m) => m === count[0]) ? count.length : pairs ** 2 / total(count.map((m) => m * m));
}

/** @param filled missing values as they are to count · @returns null: there is nothing to measure */
export function measure(table: Table, filled: Filled, options: MeasureOptions): Measured | null {
  if (table.n === 0) return null;
  return options.metric.statistic === 'gmean2'
    ? measureProduct(table, filled, options)
    : measureMean(table, filled, options);
}

function measureMean(table: Table, filled: Filled, options: MeasureOptions): Measured {
  const { metric, parameters, paired, own } = options;
  const level = 1 - 2 * parameters.alpha;
  const sums = clusterSums(table, filled, null);
  const adapter = total(sums.adapter) / table.n;
  const ownIntervals = own ? intervalsOf(sums, adapter, level, options) : NO_INTERVALS;
  const alone = { adapter, ...ownIntervals, pValue: null, variance: null, score: false, unseen: null };
  if (!paired) return { ...alone, base: null, difference: null, interval: null, bound: null, least: null };
  const base = total(sums.base) / table.n;
  const both = { ...alone, base, difference: adapter - base };
  const clusters = sums.count.length;
  const sign = signOf(metric);
  if (metric.values === 'rate' && table.n === clusters) {
    const { worse, better } = filled;
    const { low, high } = tango(worse, better, clusters, level);
    const strict =
      options.leastAlpha === undefined ? low : tango(worse, better, clusters, 1 - 2 * options.leastAlpha).low;
    return {
      ...both,
      interval: turned('tango', level, low, high, sign),
      bound: Math.min(
        1,
        Math.max(
          high,
          tango(worse + 0.5, better, clusters + 0.5, level).high,
          meanBound(worseBy(sums, sign), sums.count, 1, parameters.alpha),
        ),
      ),
      least: strict,
      pValue: mcnemar(worse, better).midP,
      variance: (worse + better + 1) / (clusters + 2),
      score: true,
    };
  }
  return { ...both, ...clustered(sums, options) };
}

/** How much worse each cluster is. */
const worseBy = ({ base, adapter }: Sums, sign: 1 | -1): Float64Array =>
  adapter.map((a, c) => sign * (a - (base[c] as number)));

/** Of a mean of n that were never seen to differ: as if two more were there, one of which does. */
const unseenVariance = (n: number): number => 1 / (n + 2) / n;

/** An interval of how much worse, as one of adapter − base. */
const turned = (
  method: NonNullable<Interval>['method'],
  level: number,
  low: number,
  high: number,
  sign: 1 | -1,
): Interval => (sign === 1 ? { method, level, low, high } : { method, level, low: -high, high: -low });

/** Difference of clusters by the bootstrap, where few of them differ mixed with Tango's interval. */
function clustered(
  sums: Sums,
  options: MeasureOptions,
): Pick<Measured, 'interval' | 'bound' | 'least' | 'variance' | 'score' | 'unseen'> {
  const { count } = sums;
  const { metric, parameters } = options;
  const level = 1 - 2 * parameters.alpha;
  const sign = signOf(metric);
  const clusters = count.length;
  const alike = effective(count);
  const worse = worseBy(sums, sign);
  const pairs = total(count);
  const found = total(worse) / pairs;
  const equal = count.every((m) => m === count[0]);
  const figure: Figure = equal ? ([s]) => (s as number) / pairs : ([s, m]) => (s as number) / (m as number);
  const strata: Stratum[] = [{ clusters, columns: equal ? [worse] : [worse, count] }];
  const drawn = bootstrap(strata, figure, { ...parameters, purpose: options.purpose, signal: options.signal });

  const mean = pairs / clusters;
  let [squares, largest, worst] = [0, 0, found];
  for (let c = 0; c < clusters; c++) {
    squares += ((worse[c] as number) - found * (count[c] as number)) ** 2;
    largest = Math.max(largest, count[c] as number);
    worst = Math.max(worst, (worse[c] as number) / (count[c] as number));
  }
  const ends = endsOf(metric);
  const width = ends === null ? null : Math.abs(ends[1] - ends[0]);
  // Of what never differed the next one might, as with one sample.
  const unseen = metric.values === 'rate' ? unseenVariance(alike) * clusters : 0;
  const variance = squares / Math.max(1, clusters - 1) / mean ** 2 + unseen;

  // Shares of clusters that got worse and better: no differences with these sums spread more than whole ones.
  const sides = { up: 0, down: 0, differ: 0 };
  for (let c = 0; c < clusters; c++) {
    const d = (worse[c] as number) / mean / (width ?? 1);
    if (d > 0) sides.up += d;
    else sides.down -= d;
    if (d !== 0) sides.differ++;
  }
  const share = width === null ? 0 : Math.max(0, 1 - Math.min(sides.differ, alike) / FEW);
  const scale = alike / clusters;
  const at = (l: number): { low: number; high: number } => {
    const b = bca(drawn, l);
    if (share === 0) return b;
    const t = tango(Math.min(sides.up, clusters) * scale, Math.min(sides.down, clusters) * scale, alike, l);
    const mix = (x: number, y: number): number => share * y * (width as number) + (1 - share) * x;
    return { low: mix(b.low, t.low), high: mix(b.high, t.high) };
  };
  const { low, high } = at(level);
  const least = options.leastAlpha === undefined ? low : at(1 - 2 * options.leastAlpha).low;
  return {
    interval: turned(share > 0 ? 'bca+tango' : 'bca', level, low, high, sign),
    bound: Math.max(
      high,
      found,
      width === null
        ? seenBound({ found, worst, alike, level }, (l) => at(l).high)
        : meanBound(worse, count, width, parameters.alpha),
    ),
    least: Math.min(least, found),
    variance,
    score: false,
    unseen: width === null ? null : (largest / mean) * width,
  };
}

/** Of so many clusters one more counts as unseen, beside the one that counts of any number. */
const UNSEEN_OF = 60;
/**
 * Of numbers without a range nothing is known but what was seen. Of few the spread is known badly, so the bootstrap's
 * percentile is that of Student's distribution (Hesterberg 2015). Rows that got much worse may not have been seen: one
 * cluster more counts that did as the worst one, and more where there are few.
 */
function seenBound(
  { found, worst, alike, level }: { found: number; worst: number; alike: number; level: number },
  percentile: (level: number) => number,
): number {
  if (alike <= 1) return found;
  const t = studentQuantile((1 + level) / 2, alike - 1);
  const wider = 1 - 2 * normalCdf(-t * Math.sqrt(alike / (alike - 1)));
  const unseen = 1 + UNSEEN_OF / alike;
  return percentile(wider) + ((worst - found) * unseen) / (alike + unseen);
}

type OwnIntervals = Pick<Measured, 'adapterInterval' | 'adapterBounds' | 'adapterMidP'>;
const NO_INTERVALS: OwnIntervals = { adapterInterval: null, adapterBounds: null, adapterMidP: null };
/** Of the adapter's figure alone. */
function intervalsOf(sums: Sums, value: number, level: number, options: MeasureOptions): OwnIntervals {
  const { adapter, count } = sums;
  const clusters = count.length;
  if (options.metric.values === 'rate') {
    const n = effective(count);
    const exact = clopperPearson(value * n, n, level);
    return {
      adapterInterval: { method: 'clopper-pearson', level, ...exact },
      adapterBounds: rateBounds(sums, level),
      adapterMidP: { method: 'mid-p', level, ...midP(value * n, n, level) },
    };
  }
  const purpose = `${options.purpose}/adapter`;
  const drawn = bootstrap([{ clusters, columns: [adapter, count] }], ([s, m]) => (s as number) / (m as number), {
    ...options.parameters,
    purpose,
    signal: options.signal,
  });
  const shown = bca(drawn, level);
  const { range } = options.metric;
  const held = range ? meanBounds(sums, range, (1 - level) / 2) : seenBounds(sums, value, level, (l) => bca(drawn, l));
  return {
    adapterInterval: { method: 'bca', level, ...shown },
    adapterBounds: { low: Math.min(shown.low, held.low), high: Math.max(shown.high, held.high) },
    adapterMidP: null,
  };
}
/** Both bounds of the adapter's mean. @param alpha of each */
function meanBounds(
  { adapter, count }: Omit<Sums, 'base'>,
  [least, most]: readonly [number, number],
  alpha: number,
): Bounds {
  const turnedOver = adapter.map((a) => -a);
  return { low: -meanBound(turnedOver, count, -least, alpha), high: meanBound(adapter, count, most, alpha) };
}
/** The same of numbers without a range. */
function seenBounds(
  { adapter, count }: Omit<Sums, 'base'>,
  value: number,
  level: number,
  percentiles: (level: number) => Bounds,
): Bounds {
  const alike = effective(count);
  let [least, most] = [value, value];
  adapter.forEach((sum, c) => {
    const own = sum / (count[c] as number);
    least = Math.min(least, own);
    most = Math.max(most, own);
  });
  const lowest = seenBound({ found: -value, worst: -least, alike, level }, (l) => -percentiles(l).low);
  return { low: -lowest, high: seenBound({ found: value, worst: most, alike, level }, (l) => percentiles(l).high) };
}
/**
 * Of the adapter's rate. A cluster is one observation, however many samples it has: they may all be alike. Where
 * clusters differ in size, one that was not seen counts as the largest.
 */
function rateBounds(sums: Sums, level: number): Bounds {
  const { adapter, count } = sums;
  const n = effective(count);
  const exact = clopperPearson((total(adapter) / total(count)) * n, n, level);
  if (n === count.length) return exact;
  const held = meanBounds(sums, [0, 1], (1 - level) / 2);
  return { low: Math.min(exact.low, held.low), high: Math.max(exact.high, held.high) };
}

/** Sensitivity times specificity: texts with and without what a monitor should flag are drawn apart. */
function measureProduct(table: Table, filled: Filled, options: MeasureOptions): Measured | null {
  const { parameters, paired, own } = options;
  const level = 1 - 2 * parameters.alpha;
  const strata = [1, 0].map((truth) => clusterSums(table, filled, truth)) as [Sums, Sums];
  if (strata.some((s) => s.count.length === 0)) return null;
  const rate = (of: 'base' | 'adapter'): number =>
    strata.reduce((product, s) => (product * total(s[of])) / total(s.count), 1);
  const adapter = rate('adapter');
  const adapterBounds = own ? productInterval(strata, level) : null;
  const adapterInterval: Interval = adapterBounds && { ...adapterBounds, method: 'clopper-pearson', level };
  const ownIntervals = { adapterInterval, adapterBounds, adapterMidP: null };
  const alone = { adapter, ...ownIntervals, pValue: null, variance: null, score: false, unseen: null };
  if (!paired) return { ...alone, base: null, difference: null, interval: null, bound: null, least: null };
  const base = rate('base');
  // base right, adapter right, count of both strata
  const figure: Figure = ([b1, a1, n1, b0, a0, n0]) =>
    ((b1 as number) * (b0 as number) - (a1 as number) * (a0 as number)) / ((n1 as number) * (n0 as number));
  const columns = strata.map((s): Stratum => ({ clusters: s.count.length, columns: [s.base, s.adapter, s.count] }));
  const drawn = bootstrap(columns, figure, { ...parameters, purpose: options.purpose, signal: options.signal });
  const found = base - adapter;
  const differ = strata.map((s) => s.base.reduce((n, b, c) => n + (b === s.adapter[c] ? 0 : 1), 0));
  const alike = strata.map((s) => effective(s.count));
  const share = Math.max(0, 1 - Math.min(...differ, ...alike) / (FEW / 2));
  const unseen = alike.reduce((sum, n) => sum + unseenVariance(n), 0);
  const at = (l: number): { low: number; high: number } => {
    const b = bca(drawn, l);
    if (share === 0) return b;
    const t = productDifference(strata, found, l);
    const mix = (x: number, y: number): number => share * y + (1 - share) * x;
    return { low: mix(b.low, t.low), high: mix(b.high, t.high) };
  };
  const { low, high } = at(level);
  let variance = 0;
  for (const v of drawn.drawn) variance += (v - found) ** 2;
  return {
    ...alone,
    base,
    difference: adapter - base,
    interval: turned(share > 0 ? 'bca+tango' : 'bca', level, low, high, -1),
    bound: Math.max(high, found, productBound(strata, found, parameters.alpha)),
    least: Math.min(options.leastAlpha === undefined ? low : at(1 - 2 * options.leastAlpha).low, found),
    variance: (variance / drawn.drawn.length + unseen) * table.clusters,
    unseen: Math.hypot(...alike.map((n) => table.clusters / n)),
  };
}
/** How far each factor may have fallen, by its bound; added in squares. */
function productBound(strata: readonly [Sums, Sums], found: number, alpha: number): number {
  const above = strata.map((s) => {
    const worse = worseBy(s, -1);
    return meanBound(worse, s.count, 1, alpha) - total(worse) / total(s.count);
  });
  // A factor moves the product by at most as much as it moves itself.
  return Math.min(1, found + Math.hypot(...above));
}
/** Both factors at their bounds, each with half of alpha. */
function productInterval(strata: readonly [Sums, Sums], level: number): Bounds {
  const bounds = strata.map((s) => rateBounds(s, (1 + level) / 2));
  return {
    low: bounds.reduce((product, b) => product * b.low, 1),
    high: bounds.reduce((product, b) => product * b.high, 1),
  };
}
/** By Tango's intervals of both factors, added in squares. */
function productDifference(strata: readonly [Sums, Sums], found: number, level: number): { low: number; high: number } {
  const parts = strata.map((s) => {
    const n = effective(s.count);
    const pairs = total(s.count);
    let [up, down] = [0, 0];
    for (let c = 0; c < s.count.length; c++) {
      const d = ((s.base[c] as number) - (s.adapter[c] as number)) / pairs;
      if (d > 0) up += d;
      else down -= d;
    }
    const { low, high } = tango(up * n, down * n, n, level);
    const at = up - down;
    return { below: at - low, above: high - at };
  });
  const squares = (of: 'below' | 'above'): number => Math.hypot(...parts.map((p) => p[of]));
  return { low: Math.max(-1, found - squares('below')), high: Math.min(1, found + squares('above')) };
}

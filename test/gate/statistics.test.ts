// The gate's statistics against scipy (test/golden/gate/make.py), at their ends, and by a small simulation.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { betaCdf, betaQuantile, binomialCdf, binomialPmf, binomialQuantile } from '../../src/gate/statistics/beta.js';
import { bca, bootstrap, quantile } from '../../src/gate/statistics/bootstrap.js';
import { meanBound } from '../../src/gate/statistics/bounded-mean.js';
import { normalCdf, normalQuantile } from '../../src/gate/statistics/normal.js';
import { mcnemar, tango } from '../../src/gate/statistics/paired.js';
import { powerOf, promptsFor, promptsForCap, smallestMargin } from '../../src/gate/statistics/power.js';
import { clopperPearson, midP, wilson } from '../../src/gate/statistics/proportion.js';
import { generator, stateOf } from '../../src/gate/statistics/random.js';
import { correctDifference, correctedRate, correctRate, youdenBound } from '../../src/gate/statistics/rogan-gladen.js';
import { studentQuantile } from '../../src/gate/statistics/student.js';

type Row = readonly number[];
interface Golden {
  readonly student: readonly Row[];
  readonly normalQuantile: readonly Row[];
  readonly normalCdf: readonly Row[];
  readonly betaQuantile: readonly Row[];
  readonly betaCdf: readonly Row[];
  readonly binomial: readonly Row[];
  readonly rates: readonly Row[];
  readonly pairs: readonly Row[];
  readonly bootstrap: readonly {
    readonly name: string;
    readonly columns: readonly Row[];
    readonly level: number;
    readonly low: number;
    readonly high: number;
  }[];
  readonly boundedMean: readonly {
    readonly columns: readonly [Row, Row];
    readonly most: number;
    /** alpha, bound */
    readonly bounds: readonly (readonly [number, number])[];
  }[];
  readonly corrected: readonly Row[];
  readonly correctedApart: readonly Row[];
  readonly correctedRate: readonly Row[];
  readonly power: readonly Row[];
  readonly resamples: number;
  readonly seed: number;
}
const golden = JSON.parse(
  readFileSync(join(packageRoot, 'test', 'golden', 'gate', 'statistics.json'), 'utf8'),
) as Golden;
/** Within 1e-12 of the value, relative where it is small. */
function near(got: number, wanted: number, tolerance = 1e-12): void {
  const off = Math.abs(got - wanted) / Math.max(Math.abs(wanted), 1e-300);
  expect(Math.min(off, Math.abs(got - wanted) / Math.max(1, Math.abs(wanted))), `${got} for ${wanted}`).toBeLessThan(
    tolerance,
  );
}
type Tuple = [number, number, number, number, number, number, number, number, number, number, number, number, number];
const each = (rows: readonly Row[], count: number, check: (...row: Tuple) => void): void => {
  expect(rows).toHaveLength(count);
  for (const row of rows) check(...(row as Tuple));
};

it('quantiles and chances', () => {
  each(golden.normalQuantile, 14, (p, x) => near(normalQuantile(p), x));
  each(golden.student, 30, (p, df, t) => expect(Math.abs(studentQuantile(p, df) / t - 1)).toBeLessThan(1e-9));
  each(golden.normalCdf, 12, (x, p) => expect(Math.abs(normalCdf(x) / p - 1)).toBeLessThan(1e-12));
  each(golden.betaQuantile, 70, (p, a, b, x) => expect(Math.abs(betaQuantile(p, a, b) / x - 1)).toBeLessThan(1e-11));
  each(golden.betaCdf, 50, (x, a, b, p) => near(betaCdf(x, a, b), p, 1e-11));
  each(golden.binomial, 7, (k, n, p, pmf, cdf, at) => {
    near(binomialPmf(k, n, p), pmf);
    near(binomialCdf(k, n, p), cdf);
    expect(binomialQuantile(0.9, n, p)).toBe(at);
  });
  expect([normalQuantile(0), normalQuantile(1), normalCdf(-40), normalCdf(40)]).toEqual([-Infinity, Infinity, 0, 1]);
  expect([normalQuantile(-1), normalQuantile(2), normalQuantile(Number.NaN)]).toEqual([
    Number.NaN,
    Number.NaN,
    Number.NaN,
  ]);
  expect([betaCdf(0, 2, 3), betaCdf(1, 2, 3), betaQuantile(0, 2, 3), betaQuantile(1, 2, 3)]).toEqual([0, 1, 0, 1]);
  expect([binomialCdf(-1, 5, 0.5), binomialCdf(5, 5, 0.5), binomialCdf(0, 5, 0), binomialCdf(4, 5, 1)]).toEqual([
    0, 1, 1, 0,
  ]);
  expect([binomialPmf(-1, 5, 0.5), binomialPmf(0, 5, 0), binomialPmf(5, 5, 1)]).toEqual([0, 1, 1]);
});

it('intervals of one rate', () => {
  each(golden.rates, 20, (k, n, level, low, high, scoreLow, scoreHigh, midLow, midHigh) => {
    const exact = clopperPearson(k, n, level);
    near(exact.low, low);
    near(exact.high, high);
    const score = wilson(k, n, level);
    near(score.low, scoreLow, 1e-9);
    near(score.high, scoreHigh, 1e-9);
    const middle = midP(k, n, level);
    near(middle.low, midLow, 1e-11);
    near(middle.high, midHigh, 1e-11);
  });
  // Zero of n: what the rule of three is about.
  for (const [n, high] of [
    [100, 0.0295],
    [300, 0.0099],
    [1000, 0.003],
  ] as const)
    expect(clopperPearson(0, n, 0.9).high).toBeCloseTo(high, 4);
  // Between two counts lies between their bounds.
  const [a, b, c] = [1, 1.5, 2].map((x) => clopperPearson(x, 50, 0.9).high) as [number, number, number];
  expect(a < b && b < c).toBe(true);
});

it('the exact interval of a rate holds the truth at every rate, the mid-p one on the average', () => {
  // All counts added up.
  for (const n of [100, 300]) {
    const counts = Array.from({ length: n + 1 }, (_, x) => x);
    const [exact, middle] = [clopperPearson, midP].map((interval) => counts.map((x) => interval(x, n, 0.95)));
    const held = { least: 1, exact: 0, middle: 0 };
    const rates = Array.from({ length: 100 }, (_, i) => 0.005 * (i + 1));
    for (const p of rates) {
      const chance = (of: typeof exact): number =>
        counts.reduce((sum, x) => {
          const { low, high } = (of as NonNullable<typeof of>)[x] as { low: number; high: number };
          return low <= p && p <= high ? sum + binomialPmf(x, n, p) : sum;
        }, 0);
      held.least = Math.min(held.least, chance(exact));
      held.exact += chance(exact) / rates.length;
      held.middle += chance(middle) / rates.length;
    }
    expect(held.least).toBeGreaterThanOrEqual(0.95);
    expect(held.exact).toBeGreaterThan(0.955);
    expect(held.middle).toBeGreaterThan(0.95);
    expect(held.middle).toBeLessThan(0.953);
  }
});

it('says what it can where there is nothing, or one', () => {
  for (const interval of [clopperPearson, midP, wilson]) expect(interval(0, 0, 0.9)).toEqual({ low: 0, high: 1 });
  expect(tango(0, 0, 0, 0.9)).toEqual({ low: -1, high: 1 });
  expect(mcnemar(0, 0)).toEqual({ exact: 1, midP: 1 });
  // One prompt says next to nothing, and nothing is known better than its own bounds.
  for (const interval of [clopperPearson, midP]) {
    expect([interval(0, 1, 0.9).low, interval(1, 1, 0.9).high]).toEqual([0, 1]);
    near(interval(0, 1, 0.9).high, 1 - interval(1, 1, 0.9).low);
    expect(interval(0, 1, 0.9).high).toBeGreaterThan(0.89);
  }
  expect(tango(0, 0, 1, 0.9).high).toBeGreaterThan(0.7);
  expect([
    powerOf(1, { margin: 0.03, discordance: 0.5, alpha: 0.05, score: true }) < 0.02,
    promptsForCap(1, 0.05),
  ]).toEqual([true, 1]);
});

it('intervals and tests of pairs', () => {
  each(golden.pairs, 60, (up, down, n, level, low, high, exact, midP) => {
    const got = tango(up, down, n, level);
    near(got.low, low, 1e-9);
    near(got.high, high, 1e-9);
    const p = mcnemar(up, down);
    near(p.exact, exact);
    near(p.midP, midP);
  });
  // Turned round, the bounds change places.
  const [one, other] = [tango(9, 2, 60, 0.9), tango(2, 9, 60, 0.9)];
  near(other.low, -one.high);
  near(other.high, -one.low);
  // Nothing differs: z²/(n + z²).
  const z = normalQuantile(0.95);
  near(tango(0, 0, 50, 0.9).high, (z * z) / (50 + z * z));
  expect(tango(7, 0, 7, 0.9).high).toBe(1);
  expect(tango(0, 7, 7, 0.9).low).toBe(-1);
});

it('a pair that gets worse never lowers the bound', () => {
  let steps = 0;
  for (const n of [1, 2, 5, 30, 200])
    for (let up = 0; up <= Math.min(n, 12); up++)
      for (let down = 0; down <= Math.min(n - up, 12); down++) {
        const bound = tango(up, down, n, 0.9).high;
        if (up + down < n) expect(tango(up + 1, down, n, 0.9).high).toBeGreaterThanOrEqual(bound);
        if (down > 0) expect(tango(up, down - 1, n, 0.9).high).toBeGreaterThanOrEqual(bound - 1e-12);
        steps++;
      }
  expect(steps).toBeGreaterThan(300);
});

it('BCa of clusters, on the draws that scipy.stats.bootstrap was given', () => {
  const { resamples, seed } = golden;
  expect(golden.bootstrap.map((c) => c.name)).toEqual(['lognormal', 'ties', 'rare', 'two', 'families', 'product']);
  for (const { name, columns, level, low, high } of golden.bootstrap) {
    const arrays = columns.map((c) => Float64Array.from(c));
    const ones = arrays.map((a) => new Float64Array(a.length).fill(1));
    const strata =
      name === 'families'
        ? [{ clusters: (arrays[0] as Float64Array).length, columns: arrays }]
        : arrays.map((a, i) => ({ clusters: a.length, columns: [a, ones[i] as Float64Array] }));
    // A mean for each pair of columns; their product.
    const figure = (s: Float64Array): number => {
      let product = 1;
      for (let i = 0; i < s.length; i += 2) product *= (s[i] as number) / (s[i + 1] as number);
      return product;
    };
    const got = bca(bootstrap(strata, figure, { resamples, seed, purpose: name }), level);
    near(got.low, low, 1e-9);
    near(got.high, high, 1e-9);
  }
});

it('BCa of a level that rounds to 1 is all that was drawn, and a distribution of no number is none', () => {
  const drawn = bootstrap([{ clusters: 2, columns: [Float64Array.of(0.1, 0.3)] }], (s) => (s[0] as number) / 2, {
    resamples: 100,
    seed: 1,
    purpose: 'two',
  });
  expect(drawn.acceleration).toBeCloseTo(0, 12);
  expect(bca(drawn, 1)).toEqual({ low: drawn.drawn[0], high: drawn.drawn.at(-1) });
  expect(normalCdf(Number.NaN)).toBeNaN();
});
it('BCa of what never differs is that', () => {
  const same = [{ clusters: 5, columns: [new Float64Array(5).fill(0.25)] }];
  const figure = (s: Float64Array): number => (s[0] as number) / 5;
  const one = bootstrap(same, figure, { resamples: 1000, seed: 1, purpose: 'x' });
  expect(one.acceleration).toBe(0);
  expect(bca(one, 0.9)).toEqual({ low: 0.25, high: 0.25 });
  const single = [{ clusters: 1, columns: [Float64Array.of(3)] }];
  expect(
    bca(
      bootstrap(single, (s) => s[0] as number, { resamples: 1000, seed: 1, purpose: 'x' }),
      0.9,
    ),
  ).toEqual({
    low: 3,
    high: 3,
  });
  expect(quantile(Float64Array.of(1, 2, 4), 0.75)).toBe(3);
  const stop = AbortSignal.abort(new Error('stopped'));
  expect(() => bootstrap(same, figure, { resamples: 10, seed: 1, purpose: 'x', signal: stop })).toThrow('stopped');
});

it('the same purpose draws the same numbers, another one others', () => {
  const first = (...of: (string | number)[]): number[] => Array.from({ length: 4 }, generator(stateOf(...of)));
  expect(first(1, 'a', 0)).toEqual(first(1, 'a', 0));
  expect(first(1, 'a', 0)).not.toEqual(first(1, 'a', 1));
  const draw = generator(stateOf(3, 'evenly', 0));
  const counts = new Int32Array(10);
  for (let i = 0; i < 100_000; i++) {
    const bin = Math.floor((draw() / 2 ** 32) * 10);
    counts[bin] = (counts[bin] as number) + 1;
  }
  const chi = counts.reduce((sum, n) => sum + (n - 10_000) ** 2 / 10_000, 0);
  expect(chi).toBeLessThan(27.9); // 0.1 % of 9 degrees of freedom
});

it('rates without the judge’s errors', () => {
  each(golden.corrected, 18, (level, base, adapter, n, low, high, positives, caught, negatives, passed, d, lo, hi) => {
    const counts = { positives, caught, negatives, passed };
    const got = correctDifference({ base, adapter, n, low, high }, { both: counts }, level);
    near(got.value, d);
    near(got.low, lo, 1e-9);
    near(got.high, hi, 1e-9);
    // Calibrated on each arm by itself there is more that may be off.
    const apart = correctDifference({ base, adapter, n, low, high }, { base: counts, adapter: counts }, level);
    near(apart.value, d);
    if (!apart.clipped) expect(apart.high - apart.low).toBeGreaterThanOrEqual(got.high - got.low);
  });
  expect(golden.correctedApart).toHaveLength(18);
  for (const [level, base, adapter, n, low, high, ...of] of golden.correctedApart as [...Tuple][]) {
    const [p0, c0, n0, k0, p1, c1, n1, k1, d, lo, hi] = of as unknown as [...Tuple];
    const counts = {
      base: { positives: p0, caught: c0, negatives: n0, passed: k0 },
      adapter: { positives: p1, caught: c1, negatives: n1, passed: k1 },
    };
    const got = correctDifference({ base, adapter, n, low, high }, counts, level);
    near(got.value, d, 1e-9);
    near(got.low, lo, 1e-9);
    near(got.high, hi, 1e-9);
  }
  each(golden.correctedRate, 18, (level, value, low, high, positives, caught, negatives, passed, r, lo, hi) => {
    const counts = { positives, caught, negatives, passed };
    const got = correctRate({ value, low, high }, counts, level);
    near(got.value, r);
    near(got.low, lo, 1e-9);
    near(got.high, hi, 1e-9);
    near(correctedRate(value, counts), r);
  });
  const perfect = { positives: 1e9, caught: 1e9, negatives: 1e9, passed: 1e9 };
  const as = correctRate({ value: 0.1, low: 0.05, high: 0.2 }, perfect, 0.9);
  for (const [got, wanted] of [
    [as.value, 0.1],
    [as.low, 0.05],
    [as.high, 0.2],
  ] as const)
    near(got, wanted, 1e-6);
  // A rate below the false alarms is 0, and says that it was put there.
  const few = correctRate(
    { value: 0.02, low: 0.01, high: 0.04 },
    { positives: 90, caught: 80, negatives: 90, passed: 80 },
    0.9,
  );
  expect([few.value, few.low, few.clipped, few.impossible]).toEqual([0, 0, true, true]);
  expect(youdenBound({ positives: 20, caught: 10, negatives: 20, passed: 10 }, 0.9)).toBeLessThan(0);
  expect(youdenBound({ positives: 200, caught: 190, negatives: 200, passed: 190 }, 0.9)).toBeGreaterThan(0.8);
});

it('the bound of a mean whose values are known to be no larger than so much', () => {
  expect(golden.boundedMean).toHaveLength(15);
  for (const { columns, most, bounds } of golden.boundedMean) {
    const [sums, counts] = columns.map((c) => Float64Array.from(c)) as [Float64Array, Float64Array];
    const mean = sums.reduce((a, b) => a + b) / counts.reduce((a, b) => a + b);
    for (const [alpha, exact] of bounds) {
      const off = (meanBound(sums, counts, most, alpha) - exact) / (exact - mean);
      expect(Math.abs(off), `${sums.length} clusters, alpha ${alpha}`).toBeLessThan(alpha > 0.05 ? 0.02 : 0.006);
    }
  }
  const ones = (n: number): Float64Array => new Float64Array(n).fill(1);
  // Of zeros and ones it is Clopper and Pearson's.
  for (const [x, n] of [
    [0, 40],
    [0, 1000],
    [3, 40],
    [90, 200],
    [199, 200],
  ] as const) {
    const bound = meanBound(
      Float64Array.from({ length: n }, (_, i) => Number(i < x)),
      ones(n),
      1,
      0.05,
    );
    expect(Math.abs(bound / clopperPearson(x, n, 0.9).high - 1), `${x} of ${n}`).toBeLessThan(0.004);
  }
  // All as large as can be, one alone, and what is far from anything seen.
  expect(meanBound(ones(30), ones(30), 1, 0.05)).toBe(1);
  expect(meanBound(Float64Array.of(0), ones(1), 1, 0.05)).toBeCloseTo(0.95, 2);
  expect(meanBound(new Float64Array(300), ones(300), 1e300, 0.05) / 1e300).toBeCloseTo(0.00994, 4);
});

it('no value that rises lowers that bound', () => {
  const draw = generator(stateOf('rises'));
  for (let round = 0; round < 300; round++) {
    const n = 2 + (draw() % 60);
    const counts = Float64Array.from({ length: n }, () => 1 + (round % 2) * (draw() % 4));
    const values = Float64Array.from(counts, (c) => c * (((draw() % 201) - 100) / 100));
    const before = meanBound(values, counts, 1, 0.05);
    const at = draw() % n;
    values[at] = (values[at] as number) + ((counts[at] as number) - (values[at] as number)) * (draw() / 2 ** 32);
    expect(meanBound(values, counts, 1, 0.05)).toBeGreaterThanOrEqual(before - 1e-12);
  }
});

it('prompts for a power, and back', () => {
  each(golden.power, 12, (margin, discordance, power, score, plain) => {
    const plan = { margin, discordance, alpha: 0.05, score: true };
    expect(promptsFor(power, plan)).toBe(score);
    expect(promptsFor(power, { ...plan, score: false })).toBe(plain);
    expect(powerOf(score, plan)).toBeGreaterThanOrEqual(power - 1e-9);
    expect(powerOf(score - 1, plan)).toBeLessThan(power);
    expect(smallestMargin(score, power, plan)).toBeCloseTo(margin, 4);
  });
  expect(promptsFor(0.9, { margin: 0, discordance: 0.1, alpha: 0.05, score: true })).toBeNull();
  expect([promptsForCap(0.01, 0.05), promptsForCap(0, 0.05), promptsForCap(1, 0.05)]).toEqual([299, null, 1]);
  expect(powerOf(10, { margin: 0.1, discordance: 0, alpha: 0.05, score: false })).toBe(1);
  // One that was not seen: of nothing that differs the rule of three, of much the normal bound and some more.
  const rare = { alpha: 0.05, score: false, unseen: 1 };
  expect(promptsFor(0.8, { ...rare, margin: 0.05, discordance: 0 })).toBe(60);
  const [without, within] = [0, 1].map((unseen) =>
    promptsFor(0.8, { ...rare, margin: 0.05, discordance: 0.2, unseen }),
  ) as [number, number];
  expect(without).toBe(495);
  expect(within).toBeGreaterThan(without + 20);
  expect(within).toBeLessThan(without + 60);
  expect(powerOf(within, { ...rare, margin: 0.05, discordance: 0.2 })).toBeGreaterThanOrEqual(0.8);
  expect(smallestMargin(within, 0.8, { ...rare, discordance: 0.2 })).toBeCloseTo(0.05, 4);
  expect(promptsFor(0.8, { ...rare, margin: 1e-300, discordance: 0.2 })).toBeNull();
});

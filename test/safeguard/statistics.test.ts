// Figures and their intervals against numpy and scipy (test/golden/policies/make.py).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { figuresOf, type Judged, underThreshold } from '../../src/safeguard/policies/figures.js';
import { bootstrap, normalCdf, normalQuantile, wilson } from '../../src/safeguard/policies/statistics.js';

interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}
interface GoldenFile {
  readonly fpr: number;
  readonly resamples: number;
  readonly seed: number;
  readonly wilson: readonly { readonly k: number; readonly n: number; readonly low: number; readonly high: number }[];
  readonly normal: readonly { readonly p: number; readonly x: number }[];
  readonly cases: readonly {
    readonly name: string;
    readonly score: readonly number[];
    readonly violates: readonly boolean[];
    readonly blocked: readonly boolean[];
    readonly f1: Interval;
    readonly recallAtFpr: Interval;
    readonly ece: Interval;
    readonly threshold: Interval;
    readonly scipyF1: readonly [number, number];
  }[];
}
const golden = JSON.parse(
  readFileSync(join(packageRoot, 'test', 'golden', 'policies', 'calibration.json'), 'utf8'),
) as GoldenFile;
const rowsOf = (c: GoldenFile['cases'][number]): Judged[] =>
  c.score.map((score, i) => ({
    channel: 'final',
    violates: c.violates[i] === true,
    outcome: c.blocked[i] ? 'block' : 'allow',
    score,
  }));
const options = { resamples: golden.resamples, seed: golden.seed, fpr: golden.fpr };

it('rates have the interval of Wilson', () => {
  expect(golden.wilson.length).toBe(9);
  for (const { k, n, low, high } of golden.wilson) {
    const got = wilson(k, n);
    expect(got?.value).toBe(k / n);
    expect(got?.low).toBeCloseTo(low, 12);
    expect(got?.high).toBeCloseTo(high, 12);
  }
  expect(wilson(0, 0)).toBeNull();
});

it('quantiles of the normal distribution', () => {
  for (const { p, x } of golden.normal) {
    expect(normalQuantile(p)).toBeCloseTo(x, 9);
    expect(normalCdf(x)).toBeCloseTo(p, 12);
  }
  expect([normalCdf(-40), normalCdf(40), normalQuantile(0), normalQuantile(1)]).toEqual([0, 1, -Infinity, Infinity]);
});

describe.each(golden.cases.map((c) => [c.name, c] as const))('scores, %s', (_, c) => {
  const got = figuresOf(rowsOf(c), options);
  it.each(['f1', 'recallAtFpr', 'ece', 'threshold'] as const)('%s, with the BCa interval', (name) => {
    for (const end of ['value', 'low', 'high'] as const) expect(got[name]?.[end]).toBeCloseTo(c[name][end], 9);
  });
  it("F1's interval is near that of scipy.stats.bootstrap, which draws otherwise", () => {
    const more = figuresOf(rowsOf(c), { ...options, resamples: 2000 });
    expect(Math.abs((more.f1?.low ?? 0) - c.scipyF1[0])).toBeLessThan(0.03);
    expect(Math.abs((more.f1?.high ?? 0) - c.scipyF1[1])).toBeLessThan(0.03);
  });
  it('the threshold reaches what was promised', () => {
    const t = got.threshold?.value ?? Number.NaN;
    const f1 = (at: number): number => {
      const held = underThreshold(rowsOf(c), at);
      const caught = held.filter((r) => r.violates && r.outcome === 'block').length;
      const wrong = held.filter((r) => r.violates !== (r.outcome === 'block')).length;
      return (2 * caught) / (2 * caught + wrong);
    };
    for (const score of c.score) expect(f1(t)).toBeGreaterThanOrEqual(f1(score));
    const strict = figuresOf(rowsOf(c), options, 'fpr');
    const held = figuresOf(underThreshold(rowsOf(c), strict.threshold?.value ?? 0), { ...options, resamples: 1 });
    expect(held.falsePositives?.value).toBeLessThanOrEqual(golden.fpr);
    expect(held.recall?.value).toBeCloseTo(strict.recallAtFpr?.value ?? -1, 12);
  });
});

describe('rows without a verdict or without a score', () => {
  const row = (violates: boolean, outcome: Judged['outcome'], score?: number): Judged => ({
    channel: 'final',
    violates,
    outcome,
    ...(score === undefined ? {} : { score }),
  });
  it('a row without a verdict is a mistake in every figure', () => {
    const got = figuresOf(
      [row(true, 'unjudged'), row(true, 'block', 2), row(false, 'unjudged'), row(false, 'allow', -2)],
      options,
    );
    expect(got).toMatchObject({ unjudged: 2, scored: 2 });
    expect([got.recall?.value, got.falsePositives?.value, got.precision?.value, got.f1?.value]).toEqual([
      0.5, 0.5, 0.5, 0.5,
    ]);
    expect(got.recallAtFpr?.value).toBe(0);
  });
  it('what needs scores is null where one has none', () => {
    const got = figuresOf([row(true, 'block'), row(false, 'allow', -2)], options);
    expect([got.recallAtFpr, got.ece, got.threshold]).toEqual([null, null, null]);
    expect(got.f1?.value).toBe(1);
  });
  it('no rows: nothing but nulls', () => {
    const got = figuresOf([], options);
    expect([got.precision, got.recall, got.f1, got.threshold]).toEqual([null, null, null, null]);
  });
});

it('the same seed draws the same, another one otherwise; each stratum keeps its number of rows', () => {
  const strata = [
    [0, 1, 2, 3, 4],
    [5, 6],
  ];
  const sizes = new Set<string>();
  const run = (seed: number): unknown =>
    bootstrap(
      7,
      strata,
      {
        sum: (times) => {
          sizes.add(strata.map((s) => s.reduce((n, i) => n + (times[i] ?? 0), 0)).join());
          return times.reduce((total, n, i) => total + n * i, 0);
        },
      },
      { resamples: 200, seed },
    );
  expect(run(1)).toEqual(run(1));
  expect(run(1)).not.toEqual(run(2));
  expect(sizes).toEqual(new Set(['5,2', '4,2', '5,1']));
});

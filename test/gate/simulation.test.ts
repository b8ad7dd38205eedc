// A small seeded simulation of what bench/gate.mjs does at length: releases at the margin, power, coverage.
import { expect, it } from 'vitest';
import { bca, bootstrap } from '../../src/gate/statistics/bootstrap.js';
import { normalQuantile } from '../../src/gate/statistics/normal.js';
import { tango } from '../../src/gate/statistics/paired.js';
import { promptsFor } from '../../src/gate/statistics/power.js';
import { clopperPearson } from '../../src/gate/statistics/proportion.js';
import { decideMade, rowsOf, suiteOf, uniform } from './made.js';

const MARGIN = 0.08;
const suite = (samples: number) =>
  suiteOf({ metrics: `{ name: m, direction: lower, margin: ${MARGIN} }`, samples, decision: '{ resamples: 1000 }' });
/** One sample: worse on a share `up` of the prompts, better on `down`. */
const pairs = (draw: () => number, n: number, up: number, down: number) =>
  Array.from({ length: n }, () => {
    const u = draw();
    return [u < up ? ([0, 1] as const) : u < up + down ? ([1, 0] as const) : ([0, 0] as const)];
  });
/** Chance that a binomial of these tries lies above the count is below 1 in 1,000: a lucky seed is not enough. */
const above = (hits: number, n: number): number => clopperPearson(hits, n, 0.998).low;

it('an adapter at the margin is hardly ever released, one like its base as often as planned', () => {
  const draw = uniform(1);
  const rounds = 120;
  const n = promptsFor(0.8, { margin: MARGIN, discordance: 0.1, alpha: 0.05, score: true }) ?? 0;
  let [released, passed] = [0, 0];
  const one = suite(1);
  for (let i = 0; i < rounds; i++) {
    if (decideMade(one, rowsOf('m', pairs(draw, n, 0.05 + MARGIN, 0.05))).decision === 'PASS') released++;
    if (decideMade(one, rowsOf('m', pairs(draw, n, 0.05, 0.05))).decision === 'PASS') passed++;
  }
  expect(above(released, rounds)).toBeLessThanOrEqual(0.05);
  expect(clopperPearson(passed, rounds, 0.998).low).toBeLessThan(0.8);
  expect(clopperPearson(passed, rounds, 0.998).high).toBeGreaterThan(0.8);
});

it('nor with several samples', () => {
  const draw = uniform(2);
  const rounds = 60;
  const several = suite(3);
  let released = 0;
  for (let i = 0; i < rounds; i++) {
    const prompts = Array.from({ length: 80 }, () => {
      const p = draw() ** 6; // few prompts are often violated
      const q = p + ((1 - p) * MARGIN) / (1 - 1 / 7);
      return [0, 1, 2].map(() => [Number(draw() < p), Number(draw() < q)] as const);
    });
    if (decideMade(several, rowsOf('m', prompts)).decision === 'PASS') released++;
  }
  expect(above(released, rounds)).toBeLessThanOrEqual(0.05);
});

it('nor where prompts are lost whole of which there may be none', () => {
  const draw = uniform(5);
  const [rounds, noise, share] = [150, 0.03, 0.05];
  const held = suiteOf({
    metrics: `{ name: m, direction: lower, margin: ${share * (1 - noise)} }`,
    samples: 8,
    decision: '{ resamples: 1000 }',
  });
  let released = 0;
  for (let i = 0; i < rounds; i++) {
    const prompts = Array.from({ length: 50 }, () => {
      const whole = draw() < share;
      return Array.from({ length: 8 }, () => [Number(draw() < noise), Number(whole || draw() < noise)] as const);
    });
    if (decideMade(held, rowsOf('m', prompts)).decision === 'PASS') released++;
  }
  // By bootstrap and score alone 9 %.
  expect(released / rounds).toBeLessThanOrEqual(0.05);
});

it.each([
  ['a margin', 'margin: 0.057'],
  ['a cap', 'cap: 0.057'],
])('nor where few rows are hit as hard as their range has it: %s', (_, limits) => {
  const draw = uniform(6);
  const rounds = 150;
  const losses = suiteOf({
    metrics: `{ name: m, direction: lower, values: number, range: [0, 1], ${limits} }`,
    decision: '{ resamples: 1000 }',
  });
  let released = 0;
  for (let i = 0; i < rounds; i++) {
    const rows = Array.from({ length: 40 }, () => [[0, draw() < 0.05 ? 1 : 0.005 * (1 + draw())] as const]);
    if (decideMade(losses, rowsOf('m', rows)).decision === 'PASS') released++;
  }
  // No row is hit one time in eight, of which a bootstrap knows nothing.
  expect(released / rounds).toBeLessThanOrEqual(0.05);
});

it.each([
  // With one row more in place of as many as there are to 60: 8 %.
  ['a margin', `margin: ${MARGIN}`],
  // By the bootstrap alone: 13 %.
  ['a cap', `cap: ${1 + MARGIN}`],
])('nor, of numbers that may be anything, where a few rows of few are hit very hard: %s', (_, limits) => {
  const draw = uniform(6);
  const rounds = 200;
  const losses = suiteOf({
    metrics: `{ name: m, direction: lower, values: number, ${limits} }`,
    decision: '{ resamples: 1000, minPrompts: 20 }',
  });
  let released = 0;
  for (let i = 0; i < rounds; i++) {
    const lognormal = (): number => Math.exp(normalQuantile(draw() + 2 ** -33));
    const rows = Array.from({ length: 24 }, () => [[1, 1 + MARGIN + 0.1 * (lognormal() - Math.exp(0.5))] as const]);
    if (decideMade(losses, rowsOf('m', rows)).decision === 'PASS') released++;
  }
  expect(released / rounds).toBeLessThanOrEqual(0.055);
});

it('intervals of 95 % hold the truth about as often', () => {
  const draw = uniform(3);
  const rounds = 300;
  const hits = { tango: 0, bca: 0 };
  for (let i = 0; i < rounds; i++) {
    let [up, down] = [0, 0];
    for (const [[b, a]] of pairs(draw, 300, 0.08, 0.05) as [[number, number]][]) {
      if (a > b) up++;
      else if (b > a) down++;
    }
    const score = tango(up, down, 300, 0.95);
    if (score.low <= 0.03 && 0.03 <= score.high) hits.tango++;
    const values = Float64Array.from({ length: 80 }, () => draw() + draw());
    const figure = (s: Float64Array): number => (s[0] as number) / 80;
    const options = { resamples: 500, seed: 1, purpose: String(i) };
    const { low, high } = bca(bootstrap([{ clusters: 80, columns: [values] }], figure, options), 0.95);
    if (low <= 1 && 1 <= high) hits.bca++;
  }
  for (const n of Object.values(hits)) {
    expect(clopperPearson(n, rounds, 0.998).high).toBeGreaterThan(0.94);
    expect(clopperPearson(n, rounds, 0.998).low).toBeLessThan(0.96);
  }
});

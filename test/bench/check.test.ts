// What bench:check calls a fall: worse than the stored number by more than its noise, or gone.
import { expect, test } from 'vitest';
import { compare, summarise } from '../../bench/check.mjs';

const figure = (value: number, better: string) => ({ a: { value, unit: 'u', better } });

test('noise is the spread of the runs', () => {
  const runs = [98, 100, 104].map((v) => figure(v, 'higher'));
  expect(summarise(runs)).toEqual({ a: { value: 100, unit: 'u', better: 'higher', noise: 0.06 } });
});

test.each([
  ['higher', 95, false],
  ['higher', 93, true],
  ['higher', 200, false],
  ['higher', Number.NaN, true],
  ['lower', 106, false],
  ['lower', 107, true],
  ['lower', 50, false],
] as const)('%s is better: %f after 100 ± 6 %%', (better, value, fell) => {
  const stored = { a: { value: 100, unit: 'u', better, noise: 0.06 } };
  expect(compare(stored, figure(value, better))[0]?.fell).toBe(fell);
});

test('a number that is no longer measured counts as fallen', () => {
  expect(compare({ a: { value: 1, unit: 'u', better: 'higher', noise: 1 } }, {})[0]?.fell).toBe(true);
});

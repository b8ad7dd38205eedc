// Nonces of the beginnings of one answer.
import { expect, it } from 'vitest';
import { Series } from '../../src/safeguard/series.js';

it('a text that goes on from another keeps its nonce, and nothing else does', () => {
  const series = new Series();
  const first = series.nonceFor('p', 'It is', false);
  expect(first).toMatch(/^([0-9][a-z]){3}$/);
  expect(series.nonceFor('p', 'It is so.', false)).toBe(first);
  expect(series.nonceFor('p', 'It is so.', false)).toBe(first);
  expect(series.nonceFor('q', 'It is so.', false)).not.toBe(first);
  expect(series.nonceFor('p', 'Another text', false)).not.toBe(first);
  expect(new Series().nonceFor('p', 'It is so.', false)).not.toBe(first);
  // A beginning of what was asked about is no text that goes on.
  expect(series.nonceFor('p', 'It', false)).not.toBe(first);
  expect(series.nonceFor('p', 'It is so. And more.', false)).toBe(first);
});
it('one that stands in the text, or that the judge strayed with, is not used again', () => {
  const series = new Series();
  const first = series.nonceFor('p', 'It is', false);
  const second = series.nonceFor('p', `It is ${first}`, false);
  expect(second).not.toBe(first);
  expect(series.nonceFor('p', `It is ${first} and`, false)).toBe(second);
  const third = series.nonceFor('p', `It is ${first} and`, true);
  expect(third).not.toBe(second);
  expect(series.nonceFor('p', `It is ${first} and so`, false)).toBe(third);
});

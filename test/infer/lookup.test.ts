import fc from 'fast-check';
import { expect, it } from 'vitest';
import { LEAST_MATCHED, Lookup } from '../../src/infer/lookup.js';

const guess = (text: readonly number[], most = 4): unknown => new Lookup(Int32Array.from(text)).guess(most);

it('what followed the longest match, the latest of those', () => {
  expect(guess([1, 2, 3, 9, 9, 1, 2])).toEqual({ tokens: [3, 9, 9, 1], matched: 2 });
  expect(guess([5, 1, 2, 3, 4, 1, 2, 8, 5, 1, 2])).toEqual({ tokens: [3, 4, 1, 2], matched: 3 });
  expect(guess([1, 2, 3, 4, 1, 2, 8, 7, 1, 2], 2)).toEqual({ tokens: [8, 7], matched: 2 });
  expect(guess([1, 2, 3, 9, 9, 1, 2], 1)).toEqual({ tokens: [3], matched: 2 });
});
it('nothing where nothing matches, where it is short, where none is wanted', () => {
  for (const text of [[], [1], [1, 2], [1, 1], [1, 2, 3, 4, 5], [1, 2, 3, 2, 4, 2]])
    expect(guess(text)).toEqual({ tokens: [], matched: 0 });
  expect(guess([1, 2, 3, 1, 2], 0)).toEqual({ tokens: [], matched: 0 });
});
it('what repeats goes on repeating, beyond the end', () => {
  expect(guess([4, 4, 4], 5)).toEqual({ tokens: [4, 4, 4, 4, 4], matched: 2 });
  expect(guess([7, 1, 2, 3, 1, 2, 3, 1, 2, 3], 7)).toEqual({ tokens: [1, 2, 3, 1, 2, 3, 1], matched: 6 });
});
it('what is foreseen counts as if it stood before, up to its end, and is no part of the text', () => {
  const after = (foreseen: readonly number[], text: readonly number[], most = 4): unknown =>
    new Lookup(Int32Array.from(text), Int32Array.from(foreseen)).guess(most);
  expect(after([1, 2, 3, 4], [9, 1, 2])).toEqual({ tokens: [3, 4], matched: 2 });
  expect(after([1, 2, 3, 4], [1, 2])).toEqual({ tokens: [3, 4], matched: 2 });
  expect(after([9, 1, 2], [9, 1, 2])).toEqual({ tokens: [], matched: 0 });
  expect(after([1, 2, 3], [8, 1, 2, 7, 7, 8, 1, 2])).toEqual({ tokens: [7, 7, 8, 1], matched: 3 });
  expect(after([1, 2, 3], [2])).toEqual({ tokens: [], matched: 0 });
  expect(after([1, 2, 3], [])).toEqual({ tokens: [], matched: 0 });
  expect([...new Lookup(Int32Array.of(5, 6), Int32Array.of(1, 2)).text]).toEqual([5, 6]);
});
it('is what a plain search finds, grown token by token', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 2 }), { maxLength: 30 }), fc.nat({ max: 30 }), (text, first) => {
      const lookup = new Lookup(Int32Array.from(text.slice(0, first)));
      for (const token of text.slice(first)) lookup.push(token);
      expect([...lookup.text]).toEqual(text);
      const { tokens, matched } = lookup.guess(5);
      const end = text.length - 1;
      const common = (at: number): number => {
        let n = 0;
        while (n <= at && text[at - n] === text[end - n]) n++;
        return n;
      };
      const places = Array.from({ length: Math.max(0, end) }, (_, at) => at)
        .filter((at) => common(at) >= LEAST_MATCHED)
        .slice(-16);
      const best = Math.max(0, ...places.map(common));
      expect(matched).toBe(best);
      const from = places.findLast((at) => common(at) === best);
      const whole = [...text];
      if (from !== undefined) for (let i = 0; i < 5; i++) whole.push(whole[from + 1 + i]!);
      expect(tokens).toEqual(whole.slice(text.length));
    }),
    { numRuns: 400, seed: 3 },
  );
});

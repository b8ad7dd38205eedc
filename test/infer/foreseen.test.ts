import { expect, it } from 'vitest';
import { Foreseen } from '../../src/infer/foreseen.js';
import { APART, Lookup } from '../../src/infer/lookup.js';

const open = (ways: readonly number[], prompt: readonly number[] = [9, 1, 2]): Foreseen =>
  new Foreseen(Int32Array.from(ways), Int32Array.from(prompt));
function after(foreseen: Foreseen, ...tokens: readonly number[]): Foreseen {
  for (const token of tokens) foreseen.took(token);
  return foreseen;
}

it('a way is followed from its head, as the prompt ends, to its end', () => {
  const one = open([1, 2, 3, 4, 5]);
  expect(one.guess(9)).toEqual([3, 4, 5]);
  expect(one.guess(2)).toEqual([3, 4]);
  expect(after(one, 3, 4).guess(9)).toEqual([5]);
  expect(after(one, 5).guess(9)).toEqual([]);
  expect(open([1, 2, 3, 4], [2]).guess(9)).toEqual([]);
  expect(open([1, 2, 3, 4], [1, 3]).guess(9)).toEqual([]);
});
it('several are one as far as they go alike; then the answer says which it is', () => {
  const ways = open([1, 2, 3, 4, 5, 6, APART, 1, 2, 3, 4, 7, 8, 8, APART, 5, 5, 5]);
  expect(ways.guess(9)).toEqual([3, 4]);
  expect(after(ways, 3, 4).guess(9)).toEqual([]);
  expect(after(ways, 7).guess(9)).toEqual([8, 8]);
});
it('a few that part are not waited for', () => {
  const alike = [1, 2, 3, 4, 5, APART];
  expect(open([...alike, ...alike, ...alike, 1, 2, 3, 6, 6]).guess(9)).toEqual([3, 4, 5]);
  expect(open([...alike, ...alike, 1, 2, 3, 6, 6]).guess(9)).toEqual([3]);
});
it('an answer that went elsewhere is found again where three tokens say so, or most of more', () => {
  const find = (ways: readonly number[], text: readonly number[]): readonly number[] => {
    const foreseen = after(open(ways), 4);
    foreseen.find(Int32Array.from(text));
    return foreseen.guess(9);
  };
  const ways = [1, 2, 3, 6, 7, 8, 5, APART, 1, 2, 3, 0, 6, 7, 8, 4];
  expect(find(ways, [9, 1, 2, 4, 6, 7])).toEqual([]);
  expect(find(ways, [9, 1, 2, 4, 6, 7, 8])).toEqual([]); // they part at once
  expect(find(ways, [9, 1, 2, 4, 0, 6, 7, 8])).toEqual([4]);
  expect(find(ways, [9, 1, 2, 4, 3, 6, 7, 8])).toEqual([5]);
  // No match goes over what parts them.
  expect(find([1, 2, 3, APART, 5, 6, 7], [9, 1, 2, 4, 2, 3, 5])).toEqual([]);
});
it('the head of a later message is not taken for that of the turn', () => {
  expect(after(open([1, 2, 3, 8, 8, 1, 2, 3, 6, 6]), 3).guess(9)).toEqual([8, 8, 1, 2, 3, 6, 6]);
});
it('to a search of the text ways are texts before it, each by itself', () => {
  const guess = (text: readonly number[]): unknown =>
    new Lookup(Int32Array.from(text), Int32Array.from([1, 2, 3, APART, 4, 5, 6, 7])).guess(4);
  expect(guess([9, 4, 5])).toEqual({ tokens: [6, 7], matched: 2 });
  expect(guess([9, 1, 2])).toEqual({ tokens: [3], matched: 2 });
  expect(guess([9, 2, 3])).toEqual({ tokens: [], matched: 0 });
});

import { afterAll, expect, it } from 'vitest';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { remembering } from '../../src/infer/remembered.js';
import { tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const tokenizer = loadTokenizer(dir, { vocabSize: config.vocab_size });
afterAll(() => tokenizer.close());

it('texts have the tokens that they have, are encoded once, and go when there are too many', () => {
  let encoded = 0;
  const counting = {
    ...tokenizer,
    encode: (text: string) => {
      encoded++;
      return tokenizer.encode(text);
    },
  };
  const remembers = remembering(counting, 1000);
  const text = (n: number): string => `${n} ${'a table by the window '.repeat(18)}`; // some 400 characters
  const asks = [1, 1, 2, 1, 3, 1, 2];
  for (const n of asks) expect(remembers.encode(text(n))).toEqual(tokenizer.encode(text(n)));
  expect(encoded).toBe(4); // 2 made room for 3
  for (const n of [5, 5]) expect(remembers.encode(`short ${n}`)).toEqual(tokenizer.encode(`short ${n}`));
  expect(encoded).toBe(6);
  for (let i = 0; i < 2; i++) remembers.encode('long '.repeat(300));
  expect(encoded).toBe(8);
});

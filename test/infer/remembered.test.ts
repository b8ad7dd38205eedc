import { afterAll, beforeEach, expect, it } from 'vitest';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { remembering } from '../../src/infer/remembered.js';
import { tinyCheckpoint } from './tiny.js';

const { dir, config } = await tinyCheckpoint();
const tokenizer = loadTokenizer(dir, { vocabSize: config.vocab_size });
afterAll(() => tokenizer.close());
let encoded = 0;
beforeEach(() => {
  encoded = 0;
});
const counting = {
  ...tokenizer,
  encode: (text: string) => {
    encoded++;
    return tokenizer.encode(text);
  },
};

it('texts have the tokens that they have, are encoded once, and go when there are too many', () => {
  const remembers = remembering(counting, 1000);
  const text = (n: number): string => `${n} ${'a table by the window '.repeat(18)}`; // some 400 characters
  const asks = [1, 1, 2, 1, 3, 1, 2];
  for (const n of asks) expect(remembers.encode(text(n))).toEqual(tokenizer.encode(text(n)));
  expect(encoded).toBe(4); // 2 made room for 3
  const short = 'a text of few words';
  for (let i = 0; i < 2; i++) expect(remembers.encode(short)).toEqual(tokenizer.encode(short));
  expect(encoded).toBe(6);
  for (let i = 0; i < 2; i++) remembers.encode('long '.repeat(300));
  expect(encoded).toBe(8);
});

it('names of roles and channels are encoded once, however many words come between them', () => {
  const remembers = remembering(counting);
  const ask = (name: string): void => expect(remembers.encode(name)).toEqual(tokenizer.encode(name));
  for (let i = 0; i < 3; i++) for (const name of ['assistant', 'final', '']) ask(name);
  expect(encoded).toBe(3);
  for (let i = 0; i < 200; i++) ask(`word ${i}`);
  for (let i = 0; i < 3; i++) ask('assistant');
  expect(encoded).toBe(204);
});

it('a long text that is learnt part by part has the tokens of the whole', () => {
  const parts = [
    "it's",
    'IT’S 12',
    '3,456.7',
    '\n\n  ',
    '\r\n/',
    ' // x',
    '日本語の文。',
    'é\u0301a',
    '👩‍🚀',
    '<|end|>',
    '_a1',
    '\t',
  ];
  let state = 1;
  const random = (n: number): number => {
    state = (state * 48271) % 2147483647;
    return state % n;
  };
  for (let round = 0; round < 20; round++) {
    const remembers = remembering(tokenizer);
    let text = '';
    while (text.length < 30_000) {
      const part = parts[random(parts.length)]!.repeat(random(8) === 0 ? 1 + random(900) : 1);
      text += random(3) === 0 ? ` ${part}` : part;
    }
    let pauses = 0;
    for (const _ of remembers.learn(text)) pauses++;
    expect(pauses).toBeGreaterThan(2);
    expect(remembers.encode(text).join() === tokenizer.encode(text).join()).toBe(true);
  }
  // Nothing to cut at: in one go.
  const remembers = remembering(tokenizer);
  expect([...remembers.learn('a'.repeat(20_000))]).toHaveLength(1);
});

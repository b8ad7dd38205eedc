// Large answers: a part at a time they say what JSON.stringify says, and others have their turns between.
import { Hono } from 'hono';
import { describe, expect, it } from 'vitest';
import type { Env } from '../../src/serve/api.js';
import {
  answerJson,
  copyOf,
  isLarge,
  JsonBytes,
  jsonOf,
  jsonParts,
  LazyList,
  listOf,
} from '../../src/serve/json-pieces.js';

const values: readonly unknown[] = [
  null,
  1.5,
  'a "b" \u2028 \ud83d\ude80',
  [],
  {},
  { a: undefined, b: [undefined, null, { c: [[]] }], 'd"': 'e' },
  {
    list: new LazyList(() => []),
    text: new JsonBytes([Buffer.from('{"a":'), Buffer.from('[1]}')]),
    more: LazyList.of([1, 2], (n) => ({ n })),
  },
];

/** Turns of the event loop from now on, until the end. */
function countedTurns(): { readonly now: number; end: () => number } {
  let turns = 0,
    over = false;
  const count = (): void => {
    turns++;
    if (!over) setImmediate(count);
  };
  setImmediate(count);
  return {
    get now() {
      return turns;
    },
    end: () => {
      over = true;
      return turns;
    },
  };
}

describe('JSON in parts', () => {
  it.each(values)('is what JSON.stringify makes: %j', async (value) => {
    expect((await jsonOf(value)).whole.toString()).toBe(JSON.stringify(value));
    expect(JSON.stringify(copyOf(value))).toBe(JSON.stringify(value));
  });
  it('is made an entry at a time: of a list that nobody reads to its end nothing more is made', async () => {
    let made = 0;
    const list = LazyList.of(
      Array.from({ length: 100_000 }, (_, i) => i),
      (i) => ({ i: made++ && i }),
    );
    for await (const part of jsonParts({ list })) {
      expect(part.length).toBeGreaterThan(10_000);
      expect(part.length).toBeLessThan(40_000);
      break;
    }
    expect(made).toBeLessThan(5000);
    expect(JSON.parse((await jsonOf({ list })).whole.toString())).toHaveProperty('list.length', 100_000);
  });
  it('lets others go on while a large one is made', async () => {
    const list = LazyList.of(new Array(200_000).fill(0), () => ({ a: ['some', 'text'] }));
    const turns = countedTurns();
    await jsonOf(list);
    expect(turns.end()).toBeGreaterThan(2);
  });
  it.each(['jsonOf', 'jsonParts'])('lets others go on where it is short, and much work: %s', async (by) => {
    const turns = countedTurns();
    const made: number[] = [];
    const list = LazyList.of(new Array<number>(64).fill(1), (n) => {
      made[turns.now] = (made[turns.now] ?? 0) + 1;
      for (const from = performance.now(); performance.now() - from < 1; );
      return n;
    });
    let text = '';
    if (by === 'jsonOf') ({ text } = await jsonOf(list));
    else for await (const part of jsonParts(list)) text += part;
    turns.end();
    expect(text).toBe(JSON.stringify(new Array(64).fill(1)));
    expect(Math.max(...made.filter(Number))).toBeLessThanOrEqual(24);
  });
  it('is large where a list is long, wherever it stands', () => {
    const long = Array.from({ length: 100 }, (_, i) => i);
    expect([{}, 'a', [1, { a: [2] }], listOf([1], String)].map(isLarge)).toEqual([false, false, false, false]);
    expect(
      [long, { a: [{ b: long }] }, listOf(long, String), { a: new JsonBytes([Buffer.from('1')]) }].map(isLarge),
    ).toEqual([...[true, true, true, true]]);
  });
  it.each([10, 100_000])('is answered with its length, of %i entries', async (length) => {
    const list = LazyList.of(new Array(length).fill('é'), String);
    const app = new Hono<Env>().get('/', (c) => answerJson(c, { list }));
    const response = await app.request('/');
    const bytes = new Uint8Array(await response.arrayBuffer());
    expect(response.headers.get('content-length')).toBe(String(bytes.length));
    expect(new TextDecoder().decode(bytes)).toBe(JSON.stringify({ list }));
  });
});

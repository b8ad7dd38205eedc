// Cached forward against uncached: prefill, several turns, decode, batches of sequences at different lengths.
import { afterAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { atOnce, cacheLayers, forwardHidden, scoreTokens } from '../../src/model/gpt-oss.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { PAGE_TOKENS } from '../../src/model/kv-pages.js';
import type { Batch, ModelWeights } from '../../src/model/types.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from '../infer/tiny.js';
import { Golden, pack, relativeError } from './golden.js';
import { batchOf, compareCaches, hidden, type Piece, PlainCache } from './plain-cache.js';

const precision = 'f32';

/** Appends `pieces[b]` to slot `slots[b]` and returns each sequence's hidden rows. */
function step(
  model: ModelWeights,
  cache: KvCache,
  pieces: readonly (readonly number[])[],
  slots?: readonly number[],
): number[][] {
  using s = new Scope();
  const { tokens, starts } = pack(pieces);
  const positions = Int32Array.from(
    pieces.flatMap((piece, b) => piece.map((_, i) => cache.length(slots?.[b] ?? b) + i)),
  );
  const batch: Batch = { tokens, starts, positions, ...(slots ? { slots: Int32Array.from(slots) } : {}) };
  const all = forwardHidden(s, model, null, batch, { precision, cache }).toFloat32();
  const D = model.config.hidden_size;
  return pieces.map((_, b) => [...all.slice((starts[b] ?? 0) * D, (starts[b + 1] ?? 0) * D)]);
}
function uncached(model: ModelWeights, tokens: readonly number[]): number[] {
  using s = new Scope();
  return [...forwardHidden(s, model, null, pack([tokens]), { precision }).toFloat32()];
}

describe.each(['odd', 'clamp', 'plain'])('cache on %s', (name) => {
  const g = new Golden(name);
  const text = g.inputs.sequences[0] ?? [],
    other = (g.inputs.sequences[1] ?? []).concat(text.slice(0, 14));

  it.each([
    ['one prefill', [text.length]],
    ['prefill, then token by token past the window', [3, ...Array<number>(text.length - 3).fill(1)]],
    ['turns of several lengths', [7, 1, 9, 2, 8, 1, 1, text.length - 29]],
    ['turns longer than the window', [1, 20, text.length - 21]],
  ])('%s', (_, cuts) => {
    const model = openCheckpoint(g.dir);
    const cache = new KvCache(model.config, 1, text.length);
    const out: number[] = [];
    let at = 0;
    for (const n of cuts) {
      out.push(...step(model, cache, [text.slice(at, at + n)]).flat());
      at += n;
    }
    const err = relativeError(out, uncached(model, text));
    console.log(`${name} ${_}: ${err.toExponential(2)}`);
    expect(err).toBeLessThan(1e-5);
    expect(cache.length(0)).toBe(text.length);
    cache.close();
    model.close();
  });

  it('sequences of different lengths, mixed prefill and decode, slots out of order, a copied prefix', () => {
    const model = openCheckpoint(g.dir);
    using cache = new KvCache(model.config, 3, 64);
    const a: number[] = [],
      b: number[] = [];
    const go = (na: number, nb: number): void => {
      const D = model.config.hidden_size,
        ia = a.length / D,
        ib = b.length / D;
      const pieces = [other.slice(ib, ib + nb), text.slice(ia, ia + na)];
      const [hb = [], ha = []] = nb
        ? step(model, cache, pieces, [2, 0])
        : [[], step(model, cache, [text.slice(ia, ia + na)], [0]).flat()];
      a.push(...ha);
      b.push(...hb);
    };
    go(5, 11);
    go(1, 4);
    go(1, 1);
    go(1, 1);
    go(9, 1);
    go(3, 0);
    go(1, 1);
    go(1, 1);
    const D = model.config.hidden_size;
    expect(relativeError(a, uncached(model, text.slice(0, a.length / D)))).toBeLessThan(1e-5);
    expect(relativeError(b, uncached(model, other.slice(0, b.length / D)))).toBeLessThan(1e-5);
    cache.copy(0, 1);
    const next = text.slice(a.length / D, a.length / D + 2);
    expect(step(model, cache, [next], [1])).toEqual(step(model, cache, [next], [0]));
    cache.reset(1);
    expect(step(model, cache, [text.slice(0, 4)], [1]).flat()).toEqual(uncached(model, text.slice(0, 4)));
    cache.truncate(1, 2);
    expect(
      relativeError(step(model, cache, [text.slice(2, 4)], [1]).flat(), uncached(model, text.slice(0, 4)).slice(2 * D)),
    ).toBeLessThan(1e-5);
    model.close();
  });

  it.each(['f32', 'bf16'] as const)(
    'a text scored as training scores it and as serving does: the same bits (%s)',
    (p) => {
      const model = openCheckpoint(g.dir);
      using cache = new KvCache(model.config, 1, text.length);
      const tokens = Int32Array.from(text);
      const training = scoreTokens(model, null, tokens, { precision: p });
      expect(training.every((x) => x < 0)).toBe(true);
      expect(
        Buffer.from(scoreTokens(model, null, tokens, { precision: p, cache }).buffer).equals(
          Buffer.from(training.buffer),
        ),
      ).toBe(true);
      model.close();
    },
  );
});

it('refuses what does not fit: capacity, positions that jump, a truncation the ring cannot undo', () => {
  const g = new Golden('odd');
  const model = openCheckpoint(g.dir);
  const text = g.inputs.sequences[0] ?? [];
  const before = memoryStats().totalLive;
  const cache = new KvCache(model.config, 1, 20);
  expect(() => step(model, cache, [text.slice(0, 21)])).toThrow(/capacity is 20/);
  step(model, cache, [text.slice(0, 12)]);
  using s = new Scope();
  expect(() => forwardHidden(s, model, null, pack([[1, 2]]), { precision, cache })).toThrow(/holds 12 tokens/);
  expect(() => cache.truncate(0, 5)).toThrow(/rings only the last 8/);
  cache.close();
  cache.close();
  expect(memoryStats().totalLive).toBe(before);
  model.close();
});

describe('pages', async () => {
  const { dir, config } = await tinyCheckpoint();
  const model = openCheckpoint(dir);
  afterAll(() => model.close());
  const rows = (n: number, salt = 0): number[] => [...prompt(n, salt)];

  it.each([1, 2, 3])('random starts, growth, forks and ends have the bits of a cache in lines (seed %i)', (seed) => {
    const done = compareCaches(model, { seed, steps: 60, most: 400 });
    expect(done).toMatchObject({ differ: -1, usedPages: 0 });
    expect(done.passes).toBeGreaterThan(20);
    expect(done.forks).toBeGreaterThan(5);
  });
  it.each(['f32', 'bf16'] as const)(
    'pages in bf16 hold the keys rounded to nearest even, no less (%s)',
    (precision) => {
      const options = { seed: 4, steps: 60, most: 400, precision, cache: { dtype: 'bf16' } } as const;
      expect(compareCaches(model, options).differ).toBe(-1);
      expect(compareCaches(model, { ...options, plainDtype: 'f32' }).differ).toBe(0);
    },
  );

  it('takes memory as sequences grow, and gives room back', () => {
    const kv = (): number => memoryStats().live.kv;
    const before = kv();
    const cache = new KvCache(config, 4, 1024);
    const rings = kv() - before;
    expect(rings).toBe(2 * 2 * 4 * 64 * 2 * 32 * 4); // k and v of two window layers
    expect([cache.pages, cache.freePages, cache.pagesFor(129)]).toEqual([64, 64, 3]);
    expect(cache.pageBytes).toBe(2 * 2 * PAGE_TOKENS * 2 * 32 * 4);
    hidden(model, cache, batchOf(cache, [[0, rows(130)]]));
    expect(kv() - before - rings).toBe(3 * cache.pageBytes);
    hidden(model, cache, batchOf(cache, [[1, rows(64)]]));
    expect(kv() - before - rings).toBe(4 * cache.pageBytes);
    expect(cache.freePages).toBe(60);
    cache.reset(0);
    expect(cache.freePages).toBe(63);
    hidden(model, cache, batchOf(cache, [[2, rows(192)]]));
    expect(kv() - before - rings).toBe(4 * cache.pageBytes); // in the pages that came back
    cache.commitAll();
    expect(kv() - before - rings).toBe(64 * cache.pageBytes);
    cache.close();
    expect(kv()).toBe(before);
  });

  it('a fork costs one page, and neither sees what the other goes on with', () => {
    using cache = new KvCache(config, 4, 512);
    using plain = new PlainCache(config, 4, 512);
    const both = (pieces: readonly Piece[]): void => {
      const batch = batchOf(cache, pieces);
      expect(hidden(model, cache, batch)).toEqual(hidden(model, plain.asCache, batch));
    };
    both([[0, rows(200)]]);
    expect(cache.usedPages).toBe(4);
    for (const c of [cache, plain]) {
      c.copy(0, 1);
      c.copy(0, 2);
    }
    expect(cache.usedPages).toBe(4);
    both([[1, rows(3, 5)]]);
    expect(cache.usedPages).toBe(5);
    both([
      [2, rows(1, 6)],
      [0, rows(1, 7)],
      [1, rows(1, 8)],
    ]);
    expect(cache.usedPages).toBe(6); // the last reader of the first page went on in it
    cache.reset(0);
    both([
      [1, rows(70, 1)],
      [2, rows(70, 2)],
    ]);
    cache.copy(1, 3);
    plain.copy(1, 3);
    cache.reset(1);
    both([[3, rows(90, 3)]]);
  });

  it.each(['f32', 'bf16'] as const)('tokens that are taken back have never been there (%s)', (dtype) => {
    const L = 5;
    using ahead = new KvCache(config, 3, 256, 'cpu', { lookahead: L, dtype });
    using plain = new KvCache(config, 3, 256, 'cpu', { dtype });
    let state = 3;
    const pick = (n: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    /** One token a row, as decode steps run them. @returns the rows' hidden states */
    const run = (cache: KvCache, rows: readonly (readonly [slot: number, token: number])[]): Float32Array[] => {
      using s = new Scope();
      const stands = [...cache.lengths];
      const batch: Batch = {
        tokens: Int32Array.from(rows, ([, token]) => token),
        positions: Int32Array.from(rows, ([slot]) => stands[slot]!++),
        starts: Int32Array.from({ length: rows.length + 1 }, (_, i) => i),
        slots: Int32Array.from(rows, ([slot]) => slot),
      };
      const all = forwardHidden(s, model, null, batch, { precision: 'bf16', cache, byRow: true }).toFloat32();
      return rows.map((_, i) => all.slice(i * config.hidden_size, (i + 1) * config.hidden_size));
    };
    for (const cache of [ahead, plain]) {
      expect(cache.promise(0, 250)).toBe(true);
      hidden(model, cache, batchOf(cache, [[0, rows(50)]]));
      cache.copy(0, 1);
    }
    // Past the window of 64, over the borders of pages, and in a page that two slots read.
    let taken = 0;
    for (let step = 0; step < 35; step++) {
      const right = [0, 1].map(() => Array.from({ length: 1 + pick(L + 1) }, () => 7 + pick(900)));
      const wrong = right.map((of) => Array.from({ length: L + 1 - of.length }, () => 7 + pick(900)));
      const told = run(
        ahead,
        [0, 1].flatMap((slot) => [...right[slot]!, ...wrong[slot]!].map((token) => [slot, token] as const)),
      );
      for (const slot of [0, 1]) {
        const n = right[slot]!.length;
        for (const [i, token] of right[slot]!.entries())
          expect(told[slot * (L + 1) + i]).toEqual(run(plain, [[slot, token]])[0]);
        ahead.rewind(slot, ahead.length(slot) - (L + 1 - n));
        taken += L + 1 - n;
      }
      expect(ahead.lengths).toEqual(plain.lengths);
    }
    expect(taken).toBeGreaterThan(100);
    expect(ahead.length(0)).toBeGreaterThan(150);
    // The promise stays, and so does the way on: a prompt's piece in a line, and a copy.
    expect(ahead.freePages).toBeLessThanOrEqual(plain.freePages);
    for (const cache of [ahead, plain]) cache.copy(1, 2);
    expect(hidden(model, ahead, batchOf(ahead, [[2, rows(20, 4)]]))).toEqual(
      hidden(model, plain, batchOf(plain, [[2, rows(20, 4)]])),
    );
    expect(() => ahead.rewind(0, ahead.length(0) - L - 1)).toThrow(/at most 5/);
    expect(() => plain.rewind(0, plain.length(0) - 1)).toThrow(/at most 0/);
    const twice = (cache: KvCache): unknown =>
      run(cache, [
        [1, 9],
        [1, 9],
      ]);
    expect(() => twice(plain)).toThrow(/each at most 1×/);
    for (let slot = 0; slot < 3; slot++) ahead.reset(slot);
    expect(ahead.usedPages).toBe(0);
  });

  it.each([
    ['alone', { byRow: true }],
    ['among many', { amongMany: true }],
  ])('where ends of prompts are wanted alone, they and the cache have the bits of whole passes (%s)', (_, bits) => {
    using whole = new KvCache(config, 3, 256);
    using short = new KvCache(config, 3, 256);
    const D = config.hidden_size,
      options = { precision: 'bf16', ...bits } as const;
    const runs: readonly (readonly Piece[])[] = [
      [
        [0, rows(70)],
        [1, rows(3, 1)],
        [2, rows(33, 2)],
      ],
      [
        [0, rows(9, 3)],
        [2, rows(90, 4)],
      ],
      [[1, rows(50, 5)]],
    ];
    for (const pieces of runs) {
      using s = new Scope();
      const ends = batchOf(whole, pieces)
        .starts.slice(1)
        .map((end) => end - 1);
      const all = forwardHidden(s, model, null, batchOf(whole, pieces), { ...options, cache: whole }).toFloat32();
      const few = forwardHidden(s, model, null, batchOf(short, pieces), { ...options, cache: short, rows: ends });
      expect(few.shape).toEqual([ends.length, D]);
      ends.forEach((row, b) => {
        expect(few.toFloat32().slice(b * D, (b + 1) * D)).toEqual(all.slice(row * D, (row + 1) * D));
      });
    }
    const more: readonly Piece[] = [[1, rows(80, 6)]],
      next: readonly Piece[] = [[1, rows(2, 7)]];
    hidden(model, whole, batchOf(whole, more));
    atOnce(cacheLayers(model, null, batchOf(short, more), { precision: 'f32', cache: short }));
    expect(hidden(model, short, batchOf(short, next))).toEqual(hidden(model, whole, batchOf(whole, next)));
  });

  it('refuses what no page is left for, and goes on', () => {
    using cache = new KvCache(config, 3, 512, 'cpu', { pages: 4 });
    hidden(model, cache, batchOf(cache, [[0, rows(100)]]));
    expect(() => hidden(model, cache, batchOf(cache, [[1, rows(129)]]))).toThrow(
      expect.objectContaining({ code: 'cache_full', details: { need: 3, room: 2, limit: 4 } }),
    );
    expect(cache.promise(1, 129)).toBe(false);
    expect(cache.promise(1, 128)).toBe(true);
    expect(() => hidden(model, cache, batchOf(cache, [[2, rows(1)]]))).toThrow(
      expect.objectContaining({ code: 'cache_full' }),
    );
    hidden(model, cache, batchOf(cache, [[0, rows(28)]]));
    expect(() => hidden(model, cache, batchOf(cache, [[0, rows(1)]]))).toThrow(/end a sequence or make the cache/);
    hidden(model, cache, batchOf(cache, [[1, rows(128)]]));
    cache.reset(0);
    hidden(model, cache, batchOf(cache, [[2, rows(100)]]));
  });

  it('keys in bf16 take half the memory and cost less than products in bf16', () => {
    using exact = new KvCache(config, 1, 512);
    using half = new KvCache(config, 1, 512, 'cpu', { dtype: 'bf16' });
    using rounding = new KvCache(config, 1, 512);
    expect(half.pageBytes * 2).toBe(exact.pageBytes);
    for (const n of [150, 40, 1, 1, 1]) {
      const batch = batchOf(exact, [[0, rows(n, n)]]);
      const want = [...hidden(model, exact, batch)];
      const keys = relativeError([...hidden(model, half, batch)], want),
        products = relativeError([...hidden(model, rounding, batch, 'bf16')], want);
      console.log(`${n} tokens: keys in bf16 ${keys.toExponential(2)}, products in bf16 ${products.toExponential(2)}`);
      expect(keys).toBeGreaterThan(0);
      expect(keys).toBeLessThan(products);
    }
  });
});

// Cached forward against uncached: prefill, several turns, decode, batches of sequences at different lengths.
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, scoreTokens } from '../../src/model/gpt-oss.js';
import { KvCache } from '../../src/model/kv-cache.js';
import type { Batch, ModelWeights } from '../../src/model/types.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { Golden, pack, relativeError } from './golden.js';

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

// A pass that stops wherever it may has the bits of one that runs whole.
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { createAdapter } from '../../src/lora/adapter.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardLayers, logits, pacedLogits } from '../../src/model/gpt-oss.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { expertCuts, MANY_ROWS, MeasuredPace, offsetsWithin, type Pace, slices } from '../../src/model/pace.js';
import { quantizeDense } from '../../src/model/q8.js';
import type { ModelAdapter, ModelWeights } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from '../infer/tiny.js';

const { dir, config } = await tinyCheckpoint();
const bf16 = openCheckpoint(dir),
  q8 = quantizeDense(openCheckpoint(dir));
const adapter = createAdapter(
  config,
  adapterSpec(config, {
    rank: 5,
    alpha: 32,
    targets: ['attention', 'experts', 'router'],
    rsLora: false,
    dropout: 0,
  }),
);
adapter.params.write(Float32Array.from({ length: adapter.params.numel }, (_, i) => Math.sin(i) * 0.15));
afterAll(() => {
  adapter.close();
  q8.close();
  bf16.close();
});

/** Slices as short as they may be. */
const shortest: Pace = { rows: (_kind, _work, least) => least, took: () => {} };
/** Hidden states of a text, read in these pieces, and how often the passes stopped. */
function hidden(
  model: ModelWeights,
  lora: ModelAdapter | null,
  precision: 'f32' | 'bf16',
  pieces: readonly number[],
  pace: Pace | null,
): { readonly bits: string; readonly stops: number } {
  using cache = new KvCache(config, 1, 400);
  const tokens = prompt(400, 3);
  let stops = 0,
    from = 0,
    bits = '';
  for (const n of pieces) {
    using s = new Scope('workspace');
    const work = forwardLayers(
      s,
      model,
      lora,
      {
        tokens: tokens.slice(from, from + n),
        positions: Int32Array.from({ length: n }, (_, i) => from + i),
        starts: Int32Array.of(0, n),
      },
      { precision, cache, pace },
    );
    for (let part = work.next(); ; part = work.next()) {
      if (part.done) {
        bits += Buffer.from(part.value.toFloat32().buffer).toString('base64');
        break;
      }
      stops++;
    }
    from += n;
  }
  return { bits, stops };
}

describe.each([
  ['f32', () => bf16, null, 'f32'],
  ['bf16', () => bf16, null, 'bf16'],
  ['8 bits', () => q8, null, 'bf16'],
  ['an adapter', () => bf16, adapter.model, 'bf16'],
  ['an adapter in f32', () => q8, adapter.model, 'f32'],
] as const)('a pass in slices: %s', (_, modelOf, lora, precision) => {
  it('has the bits of one that runs whole', () => {
    for (const pieces of [[250, 140], [17], [64, 33, 9, 1, 200]]) {
      const whole = hidden(modelOf(), lora, precision, pieces, null),
        cut = hidden(modelOf(), lora, precision, pieces, shortest);
      expect(cut.bits).toBe(whole.bits);
      expect(whole.stops).toBe(pieces.length * config.num_hidden_layers);
      if (Math.max(...pieces) >= 2 * MANY_ROWS) expect(cut.stops).toBeGreaterThan(10 * whole.stops);
    }
  });
});

/** Of a head that takes the kernels of wide rows, and whose last block is not whole: bf16, and the same in 8 bits. */
const wide = new Scope('weights');
const WIDE = { ...config, vocab_size: 333, hidden_size: 1088 };
const drawn = wide.from(
  Float32Array.from({ length: WIDE.vocab_size * WIDE.hidden_size }, (_, i) => Math.sin(i * i)),
  [WIDE.vocab_size, WIDE.hidden_size],
);
const wideHead = wide.empty('bf16', drawn.shape),
  wideQ8 = wide.empty('u8', drawn.shape),
  wideScales = wide.empty('bf16', [WIDE.vocab_size, WIDE.hidden_size / 32]);
ops.cast(wideHead, drawn);
ops.q8_quantize(wideQ8, wideScales, drawn);
afterAll(() => wide.close());
describe.each([
  ['f32', () => bf16, 'f32'],
  ['bf16', () => bf16, 'bf16'],
  ['8 bits', () => q8, 'bf16'],
  ['wide', () => ({ ...bf16, config: WIDE, head: wideHead }), 'bf16'],
  ['wide in f32', () => ({ ...bf16, config: WIDE, head: wideHead }), 'f32'],
  ['wide in 8 bits', () => ({ ...bf16, config: WIDE, head: wideQ8, headScales: wideScales }), 'bf16'],
] as const)('the head in slices: %s', (_, modelOf, precision) => {
  it('has the bits of one that runs whole', () => {
    const model: ModelWeights = modelOf(),
      { vocab_size: V, hidden_size: D } = model.config,
      blocks = Math.ceil(V / 64);
    for (const rows of [1, 3, 9, 40])
      for (const size of [1, 5, 1000]) {
        using s = new Scope('workspace');
        const x = s.from(
          Float32Array.from({ length: rows * D }, (_, i) => Math.sin(i * 1.7)),
          [rows, D],
        );
        const whole = logits(s, model, x, precision, true).toFloat32();
        const work = pacedLogits(s, model, x, precision, { rows: () => size, took: () => {} });
        let stops = 0,
          part = work.next();
        for (; !part.done; part = work.next()) stops++;
        expect(part.value.toFloat32()).toEqual(whole);
        expect(stops).toBe(Math.max(1, Math.floor(blocks / size)));
      }
  });
});

describe('where rows are cut', () => {
  it('slices cover all rows, none shorter than asked', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: 700 }), (n, size) => {
        const all = [...slices(n, size)];
        expect(all[0]?.[0]).toBe(0);
        expect(all.at(-1)?.[1]).toBe(n);
        for (const [i, [from, to]] of all.entries()) {
          expect(to - from).toBeGreaterThanOrEqual(Math.min(n, size));
          if (i > 0) expect(from).toBe(all[i - 1]?.[1]);
        }
      }),
      { numRuns: 300 },
    );
  });
  it('an expert is whole in a slice, or has many rows in each', () => {
    const counts = fc.array(fc.oneof(fc.nat({ max: 12 }), fc.nat({ max: 300 })), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(counts, fc.integer({ min: 1, max: 200 }), (rows, size) => {
        const offsets = Int32Array.from([0, ...rows]);
        for (let e = 1; e < offsets.length; e++) offsets[e] = (offsets[e] ?? 0) + (offsets[e - 1] ?? 0);
        const P = offsets.at(-1) ?? 0,
          cuts = expertCuts(offsets, size);
        expect(cuts[0]).toBe(0);
        expect(cuts.at(-1)).toBe(P);
        const seen = rows.map(() => 0);
        for (let i = 1; i < cuts.length; i++) {
          const from = cuts[i - 1] ?? 0,
            to = cuts[i] ?? 0,
            within = offsetsWithin(offsets, from, to);
          expect(to).toBeGreaterThan(from);
          expect(within[0]).toBe(0);
          expect(within.at(-1)).toBe(to - from);
          for (const [e, all] of rows.entries()) {
            const here = (within[e + 1] ?? 0) - (within[e] ?? 0);
            seen[e] = (seen[e] ?? 0) + here;
            if (here > 0 && here < all) expect(here).toBeGreaterThanOrEqual(MANY_ROWS);
          }
        }
        expect(seen).toEqual(rows);
      }),
      { numRuns: 300 },
    );
  });
});

it('slices are as long as they took before', () => {
  const pace = new MeasuredPace();
  expect(pace.rows('dense', 100, 32)).toBe(Number.POSITIVE_INFINITY);
  pace.sliceMs = 1;
  expect(pace.rows('dense', 100, 32)).toBe(32); // nothing is known yet
  pace.took('dense', 32 * 100, 0.1);
  expect(pace.rows('dense', 100, 32)).toBe(320);
  expect(pace.rows('experts', 100, 32)).toBe(32);
  pace.sliceMs = 0;
  expect(pace.rows('dense', 100, 8)).toBe(16); // no shorter than a few calls of an op
  expect(pace.rows('dense', 100, 32)).toBe(32);
});

// One tiny model on the CPU and on the (emulated) device: the same numbers within rounding, forward, backward, decoding
// and through a whole training run.
import { afterAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/infer/engine.js';
import { generateAll } from '../../src/infer/generate-all.js';
import { GREEDY } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { LoraPool } from '../../src/lora/pool.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients, scoreTokens } from '../../src/model/gpt-oss.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { quantizeDense } from '../../src/model/q8.js';
import { type ModelWeights, placeOf } from '../../src/model/types.js';
import { deviceMemory, openDevice } from '../../src/native/device.js';
import { ops } from '../../src/native/ops.js';
import { type Place, Scope } from '../../src/native/tensor.js';
import { prompt, tinyCheckpoint } from '../infer/tiny.js';
import { pack } from '../model/golden.js';
import { compareCaches } from '../model/plain-cache.js';
import { distance } from './emulated.js';

const { dir, config } = await tinyCheckpoint();
openDevice('cuda');
const before = deviceMemory();
const progress: [number, number][] = [];
const models = {
  cpu: openCheckpoint(dir),
  cuda: openCheckpoint(dir, { place: 'cuda', onProgress: (done, total) => progress.push([done, total]) }),
};
afterAll(() => {
  models.cpu.close();
  models.cuda.close();
});
const batch = pack([[...prompt(23)], [...prompt(41)], [...prompt(1)]]);
const bound = { f32: 2e-5, bf16: 2e-2 };

/**
 * Share of rows that are off by more than the bound of bf16, of the largest in all of b: where two experts nearly tie,
 * rounding sends a token to the other one, on any device.
 */
function outside(a: Float32Array, b: Float32Array, width: number): number {
  const most = bound.bf16 * b.reduce((m, x) => Math.max(m, Math.abs(x)), 0),
    rows = new Set<number>();
  b.forEach((x, i) => {
    if (!(Math.abs(x - (a[i] ?? NaN)) <= most)) rows.add(Math.floor(i / width));
  });
  return (rows.size * width) / b.length;
}

function forward(place: Place, precision: 'f32' | 'bf16', model: ModelWeights = models[place]): Float32Array {
  using s = new Scope('activations', place);
  return logits(s, model, forwardHidden(s, model, null, batch, { precision }), precision).toFloat32();
}
function step(
  place: Place,
  precision: 'f32' | 'bf16',
  model: ModelWeights = models[place],
): { nll: Float32Array; grads: Float32Array } {
  const adapter = createAdapter(
    config,
    adapterSpec(config, {
      rank: 4,
      alpha: 8,
      targets: ['attention', 'experts', 'router'],
      rsLora: false,
      dropout: 0.1,
    }),
    { seed: 5, trainable: true, place },
  );
  try {
    ops.random_uniform(adapter.params, 3, -0.05, 0.05); // B is zero in a new adapter, and with it most gradients
    const T = batch.tokens.length - 1;
    const targets = {
      rows: Int32Array.from({ length: T }, (_, i) => i),
      targets: Int32Array.from(batch.tokens.slice(1)),
      weights: new Float32Array(T).fill(1 / T),
    };
    const { nll } = lossAndGradients(model, adapter.model, batch, targets, {
      precision,
      seed: 11,
      grads: null,
      gradients: true,
    });
    return { nll, grads: adapter.grads?.toFloat32() ?? new Float32Array(0) };
  } finally {
    adapter.close();
  }
}

describe('a model on the device', () => {
  it('lies there, copied with progress', () => {
    expect(placeOf(models.cuda)).toBe('cuda');
    expect(models.cuda.embed.place).toBe('cuda');
    const weights = deviceMemory().live.weights - before.live.weights;
    expect(progress.at(-1)).toEqual([weights, weights]);
    expect(weights).toBeGreaterThan(10_000);
  });

  it('has the logits of the CPU in f32', () => {
    const there = forward('cuda', 'f32');
    expect(distance(there, forward('cpu', 'f32'))).toBeLessThan(bound.f32);
    expect(forward('cuda', 'f32')).toEqual(there);
  });
  it('has the logits of f32 in bf16 too, but for a token in ten at most', () => {
    const there = forward('cuda', 'bf16'),
      exact = forward('cpu', 'f32'),
      V = config.vocab_size;
    expect(outside(there, exact, V)).toBeLessThan(0.1);
    expect(outside(forward('cpu', 'bf16'), exact, V)).toBeLessThan(0.1);
    expect(distance(there, exact)).toBeGreaterThan(bound.f32);
    expect(forward('cuda', 'bf16')).toEqual(there);
  });

  it.each(['f32', 'bf16'] as const)('has the loss and the LoRA gradients of the CPU in %s', (precision) => {
    const here = step('cpu', precision),
      there = step('cuda', precision);
    expect(here.grads.some((x) => x !== 0)).toBe(true);
    expect(distance(there.nll, here.nll)).toBeLessThan(bound[precision]);
    expect(distance(there.grads, here.grads)).toBeLessThan(bound[precision]);
    expect(step('cuda', precision)).toEqual(there);
  });

  it('may leave its embedding on the host: the same bits', () => {
    using model = openCheckpoint(dir, { place: 'cuda', embed: 'cpu' });
    expect(model.embed.place).toBe('cpu');
    expect(forward('cuda', 'f32', model)).toEqual(forward('cuda', 'f32'));
  });

  it('decodes the tokens of the CPU, past the window and from shared prefixes', () => {
    const run = (place: Place) => {
      using session = new Session(models[place], {
        precision: 'f32',
        slots: 2,
        capacity: 160,
        prefixes: 1,
        prefillTokens: 48,
      });
      return generateAll(
        session,
        [60, 33, 70].map((n) => ({
          tokens: prompt(n),
          maxTokens: 20,
          stop: new Set<number>(),
          sampling: GREEDY,
          sharedTokens: 33,
        })),
      );
    };
    const here = run('cpu'),
      there = run('cuda');
    there.forEach((out, i) => {
      expect([...out.tokens]).toEqual([...(here[i]?.tokens ?? [])]);
      expect(distance(out.logprobs, here[i]?.logprobs ?? [])).toBeLessThan(1e-4);
    });
  });

  it('decodes rows of several adapters in one pass: those of the CPU, and each the bits that it has alone', () => {
    const choices = [{ rank: 4 }, { rank: 3, targets: ['experts', 'router'] }].map((c) =>
      adapterSpec(config, { alpha: 32, targets: ['attention', 'experts'], rsLora: false, dropout: 0, ...c }),
    );
    const run = (place: Place, together: boolean) => {
      using pool = new LoraPool(config, place);
      const adapters = choices.map((spec, i) =>
        pool.add((storage) => {
          const adapter = createAdapter(config, spec, { place, storage });
          adapter.params.write(Float32Array.from({ length: adapter.params.numel }, (_, j) => Math.sin(i + j) * 0.1));
          return adapter;
        }),
      );
      using session = new Session(models[place], { precision: 'f32', slots: 3, capacity: 20 });
      const requests = [adapters[0], null, adapters[1]].map((adapter, i) => ({
        tokens: prompt(2 + i, i),
        maxTokens: 3,
        stop: new Set<number>(),
        sampling: GREEDY,
        adapter: adapter ?? null,
      }));
      return together ? generateAll(session, requests) : requests.flatMap((r) => generateAll(session, [r]));
    };
    const there = run('cuda', true),
      here = run('cpu', true);
    expect(run('cuda', false)).toEqual(there);
    there.forEach((out, i) => {
      expect([...out.tokens]).toEqual([...(here[i]?.tokens ?? [])]);
      expect(distance(out.logprobs, here[i]?.logprobs ?? [])).toBeLessThan(1e-4);
    });
  });
  it('keeps keys in pages with the bits of a cache in lines', () => {
    const done = compareCaches(models.cuda, { seed: 7, steps: 7, most: 100 });
    expect(done).toMatchObject({ differ: -1, usedPages: 0 });
    expect(done).toMatchObject({ passes: 6, forks: 1 }); // both go on in the page they shared
  });
  it('keeps keys in bf16 with the bits of f32, where products round them anyway', () => {
    const options = { seed: 7, steps: 7, most: 100, precision: 'bf16', cache: { dtype: 'bf16' } } as const;
    expect(compareCaches(models.cuda, { ...options, plainDtype: 'f32' }).differ).toBe(-1);
  });

  it('gives the same log-probabilities in training and in serving', () => {
    const tokens = prompt(80);
    using cache = new KvCache(config, 1, 100, 'cuda');
    const trained = scoreTokens(models.cuda, null, tokens, { precision: 'bf16' });
    expect(distance(scoreTokens(models.cuda, null, tokens, { precision: 'bf16', cache }), trained)).toBeLessThan(1e-5);
    const exact = scoreTokens(models.cpu, null, tokens, { precision: 'f32' });
    expect(outside(trained, exact, 1)).toBeLessThan(0.1);
  });

  it('serves in 8 bits', () => {
    const q8 = { cpu: quantizeDense(openCheckpoint(dir)), cuda: quantizeDense(openCheckpoint(dir, { place: 'cuda' })) };
    try {
      expect(q8.cuda.head.place).toBe('cuda');
      expect(distance(forward('cuda', 'f32', q8.cuda), forward('cpu', 'f32', q8.cpu))).toBeLessThan(bound.f32);
    } finally {
      q8.cpu.close();
      q8.cuda.close();
    }
  });

  it.each(['bf16', 'q8'] as const)(
    'decodes by ops that are several in one with the bits of the others: %s',
    (dense) => {
      const own = dense === 'q8' ? quantizeDense(openCheckpoint(dir, { place: 'cuda' })) : models.cuda;
      const first = pack([[...prompt(62)], [...prompt(1)]]);
      try {
        // `byRow` lets a step take them, and changes nothing else on a device
        const [joined, apart] = [true, false].map((byRow) => {
          using s = new Scope('activations', 'cuda');
          using cache = new KvCache(config, 2, 200, 'cuda', { dtype: dense === 'q8' ? 'f32' : 'bf16' });
          forwardHidden(s, own, null, first, { precision: 'bf16', cache });
          // across the end of the ring and of a page
          return [0, 1, 2, 3].flatMap((at) => {
            const next = {
              tokens: prompt(2, at),
              positions: Int32Array.of(62 + at, 1 + at),
              starts: Int32Array.of(0, 1, 2),
            };
            return [...forwardHidden(s, own, null, next, { precision: 'bf16', cache, byRow }).toFloat32()];
          });
        });
        expect(joined).toHaveLength(4 * 2 * config.hidden_size);
        expect(joined).toEqual(apart);
      } finally {
        if (own !== models.cuda) own.close();
      }
    },
  );

  it('answers through an engine of its own thread', async () => {
    const engine = await openEngine({ model: dir, device: 'cuda', precision: 'f32', slots: 2, contextTokens: 200 });
    try {
      expect(engine.info.device).toMatchObject({ place: 'cuda', name: 'cuda:0', reason: null });
      const tokens = prompt(40);
      expect(
        distance(await engine.score({ tokens }), scoreTokens(models.cpu, null, tokens, { precision: 'f32' })),
      ).toBeLessThan(1e-4);
    } finally {
      await engine.close();
    }
  });

  it('gives all of its memory back', () => {
    openCheckpoint(dir, { place: 'cuda' }).close();
    const { live, totalLive } = deviceMemory();
    expect(totalLive).toBe(live.weights);
  });
});

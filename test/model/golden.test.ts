// The model against transformers 5.18: logits, losses, LoRA gradients and all gradients of small random checkpoints
// (test/golden/model/make_goldens.py).
import { afterAll, describe, expect, it } from 'vitest';
import { NativeError } from '../../src/base/errors.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients, MOE_CHUNK_TOKENS, scoreTokens } from '../../src/model/gpt-oss.js';
import type { Batch, LayerGrads, LinearGrads, ModelAdapter, ModelGrads, ModelWeights } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';
import { getThreads, memoryStats, Scope, setThreads, type Tensor } from '../../src/native/tensor.js';
import { elementError, Golden, goldenAdapter, pack, relativeError, rms } from './golden.js';
import { broken, roundingBound } from './rounding.js';

const goldens = ['odd', 'clamp', 'plain'].map((name) => new Golden(name));
const threads = getThreads();
afterAll(() => setThreads(threads));

function logitsOf(model: ModelWeights, sequence: readonly number[], precision: 'f32' | 'bf16'): Float32Array {
  using s = new Scope();
  return logits(s, model, forwardHidden(s, model, null, pack([sequence]), { precision }), precision).toFloat32();
}

const allLogits = (g: Golden, model: ModelWeights): Float32Array[] =>
  g.inputs.sequences.map((sequence) => logitsOf(model, sequence, 'f32'));
const nllOf = (g: Golden, model: ModelWeights): Float32Array =>
  lossAndGradients(model, null, g.batch(), g.targets(), { precision: 'f32', seed: 0, grads: null, gradients: false })
    .nll;
/** Losses, then every gradient, of the golden's LoRA pairs. */
function loraResults(g: Golden, model: ModelWeights): { nll: Float32Array; grads: Map<string, Float32Array> } {
  using s = new Scope('adapter');
  const { adapter, tensors } = goldenAdapter(g, s, model.config);
  const { nll } = lossAndGradients(model, adapter, g.batch(), g.targets(), {
    precision: 'f32',
    seed: 1,
    grads: null,
    gradients: true,
  });
  return { nll, grads: new Map(tensors.map(({ name, grad }) => [name, grad.toFloat32()])) };
}
const loraArrays = (g: Golden, model: ModelWeights): Float32Array[] => {
  const { nll, grads } = loraResults(g, model);
  return [nll, ...grads.values()];
};

describe.each(goldens)('golden $name', (g) => {
  const model = openCheckpoint(g.dir);
  afterAll(() => model.close());
  const V = model.config.vocab_size;

  it('logits in f32: every element as far from transformers as rounding explains, and no further', () => {
    const bound = roundingBound(
      model,
      (m) => allLogits(g, m),
      (a, b) => elementError(a, b, V),
    );
    const worst = (m: ModelWeights): number =>
      Math.max(...allLogits(g, m).map((got, i) => elementError(got, g.f32(`logits.${i}`), V)));
    const err = worst(model);
    console.log(`${g.name} logits f32: ${err.toExponential(2)}, bound ${bound.toExponential(2)}`);
    expect(err).toBeLessThan(bound);
    expect(bound).toBeLessThan(1e-3);
    using s = new Scope();
    expect(worst(broken(s, model))).toBeGreaterThan(bound);
  });

  it("logits in bf16 no further from the f32 truth than transformers' bf16", () => {
    let ours = 0,
      theirs = 0,
      n = 0;
    g.inputs.sequences.forEach((sequence, i) => {
      const truth = g.f32(`logits.${i}`);
      ours += rms(logitsOf(model, sequence, 'bf16'), truth) ** 2 * truth.length;
      theirs += rms(g.f32(`logits_bf16.${i}`), truth) ** 2 * truth.length;
      n += truth.length;
    });
    console.log(
      `${g.name} logits bf16: rms ${Math.sqrt(ours / n).toExponential(2)}, transformers ` +
        `${Math.sqrt(theirs / n).toExponential(2)}`,
    );
    expect(ours).toBeGreaterThan(0);
    expect(ours).toBeLessThanOrEqual(theirs);
  });

  it('nll, packed, and the score of a text', () => {
    const { nll } = lossAndGradients(model, null, g.batch(), g.targets(), {
      precision: 'f32',
      seed: 0,
      grads: null,
      gradients: false,
    });
    const bound = roundingBound(model, (m) => [nllOf(g, m)]);
    expect(relativeError(nll, g.f32('nll'))).toBeLessThan(bound);
    using s = new Scope();
    expect(relativeError(nllOf(g, broken(s, model)), g.f32('nll'))).toBeGreaterThan(bound);
    const first = g.inputs.sequences[0] ?? [];
    const score = scoreTokens(model, null, Int32Array.from(first), { precision: 'f32' });
    const rows = g.inputs.targets[0] ?? [];
    expect(
      relativeError(
        rows.map((r) => -(score[r] ?? NaN)),
        g.f32('nll').slice(0, rows.length),
      ),
    ).toBeLessThan(bound);
  });

  const ifLora = g.inputs.lora ? it : () => undefined;
  ifLora(
    'LoRA: losses and gradients of every pair; the same bits at 1, 2 and 3 threads; nothing left allocated',
    () => {
      const bound = roundingBound(model, (m) => loraArrays(g, m));
      const bits = [1, 2, 3].map((n) => {
        setThreads(n);
        using s = new Scope('adapter');
        const { adapter, tensors } = goldenAdapter(g, s, model.config);
        const before = memoryStats().totalLive;
        const { nll } = lossAndGradients(model, adapter, g.batch(), g.targets(), {
          precision: 'f32',
          seed: 1,
          grads: null,
          gradients: true,
        });
        expect(memoryStats().totalLive).toBe(before);
        expect(relativeError(nll, g.f32('lora.nll'))).toBeLessThan(bound);
        let worst = 0;
        for (const { name, grad } of tensors) {
          const err = relativeError(grad.toFloat32(), g.f32(name));
          worst = Math.max(worst, err);
          expect(err, name).toBeLessThan(bound);
        }
        if (n === 1) console.log(`${g.name} LoRA gradients: ${worst.toExponential(2)} over ${tensors.length} tensors`);
        return Buffer.concat([nll, ...tensors.map((t) => t.grad.toFloat32())].map((a) => Buffer.from(a.buffer)));
      });
      using s = new Scope();
      const twin = [...loraResults(g, broken(s, model)).grads].map(([name, grad]) => relativeError(grad, g.f32(name)));
      expect(Math.max(...twin)).toBeGreaterThan(bound);
      expect(bits[1]?.equals(bits[0] ?? Buffer.alloc(0))).toBe(true);
      expect(bits[2]?.equals(bits[0] ?? Buffer.alloc(0))).toBe(true);
    },
  );

  const gradientsOf = (model: ModelWeights): Map<string, Float32Array> => {
    using s = new Scope('optimizer');
    const all = new Map<string, Tensor>();
    const zeros = (name: string, t: Tensor, shape: readonly number[] = t.shape): Tensor => {
      const z = s.zeros('f32', shape);
      all.set(`grad.${name}`, z);
      return z;
    };
    const linear = (name: string, w: { w: Tensor; bias: Tensor | null }): LinearGrads => ({
      w: zeros(`${name}.weight`, w.w),
      bias: w.bias && zeros(`${name}.bias`, w.bias),
    });
    const { hidden_size: D, intermediate_size: F, num_local_experts: E } = model.config;
    const grads: ModelGrads = {
      embed: zeros('model.embed_tokens.weight', model.embed),
      norm: zeros('model.norm.weight', model.norm),
      head: zeros('lm_head.weight', model.head),
      layers: model.layers.map((l, i): LayerGrads => {
        const at = `model.layers.${i}.`;
        return {
          inputNorm: zeros(`${at}input_layernorm.weight`, l.inputNorm),
          postNorm: zeros(`${at}post_attention_layernorm.weight`, l.postNorm),
          sinks: zeros(`${at}self_attn.sinks`, l.sinks),
          q: linear(`${at}self_attn.q_proj`, l.q),
          k: linear(`${at}self_attn.k_proj`, l.k),
          v: linear(`${at}self_attn.v_proj`, l.v),
          o: linear(`${at}self_attn.o_proj`, l.o),
          router: linear(`${at}mlp.router`, l.router),
          gateUp: {
            w: zeros(`${at}mlp.experts.gate_up_proj`, l.gateUp.w, [E, 2 * F, D]),
            bias: l.gateUp.bias && zeros(`${at}mlp.experts.gate_up_proj_bias`, l.gateUp.bias),
          },
          down: {
            w: zeros(`${at}mlp.experts.down_proj`, l.down.w, [E, D, F]),
            bias: l.down.bias && zeros(`${at}mlp.experts.down_proj_bias`, l.down.bias),
          },
        };
      }),
    };
    lossAndGradients(model, null, g.batch(), g.targets(), { precision: 'f32', seed: 0, grads, gradients: true });
    return new Map([...all].map(([name, grad]) => [name, grad.toFloat32()]));
  };
  const ifAll = [...g.file.tensors.keys()].some((n) => n.startsWith('grad.')) ? it : () => undefined;
  ifAll('gradients of all weights', () => {
    const bound = roundingBound(model, (m) => [...gradientsOf(m).values()]);
    const errors = (m: ModelWeights): [string, number][] =>
      [...gradientsOf(m)].map(([name, grad]) => [name, relativeError(grad, g.f32(name))]);
    const found = errors(model);
    for (const [name, err] of found) expect(err, name).toBeLessThan(bound);
    const worst = Math.max(...found.map(([, err]) => err));
    console.log(
      `${g.name} all gradients: ${worst.toExponential(2)}, bound ${bound.toExponential(2)}, ${found.length} tensors`,
    );
    using s = new Scope();
    expect(Math.max(...errors(broken(s, model)).map(([, err]) => err))).toBeGreaterThan(bound);
  });

  it('every expected tensor was compared', () => {
    expect([...g.file.tensors.keys()].filter((n) => !g.read.has(n))).toEqual([]);
  });
});

it('the dequantised bf16 layout, as transformers saves it, gives the same logits', () => {
  const g = new Golden('plain');
  const model = openCheckpoint(g.dir.replace(/plain$/, 'dense'));
  expect(model.experts).toBe('dense');
  const bound = roundingBound(model, (m) => allLogits(g, m));
  for (const [i, got] of allLogits(g, model).entries())
    expect(relativeError(got, g.f32(`logits.${i}`))).toBeLessThan(bound);
  model.close();
});

it('packed equals unpacked', () => {
  const g = new Golden('odd');
  const model = openCheckpoint(g.dir);
  using s = new Scope();
  const packed = forwardHidden(s, model, null, g.batch(), { precision: 'f32' }).toFloat32();
  const alone = g.inputs.sequences.flatMap((_, i) => [
    ...forwardHidden(s, model, null, g.batch([i]), { precision: 'f32' }).toFloat32(),
  ]);
  const err = relativeError(packed, alone);
  // a few rows and many rows take different kernels: rounding, no more
  const hidden = (m: ModelWeights): Float32Array[] => {
    using inner = new Scope();
    return [forwardHidden(inner, m, null, g.batch(), { precision: 'f32' }).toFloat32()];
  };
  expect(err).toBeLessThan(roundingBound(model, hidden));
  const { rows, targets, weights } = g.targets();
  const nll = (batch: Batch, from: number, rowsOf: readonly number[]): number[] => [
    ...lossAndGradients(
      model,
      null,
      batch,
      {
        rows: Int32Array.from(rowsOf),
        targets: targets.slice(from, from + rowsOf.length),
        weights: weights.slice(from, from + rowsOf.length),
      },
      { precision: 'f32', seed: 0, grads: null, gradients: false },
    ).nll,
  ];
  let at = 0;
  const single = g.inputs.targets.flatMap((r, i) => {
    const from = at;
    at += r.length;
    return r.length ? nll(g.batch([i]), from, r) : [];
  });
  const loss = (x: readonly number[]): number => x.reduce((a, v, i) => a + v * (weights[i] ?? 0), 0);
  const packedLoss = loss(nll(g.batch(), 0, [...rows])),
    distance = Math.abs(packedLoss / loss(single) - 1);
  console.log(`packed against unpacked: hidden ${err.toExponential(2)}, loss ${distance.toExponential(2)}`);
  const mean = (m: ModelWeights): Float32Array[] => [Float32Array.of(loss([...nllOf(g, m)]))];
  expect(distance).toBeLessThan(roundingBound(model, mean));
  model.close();
});

it('a batch longer than a chunk of the experts gives the golden gradients; so do its parts, added up', () => {
  const g = new Golden('odd'),
    copies = 18;
  const model = openCheckpoint(g.dir);
  const { rows, targets, weights } = g.targets(),
    T = g.batch().tokens.length;
  expect(T * copies).toBeGreaterThan(MOE_CHUNK_TOKENS);
  const tile = <A extends Int32Array | Float32Array>(a: A, step = 0, scale = 1): number[] =>
    Array.from({ length: copies }, (_, k) => [...a].map((x) => x * scale + k * step)).flat();
  using s = new Scope('adapter');
  const { adapter, tensors } = goldenAdapter(g, s, model.config);
  const batch = pack(Array.from({ length: copies }, () => g.inputs.sequences).flat());
  lossAndGradients(
    model,
    adapter,
    batch,
    {
      rows: Int32Array.from(tile(rows, T)),
      targets: Int32Array.from(tile(targets)),
      weights: Float32Array.from(tile(weights, 0, 1 / copies)),
    },
    { precision: 'f32', seed: 0, grads: null, gradients: true },
  );
  const bound = roundingBound(model, (m) => loraArrays(g, m));
  for (const { name, grad } of tensors) expect(relativeError(grad.toFloat32(), g.f32(name)), name).toBeLessThan(bound);
  for (const { grad } of tensors) ops.fill(grad, 0);
  let at = 0;
  for (let i = 0; i < g.inputs.sequences.length; i++) {
    const n = g.inputs.targets[i]?.length ?? 0,
      from = at;
    if (n > 0)
      lossAndGradients(
        model,
        adapter,
        g.batch([i]),
        {
          rows: Int32Array.from(g.inputs.targets[i] ?? []),
          targets: targets.slice(from, from + n),
          weights: weights.slice(from, from + n),
        },
        { precision: 'f32', seed: 0, grads: null, gradients: true },
      );
    at += n;
  }
  for (const { name, grad } of tensors) expect(relativeError(grad.toFloat32(), g.f32(name)), name).toBeLessThan(bound);
  model.close();
});

it('with dropout, the recomputed layer drops what the forward dropped: gradients match differences of the loss', () => {
  const g = new Golden('odd');
  const model = openCheckpoint(g.dir);
  using s = new Scope('adapter');
  const plain = goldenAdapter(g, s, model.config);
  const adapter: ModelAdapter = {
    layers: plain.adapter.layers.map((l) =>
      Object.fromEntries(
        Object.entries(l).map(([t, pair]) => [t, { ...pair, dropout: t === 'gateUp' || t === 'down' ? 0 : 0.4 }]),
      ),
    ),
  };
  const t = g.targets();
  const loss = (seed: number): number => {
    const { nll } = lossAndGradients(model, adapter, g.batch(), t, {
      precision: 'f32',
      seed,
      grads: null,
      gradients: true,
    });
    return nll.reduce((a, x, i) => a + x * (t.weights[i] ?? 0), 0);
  };
  const first = loss(7);
  const grads = plain.tensors.map(({ grad }) => grad.toFloat32());
  expect(loss(7)).toBe(first);
  expect(loss(8)).not.toBe(first);
  let checked = 0;
  for (const [layer, target] of [
    [0, 'q'],
    [1, 'o'],
    [2, 'v'],
    [0, 'router'],
  ] as const) {
    const B = adapter.layers[layer]?.[target]?.B ?? expect.fail('no pair');
    const grad =
      grads[plain.tensors.findIndex((x) => x.grad === plain.adapter.layers[layer]?.[target]?.dB)] ?? new Float32Array();
    const at = grad.reduce((best, x, i) => (Math.abs(x) > Math.abs(grad[best] ?? 0) ? i : best), 0);
    const values = B.toFloat32(),
      kept = values[at] ?? 0,
      eps = 4e-3;
    const ends = [kept + eps, kept - eps].map((x) => {
      values[at] = x;
      B.write(values);
      return loss(7);
    });
    values[at] = kept;
    B.write(values);
    const difference = ((ends[0] ?? NaN) - (ends[1] ?? NaN)) / (2 * eps);
    expect(Math.abs(difference / (grad[at] ?? NaN) - 1), `${target} of layer ${layer}`).toBeLessThan(0.02);
    checked++;
  }
  expect(checked).toBe(4);
  model.close();
});

it('refuses a batch that does not add up, and a token outside the vocabulary', () => {
  const model = openCheckpoint(new Golden('odd').dir);
  using s = new Scope();
  const live = memoryStats().totalLive;
  const run = (batch: Batch) => () => forwardHidden(s, model, null, batch, { precision: 'f32' });
  expect(run({ ...pack([[1, 2]]), starts: Int32Array.of(0, 3) })).toThrow(/bad_batch|batch: 2 tokens/);
  expect(run({ ...pack([[1, 2]]), starts: Int32Array.of(0, 0, 2) })).toThrow(/batch/);
  expect(run(pack([[]]))).toThrow(/batch/);
  expect(run(pack([[257]]))).toThrow(NativeError);
  expect(run(pack([[-1]]))).toThrow(NativeError);
  expect(memoryStats().totalLive).toBe(live);
  model.close();
});

// Merging an adapter into its weights, and training through it, against numpy and PyTorch: made by
// test/golden/merge/make_merge.py.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadDataset } from '../../src/data/load.js';
import { packBatch } from '../../src/data/pack.js';
import { readPeft } from '../../src/lora/peft.js';
import { MATRIX_NAME } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients } from '../../src/model/gpt-oss.js';
import { type MergedModel, mergedModel, mergeExperts } from '../../src/model/merged.js';
import type { Batch, ModelWeights } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';
import { openSafetensors } from '../../src/native/safetensors.js';
import { getThreads, Scope, setThreads, type Tensor } from '../../src/native/tensor.js';
import { goldenRoot } from './golden.js';

const root = join(goldenRoot, '..', 'merge'),
  trained = join(goldenRoot, '..', 'train');
const base = openCheckpoint(join(goldenRoot, 'odd'));
afterAll(() => base.close());

const batchOf = (tokens: Int32Array): Batch => ({
  tokens,
  positions: Int32Array.from(tokens, (_, i) => i),
  starts: Int32Array.of(0, tokens.length),
});
function logitsOf(model: ModelWeights, tokens: Int32Array): Float32Array {
  using s = new Scope('activations');
  return logits(s, model, forwardHidden(s, model, null, batchOf(tokens), { precision: 'f32' }), 'f32').toFloat32();
}
const largest = (x: Float32Array): number => x.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
/** Largest |difference|, NaN counting as infinite. */
const distance = (a: Float32Array, b: Float32Array): number =>
  a.length === b.length
    ? a.reduce((worst, x, i) => {
        const d = Math.abs(x - (b[i] ?? Number.NaN));
        return d <= worst ? worst : Number.isNaN(d) ? Infinity : d;
      }, 0)
    : Infinity;

async function rows() {
  const { examples } = await loadDataset([{ path: join(trained, 'rows.jsonl'), format: 'tokens' }], {
    tokenizer: null,
    vocabSize: base.config.vocab_size,
    maxTokens: 64,
    loss: { analysis: 1, commentary: 1, final: 1 },
  });
  return Array.from(examples);
}

describe('merging', () => {
  it('blocks become those of an exact implementation, byte for byte', () => {
    using file = openSafetensors(join(root, 'blocks.safetensors'));
    const names = new Set([...file.tensors.keys()].map((k) => k.slice(0, k.indexOf('.'))));
    expect(names.size).toBe(9);
    for (const name of names) {
      using s = new Scope();
      const shaped = (part: string): Tensor => {
        const { shape, dtype } = file.entry(`${name}.${part}`),
          bytes = file.bytes(`${name}.${part}`);
        const data = dtype === 'F32' ? new Float32Array(bytes.slice().buffer) : bytes.slice();
        return s.from(data, [1, ...shape]);
      };
      const [w, scales] = [shaped('base'), shaped('base_scales')];
      const to = { w: s.empty('u8', w.shape), scales: s.empty('u8', scales.shape) };
      const scale = new Float32Array(file.bytes(`${name}.scale`).slice().buffer)[0] ?? Number.NaN;
      mergeExperts(to, { w, scales }, { A: shaped('A'), B: shaped('B'), scale });
      expect(Buffer.from(to.scales.read().buffer), `${name} scales`).toEqual(Buffer.from(file.bytes(`${name}.scales`)));
      expect(Buffer.from(to.w.read().buffer), `${name} blocks`).toEqual(Buffer.from(file.bytes(`${name}.blocks`)));
    }
  });

  it('a layer becomes that of numpy, byte for byte; kept or made layer by layer, and again after a refresh', () => {
    using file = openSafetensors(join(root, 'merged.safetensors'));
    const adapter = readPeft(join(trained, 'adapter'), base.config);
    const bytes = (t: Tensor): Buffer => {
      const data = t.read();
      return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    };
    const check = (model: MergedModel): void => {
      let compared = 0;
      const same = (t: Tensor, name: string): void => {
        expect(bytes(t).equals(Buffer.from(file.bytes(`model.layers.1.${name}`))), name).toBe(true);
        compared++;
      };
      const layer = model.layers[1] ?? expect.fail('no layer');
      for (const t of ['q', 'k', 'v', 'o'] as const) same(layer[t].w, `self_attn.${MATRIX_NAME[t]}.weight`);
      same(layer.router.w, 'mlp.router.weight');
      for (const t of ['gateUp', 'down'] as const) {
        same(layer[t].w, `mlp.experts.${MATRIX_NAME[t]}_blocks`);
        same(layer[t].scales ?? expect.fail('no scales'), `mlp.experts.${MATRIX_NAME[t]}_scales`);
      }
      expect(compared).toBe(file.tensors.size);
    };
    for (const keep of [true, false]) {
      const model = mergedModel(base, adapter.model, { keep });
      check(model);
      const other = bytes((model.layers[0] ?? expect.fail('no layer')).gateUp.w);
      check(model);
      expect(bytes((model.layers[0] ?? expect.fail('no layer')).gateUp.w).equals(other)).toBe(true);
      const before = adapter.params.toFloat32();
      ops.fill(adapter.params, 0);
      if (keep) check(model); // what is kept stays until it is told
      model.refresh();
      // Nothing is left of the adapter: the released bytes themselves.
      for (const t of ['q', 'gateUp', 'down'] as const) {
        const [got, want] = [model.layers[1]?.[t], base.layers[1]?.[t]];
        expect(got && want && bytes(got.w).equals(bytes(want.w)), t).toBe(true);
      }
      adapter.params.write(before);
      model.refresh();
      check(model);
      model.close();
    }
    adapter.close();
  });
});

describe('training through the merge', () => {
  it("logits are PyTorch's of the merged model", async () => {
    using file = openSafetensors(join(root, 'logits.safetensors'));
    const want = new Float32Array(file.bytes('logits').slice().buffer);
    const adapter = readPeft(join(trained, 'adapter'), base.config);
    const model = mergedModel(base, adapter.model);
    const tokens = (await rows())[0]?.tokens ?? expect.fail('no row');
    const got = logitsOf(model, tokens);
    expect(distance(got, want) / largest(want)).toBeLessThan(1e-5);
    // What the adapter is without rounding is another model.
    using s = new Scope('activations');
    const plain = logits(
      s,
      base,
      forwardHidden(s, base, adapter.model, batchOf(tokens), { precision: 'f32' }),
      'f32',
    ).toFloat32();
    expect(distance(plain, want) / largest(want)).toBeGreaterThan(1e-2);
    model.close();
    adapter.close();
  });

  it("gradients are PyTorch's, straight through the rounding, every element", async () => {
    const truth = JSON.parse(readFileSync(join(root, 'grads', 'loss.json'), 'utf8')) as { loss: number };
    const examples = await rows();
    const packed = packBatch(examples);
    const weights = packed.targets.weights.reduce((a, b) => a + b, 0);
    const targets = { ...packed.targets, weights: packed.targets.weights.map((w) => w / weights) };
    const wanted = readPeft(join(root, 'grads'), base.config);
    const found: Float32Array[] = [];
    for (const [keep, threads] of [
      [true, 1],
      [false, 2],
    ] as const) {
      const before = getThreads();
      setThreads(threads);
      const adapter = readPeft(join(trained, 'adapter'), base.config, { trainable: true });
      const model = mergedModel(base, adapter.model, { keep });
      const options = { precision: 'f32', seed: 1, grads: null, gradients: true } as const;
      const { nll } = lossAndGradients(model, null, packed.batch, targets, options);
      const loss = nll.reduce((sum, x, i) => sum + x * (targets.weights[i] ?? 0), 0);
      expect(Math.abs(loss - truth.loss)).toBeLessThan(1e-5);
      const grads = adapter.grads ?? expect.fail('no gradients');
      found.push(grads.toFloat32());
      let worst = 0;
      adapter.entries.forEach((e, i) => {
        using s = new Scope();
        const got = grads.view(s, e.shape, e.offset).toFloat32(),
          want = wanted.tensors[i]?.toFloat32() ?? expect.fail('no tensor');
        const error = distance(got, want) / largest(want);
        worst = Math.max(worst, error);
        expect(error, `${e.layer} ${e.target} ${e.part}`).toBeLessThan(1e-4);
      });
      console.log(`gradients through the merge, worst: ${worst.toExponential(2)}`);
      model.close();
      adapter.close();
      setThreads(before);
    }
    wanted.close();
    expect(found[0]).toEqual(found[1]);
  });

  it('a base without MXFP4 is refused', () => {
    using dense = openCheckpoint(join(goldenRoot, 'dense'));
    expect(() => mergedModel(dense, { layers: [] })).toThrow(expect.objectContaining({ code: 'not_mxfp4' }));
  });
});

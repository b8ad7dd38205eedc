// ORPO against PyTorch's autograd with TRL's odds ratio (test/golden/train/make_orpo.py), against finite differences,
// and as a recipe: trained, evaluated, gone on with, planned.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadDataset } from '../../src/data/load.js';
import { planSteps } from '../../src/data/order.js';
import type { PackedBatch } from '../../src/data/pack.js';
import { evaluateLoss } from '../../src/evaluate/held-out-loss.js';
import type { Adapter } from '../../src/lora/adapter.js';
import { readPeft } from '../../src/lora/peft.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { Scope } from '../../src/native/tensor.js';
import type { Learner, Weigh } from '../../src/objectives/learner.js';
import { orpo } from '../../src/objectives/orpo.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { learnAdapter } from '../../src/train/adapter-learner.js';
import { trainLoop } from '../../src/train/loop.js';
import { runTraining } from '../../src/train/session.js';
import { planTraining } from '../../src/train/train.js';
import { goldenRoot } from '../model/golden.js';
import { distance } from './distance.js';
import { tinyPairs, tinyRun } from './tiny.js';

const root = join(goldenRoot, '..', 'train');
const base = openCheckpoint(join(goldenRoot, 'odd'));
afterAll(() => base.close());
const { examples } = await loadDataset([{ path: join(root, 'rows.jsonl'), format: 'tokens' }], {
  tokenizer: null,
  vocabSize: base.config.vocab_size,
  maxTokens: 64,
  loss: { analysis: 1, commentary: 1, final: 1 },
});
const FIGURES = ['loss', 'gradNorm', 'margin', 'rewardChosen', 'rewardRejected'] as const;
const golden = JSON.parse(readFileSync(join(root, 'orpo.json'), 'utf8')) as {
  readonly settings: { readonly beta: number };
  readonly steps: readonly Readonly<Record<(typeof FIGURES)[number] | 'accuracy', number>>[];
};
const { options } = JSON.parse(readFileSync(join(root, 'expected.json'), 'utf8')) as {
  options: { lr: number; betas: [number, number]; eps: number; weightDecay: number; clipGradNorm: number };
};
const open = (name = 'adapter'): Adapter => readPeft(join(root, name), base.config, { trainable: true });
const objective = orpo(golden.settings);
const batchesOf = (tokensPerBatch: number): readonly PackedBatch[] =>
  objective.batches([...examples], { tokensPerBatch, packing: true });

describe('ORPO', () => {
  it.each([200, 64])("five steps give PyTorch's figures and adapter: batches of %d", async (tokensPerBatch) => {
    using scope = new Scope('optimizer');
    const adapter = open();
    const moments = { m: scope.zeros('f32', adapter.params.shape), v: scope.zeros('f32', adapter.params.shape) };
    const plan = planSteps(examples.inputLengths(2), { seed: 1, steps: 5, rowsPerStep: 2 });
    const steps = { ...options, seed: 1, packing: true, schedule: 'constant' as const, warmup: 0, minLr: 0 };
    let n = 0;
    const learner = learnAdapter(base, adapter, { precision: 'f32', folder: root });
    for await (const m of trainLoop(learner, moments, examples, plan, 0, { ...steps, tokensPerBatch, objective })) {
      const want = golden.steps[n++] ?? expect.fail('a step too many');
      for (const key of FIGURES)
        expect(Math.abs((m[key] ?? Number.NaN) / want[key] - 1), `${key} of step ${n}`).toBeLessThan(1e-4);
      expect(m.accuracy).toBe(want.accuracy);
    }
    expect(n).toBe(5);
    const [after, before] = [open('adapter.orpo'), open()];
    adapter.entries.forEach((_, i) => {
      const [got, want, old] = [adapter, after, before].map((a) => a.tensors[i]?.toFloat32() ?? new Float32Array());
      let [moved, off] = [0, 0];
      want?.forEach((w, k) => {
        moved = Math.max(moved, Math.abs(w - (old?.[k] ?? 0)));
        off = Math.max(off, Math.abs(w - (got?.[k] ?? Number.NaN)));
      });
      expect(off).toBeLessThan(0.01 * moved);
    });
    for (const a of [adapter, after, before]) a.close();
  });

  it("has PyTorch's gradient of every tensor", () => {
    const [adapter, want] = [open(), open('grads.orpo')];
    const learner = learnAdapter(base, adapter, { precision: 'f32', folder: root });
    for (const packed of batchesOf(64)) objective.gradients(learner, packed, 1);
    const grads = adapter.grads?.toFloat32() ?? new Float32Array();
    expect(adapter.entries.length).toBeGreaterThan(20);
    adapter.entries.forEach(({ offset, shape, layer, target, part }, i) => {
      const got = grads.subarray(offset, offset + shape.reduce((a, b) => a * b, 1));
      expect(distance(got, want.tensors[i]?.toFloat32()), `layer ${layer} ${target} ${part}`).toBeLessThan(1e-4);
    });
    for (const a of [adapter, want]) a.close();
  });

  /** Loss and weights that the objective makes of these nll, in double. */
  const at = (packed: PackedBatch, nll: Float64Array): { readonly loss: number; readonly weights: Float32Array } => {
    let weights: Float32Array = new Float32Array();
    const learner = {
      lossAndGradients: (_b: unknown, _t: unknown, _s: unknown, weigh: Weigh) => {
        weights = weigh(nll as unknown as Float32Array);
        return new Float32Array();
      },
    };
    return { loss: objective.gradients(learner as unknown as Learner, packed, 1).loss, weights };
  };

  it('weighs each token by the derivative of its loss', () => {
    const [packed] = batchesOf(500);
    if (!packed) throw new Error('no batch');
    const nll = Float64Array.from(packed.targets.rows, (_, i) => 0.3 + ((i * 37) % 11) / 7);
    const { weights } = at(packed, nll);
    const h = 1e-5;
    weights.forEach((w, i) => {
      const moved = (d: number): number =>
        at(
          packed,
          nll.map((x, k) => (k === i ? x + d : x)),
        ).loss;
      expect(Math.abs((moved(h) - moved(-h)) / (2 * h) - w)).toBeLessThan(1e-7);
    });
    expect(new Set(Array.from(weights, Math.sign))).toEqual(new Set([1, -1]));
  });

  it('stays finite where an answer is certain, or out of the question', () => {
    const [packed] = batchesOf(500);
    if (!packed) throw new Error('no batch');
    for (const value of [0, 1e-9, 50, 1e4]) {
      const { loss, weights } = at(packed, new Float64Array(packed.targets.rows.length).fill(value));
      expect(Number.isFinite(loss)).toBe(true);
      expect(weights.every(Number.isFinite)).toBe(true);
    }
  });
});

describe('a recipe of method orpo', () => {
  let dir = '';
  const file = (...p: string[]): string => join(dir, ...p);
  beforeAll(async () => {
    dir = await tinyRun({
      train: 'method: orpo, beta: 0.5, steps: 8, rowsPerStep: 4, lr: 1.0e-2, precision: f32, evalEvery: 4',
    });
    const text = readFileSync(file('recipe.yaml'), 'utf8').replaceAll('format: tokens', 'format: preference');
    writeFileSync(file('recipe.yaml'), text);
    writeFileSync(file('train.jsonl'), tinyPairs(26));
    writeFileSync(file('eval.jsonl'), tinyPairs(6, 100));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const adapterOf = (run: string): Buffer => readFileSync(file('runs', run, 'adapter', 'adapter_model.safetensors'));

  it('comes to prefer what was chosen, is evaluated as temper eval does it, and resumes to the bit', async () => {
    const { peakBytes } = await runTraining({ recipe: file('recipe.yaml'), out: file('runs', 'whole') });
    const metrics = readMetrics(file('runs', 'whole'));
    const last = metrics.at(-1);
    expect(last?.loss).toBeLessThan(metrics[0]?.loss ?? 0);
    expect(last?.margin).toBeGreaterThan(metrics[0]?.margin ?? 0);
    const { preference } = await evaluateLoss({ path: file('runs', 'whole') });
    expect(preference).toMatchObject({ pairs: 6, loss: last?.evalLoss, margin: last?.evalMargin });
    const plan = await planTraining(file('recipe.yaml'), {});
    expect(plan.referenceSeconds).toBe(0);
    expect(plan.totalPeakBytes).toBeGreaterThanOrEqual(peakBytes); // as if every thread had work; see recipes.test.ts

    const stop = new AbortController();
    await runTraining(
      { recipe: file('recipe.yaml'), out: file('runs', 'cut') },
      { signal: stop.signal, onProgress: ({ step }) => step === 5 && stop.abort() },
    );
    await runTraining({ recipe: file('recipe.yaml'), out: file('runs', 'cut'), resume: true });
    expect(adapterOf('cut').equals(adapterOf('whole'))).toBe(true);
  });

  it('refuses what it has no use for', async () => {
    for (const [set, words] of [
      ['train.loss=ipo', 'is for method dpo'],
      ['train.precomputeReference=true', 'is for method dpo'],
      ['data.train.0.format=tokens', 'wanted'],
    ] as const)
      await expect(runTraining({ recipe: file('recipe.yaml'), out: file('runs', 'none'), set: [set] })).rejects.toThrow(
        words,
      );
  });
});

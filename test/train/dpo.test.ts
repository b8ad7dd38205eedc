// The seam for objectives that look at the forward pass, and DPO, which does: against PyTorch's autograd
// (test/golden/train/make_dpo.py), against finite differences, and as a recipe from file to adapter.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { Example } from '../../src/data/example.js';
import { loadDataset } from '../../src/data/load.js';
import { planSteps } from '../../src/data/order.js';
import { packBatch } from '../../src/data/pack.js';
import { evaluateLoss } from '../../src/evaluate/held-out-loss.js';
import type { Adapter } from '../../src/lora/adapter.js';
import { readPeft } from '../../src/lora/peft.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { lossAndGradients } from '../../src/model/gpt-oss.js';
import { createTrainable } from '../../src/model/trainable.js';
import { ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';
import { type DpoSettings, dpo } from '../../src/objectives/dpo.js';
import { sft } from '../../src/objectives/objective.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { learnAdapter } from '../../src/train/adapter-learner.js';
import { trainLoop } from '../../src/train/loop.js';
import { planRecipe } from '../../src/train/plan.js';
import { runTraining } from '../../src/train/session.js';
import { goldenRoot } from '../model/golden.js';
import { distance } from './distance.js';
import { tinyConfig } from './tiny.js';

const root = join(goldenRoot, '..', 'train');
const base = openCheckpoint(join(goldenRoot, 'odd'));
afterAll(() => base.close());
const { examples } = await loadDataset([{ path: join(root, 'rows.jsonl'), format: 'tokens' }], {
  tokenizer: null,
  vocabSize: base.config.vocab_size,
  maxTokens: 64,
  loss: { analysis: 1, commentary: 1, final: 1 },
});
const rows = [...examples];
const FIGURES = ['loss', 'gradNorm', 'margin', 'rewardChosen', 'rewardRejected'] as const;
interface Case {
  readonly name: string;
  readonly settings: DpoSettings;
  readonly steps: readonly Readonly<Record<(typeof FIGURES)[number] | 'accuracy', number>>[];
}
const cases = JSON.parse(readFileSync(join(root, 'dpo.json'), 'utf8')) as readonly Case[];
const { options } = JSON.parse(readFileSync(join(root, 'expected.json'), 'utf8')) as {
  options: { lr: number; betas: [number, number]; eps: number; weightDecay: number; clipGradNorm: number };
};
const open = (name = 'adapter'): Adapter => readPeft(join(root, name), base.config, { trainable: true });
const learnerOf = (adapter: Adapter) => learnAdapter(base, adapter, { precision: 'f32', folder: root });
const gradsOf = (adapter: Adapter): Float32Array => adapter.grads?.toFloat32() ?? new Float32Array();

describe('DPO', () => {
  it('has cases of each loss', () => {
    expect(cases.map((c) => c.name)).toEqual(['dpo', 'smooth', 'ipo']);
  });
  it.each([
    ['dpo', 'both pairs in a batch', true, 200],
    ['dpo', 'a pair a batch', true, 64],
    ['dpo', 'no packing', false, 64],
    ['smooth', 'both pairs in a batch', true, 200],
    ['ipo', 'a pair a batch', true, 64],
  ])(
    "%s: five steps of AdamW give PyTorch's losses, norms, margins, rewards and adapter: %s",
    async (name, _, packing, tokensPerBatch) => {
      const expected = cases.find((c) => c.name === name) ?? expect.fail('no such case');
      using scope = new Scope('optimizer');
      const adapter = open();
      const moments = { m: scope.zeros('f32', adapter.params.shape), v: scope.zeros('f32', adapter.params.shape) };
      const plan = planSteps(examples.inputLengths(2), { seed: 1, steps: 5, rowsPerStep: 2 });
      const loop = { ...options, seed: 1, packing, tokensPerBatch, schedule: 'constant' as const, warmup: 0, minLr: 0 };
      let n = 0;
      for await (const m of trainLoop(learnerOf(adapter), moments, examples, plan, 0, {
        ...loop,
        objective: dpo(expected.settings),
      })) {
        const want = expected.steps[n++];
        if (!want) throw new Error('a step too many');
        // Rewards are differences of sums of log-probabilities: one that comes out near 0 is as exact as the greater.
        const reward = Math.max(Math.abs(want.rewardChosen), Math.abs(want.rewardRejected));
        for (const key of FIGURES) {
          const scale = key.startsWith('reward') ? reward : Math.abs(want[key]);
          expect(Math.abs((m[key] ?? Number.NaN) - want[key]) / scale, `${key} of step ${n}`).toBeLessThan(1e-4);
        }
        expect(m.accuracy).toBe(want.accuracy);
      }
      expect(n).toBe(5);
      const after = open(`adapter.${name}`);
      const before = open();
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
    },
  );

  it.each(cases.filter((c) => c.name !== 'dpo'))("$name: PyTorch's gradient of every tensor", ({ name, settings }) => {
    const [adapter, want] = [open(), open(`grads.${name}`)];
    const objective = dpo(settings);
    for (const packed of objective.batches(rows, { tokensPerBatch: 64, packing: true }))
      objective.gradients(learnerOf(adapter), packed, 1);
    const grads = gradsOf(adapter);
    expect(adapter.entries.length).toBeGreaterThan(20);
    adapter.entries.forEach(({ offset, shape, layer, target, part }, i) => {
      const got = grads.subarray(offset, offset + shape.reduce((a, b) => a * b, 1));
      expect(distance(got, want.tensors[i]?.toFloat32()), `layer ${layer} ${target} ${part}`).toBeLessThan(1e-4);
    });
    for (const a of [adapter, want]) a.close();
  });

  it('are what TRL computes of the same pairs: loss, rewards, gradient of every tensor', async () => {
    const trl = JSON.parse(readFileSync(join(root, 'trl.json'), 'utf8')) as {
      readonly rows: readonly object[];
      readonly cases: readonly {
        readonly loss: 'sigmoid' | 'ipo';
        readonly beta: number;
        readonly value: number;
        readonly chosen: number;
        readonly rejected: number;
        readonly accuracies: number;
        readonly margins: number;
      }[];
    };
    const dir = mkdtempSync(join(tmpdir(), 'temper-trl-'));
    const path = join(dir, 'pairs.jsonl');
    writeFileSync(path, trl.rows.map((row) => JSON.stringify(row)).join('\n'));
    const pairs = await loadDataset([{ path, format: 'preference' }], {
      tokenizer: null,
      vocabSize: base.config.vocab_size,
      maxTokens: 64,
      loss: { analysis: 1, commentary: 1, final: 1 },
      examplesPerSample: 2,
    });
    rmSync(dir, { recursive: true });
    expect(trl.cases.map((c) => c.loss)).toEqual(['sigmoid', 'ipo']);
    for (const { loss, beta, ...want } of trl.cases) {
      const [adapter, grads] = [open(), open(`grads.trl-${loss}`)];
      const objective = dpo({ beta, loss });
      const [packed] = objective.batches([...pairs.examples], { tokensPerBatch: 500, packing: true });
      if (!packed) throw new Error('no batch');
      const share = objective.gradients(learnerOf(adapter), packed, 1);
      // A reward is a difference of sums that TRL keeps in f32, of up to 21 tokens of some ln 256 nats.
      const lost = beta * 4 * 2 ** -24 * 21 * Math.log(base.config.vocab_size);
      const { accuracy, margin = 0, rewardChosen = 0, rewardRejected = 0 } = share.figures ?? {};
      expect(accuracy).toBe(want.accuracies);
      for (const [got, of] of [
        [share.loss, want.value],
        [margin, want.margins],
        [rewardChosen, want.chosen],
        [rewardRejected, want.rejected],
      ] as const)
        expect(Math.abs(got - of)).toBeLessThan(1e-4 * Math.abs(of) + lost);
      const flat = gradsOf(adapter);
      adapter.entries.forEach(({ offset, shape, layer, target, part }, i) => {
        const got = flat.subarray(offset, offset + shape.reduce((a, b) => a * b, 1));
        expect(distance(got, grads.tensors[i]?.toFloat32()), `layer ${layer} ${target} ${part}`).toBeLessThan(1e-4);
      });
      for (const a of [adapter, grads]) a.close();
    }
  });

  it.each<DpoSettings>([{ beta: 0.3 }, { beta: 0.3, labelSmoothing: 0.3 }, { beta: 0.3, loss: 'ipo' }])(
    'its weights are the derivative of its loss, by finite differences in the nll: %o',
    (settings) => {
      const objective = dpo(settings);
      const [packed] = objective.batches(rows, { tokensPerBatch: 500, packing: true });
      if (!packed) throw new Error('no batch');
      const S = packed.targets.rows.length;
      const nll = Float64Array.from({ length: S }, (_, i) => 1 + ((i * 37) % 11) / 7);
      const reference = Float32Array.from(nll, (x, i) => x + (((i * 13) % 5) - 2) / 50);
      let weights: Float32Array = new Float32Array();
      const lossAt = (x: Float64Array): number => {
        const learner = {
          reference: () => reference,
          lossAndGradients: (_b: unknown, _t: unknown, _s: unknown, weigh: (n: Float32Array) => Float32Array) => {
            weights = weigh(x as unknown as Float32Array); // in double: differences stay exact enough
            return new Float32Array();
          },
        };
        return objective.gradients(learner as never, packed, 1).loss;
      };
      lossAt(nll);
      const analytic = weights.slice();
      const h = 1e-5;
      let signs = new Set<number>();
      for (let i = 0; i < S; i++) {
        const at = (d: number): number => lossAt(nll.map((x, k) => (k === i ? x + d : x)));
        const numeric = (at(h) - at(-h)) / (2 * h);
        expect(Math.abs(numeric - (analytic[i] ?? 0))).toBeLessThan(1e-7);
        signs = signs.add(Math.sign(analytic[i] ?? 0));
      }
      expect(signs).toEqual(new Set([1, -1]));
    },
  );

  it('an adapter that changes nothing has the loss log 2 and no margin', () => {
    using scope = new Scope('adapter');
    const adapter = open();
    // B of every pair to zero: y = W x.
    const zero = scope.zeros('f32', adapter.params.shape);
    adapter.params.copy(zero);
    const objective = dpo({ beta: 0.1 });
    const [packed] = objective.batches(rows, { tokensPerBatch: 500, packing: true });
    if (!packed) throw new Error('no batch');
    const share = objective.gradients(learnerOf(adapter), packed, 1);
    expect(Math.abs(share.loss - Math.log(2))).toBeLessThan(1e-6);
    expect(Math.abs(share.figures?.margin ?? 1)).toBeLessThan(1e-6);
    adapter.close();
  });

  it('huge margins neither overflow nor lose their sign', () => {
    const objective = dpo({ beta: 1e4 });
    const adapter = open();
    const [packed] = objective.batches(rows, { tokensPerBatch: 500, packing: true });
    if (!packed) throw new Error('no batch');
    const { loss } = objective.gradients(learnerOf(adapter), packed, 1);
    expect(loss).toBeGreaterThanOrEqual(0);
    expect(Number.isFinite(loss)).toBe(true);
    expect(gradsOf(adapter).every(Number.isFinite)).toBe(true);
    adapter.close();
  });
});

describe('weights that depend on the forward pass', () => {
  const { batch, targets } = packBatch(rows, 0.125);
  const run = (over: Partial<Parameters<typeof lossAndGradients>[4]>, given = targets) => {
    const adapter = open();
    const { nll } = lossAndGradients(base, adapter.model, batch, given, {
      precision: 'f32',
      seed: 3,
      grads: null,
      gradients: true,
      ...over,
    });
    const grads = gradsOf(adapter);
    adapter.close();
    return { nll, grads };
  };
  const bits = (x: Float32Array): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength);

  it('that are the given ones give the bits of the single pass', () => {
    const fixed = run({});
    let seen: Float32Array = new Float32Array();
    const weighed = run({
      weigh: (nll) => {
        seen = nll.slice();
        return targets.weights;
      },
    });
    expect(bits(weighed.nll).equals(bits(fixed.nll))).toBe(true);
    expect(bits(seen).equals(bits(fixed.nll))).toBe(true);
    expect(bits(weighed.grads).equals(bits(fixed.grads))).toBe(true);
    expect(fixed.grads.some((g) => g !== 0)).toBe(true);
  });
  it('give the gradient of those weights, of either sign, whatever the targets say', () => {
    const chosen = targets.weights.map((w, i) => (i % 3 === 0 ? -w : 2 * w));
    const weighed = run({ weigh: () => chosen });
    const fixed = run({}, { ...targets, weights: chosen });
    expect(bits(weighed.grads).equals(bits(fixed.grads))).toBe(true);
  });
  it('count head, norm and embedding of a whole model once, in bf16 and with activations on disk too', () => {
    const model = createTrainable(tinyConfig, { seed: 3 });
    const sequence = Int32Array.from({ length: 40 }, (_, i) => (i * 7) % 96);
    const small = packBatch([{ tokens: sequence, weights: new Float32Array(40).fill(0.5), source: rows[0]!.source }]);
    const gradients = (over: Partial<Parameters<typeof lossAndGradients>[4]>): Buffer => {
      ops.fill(model.grads, 0);
      lossAndGradients(model.model, null, small.batch, small.targets, {
        precision: 'f32',
        seed: 3,
        grads: model.gradViews,
        gradients: true,
        ...over,
      });
      return Buffer.from(model.grads.toFloat32().buffer);
    };
    const weigh = (): Float32Array => small.targets.weights;
    for (const over of [{}, { precision: 'bf16' as const }, { offload: tmpdir() }])
      expect(gradients({ ...over, weigh }).equals(gradients(over))).toBe(true);
    model.close();
  });
  it('are not asked for where there is no backward pass', () => {
    const asked = run({ gradients: false, weigh: () => expect.fail('asked') });
    expect(asked.nll.length).toBe(targets.rows.length);
  });
});

describe('samples of two examples', () => {
  it('stay together in a batch, in order, whatever the limits', () => {
    const many: Example[] = Array.from({ length: 40 }, (_, i) => ({
      tokens: Int32Array.from({ length: 3 + ((i * 5) % 17) }, () => i),
      weights: new Float32Array(3 + ((i * 5) % 17)).fill(1),
      source: { file: 'f', line: 1 + Math.floor(i / 2) },
    }));
    for (const limits of [
      { tokensPerBatch: 10, packing: true },
      { tokensPerBatch: 60, packing: true },
      { tokensPerBatch: 60, packing: false },
    ]) {
      const batches = dpo({ beta: 0.1 }).batches(many, limits);
      const ids = batches.map((b) => b.examples.map((e) => e.tokens[0] ?? -1));
      expect(ids.flat().sort((a, b) => a - b)).toEqual(many.map((_, i) => i));
      for (const of of ids)
        for (let k = 0; k < of.length; k += 2) {
          expect((of[k] ?? 1) % 2).toBe(0);
          expect(of[k + 1]).toBe((of[k] ?? 0) + 1);
        }
    }
    expect(sft.examplesPerSample).toBe(1);
  });
});

describe('a recipe of method dpo', () => {
  const dir = mkdtempSync(join(tmpdir(), 'temper-dpo-'));
  afterAll(() => rmSync(dir, { recursive: true }));
  const colours = ['red', 'green', 'blue', 'white'];
  writeFileSync(
    join(dir, 'pairs.jsonl'),
    Array.from({ length: 12 }, (_, i) =>
      JSON.stringify({ prompt: `Colour ${i}?`, chosen: `It is ${colours[i % 4]}.`, rejected: `${i} has no colour.` }),
    ).join('\n'),
  );
  writeFileSync(
    join(dir, 'dpo.yaml'),
    `model: { base: ${join(packageRoot, 'models', 'nano')} }
adapter: { rank: 4, alpha: 8 }
data: { train: [{ path: pairs.jsonl, format: preference }], maxTokens: 200 }
train:
  { method: dpo, beta: 0.2, steps: 6, rowsPerStep: 4, lr: 2.0e-3, precision: f32, checkpointEvery: 3, seed: 3 }
`,
  );
  const recipe = join(dir, 'dpo.yaml');

  it('begins at log 2, comes to prefer what was chosen, and resumes to the bit', async () => {
    const whole = await runTraining({ recipe, out: join(dir, 'whole') });
    expect(whole).toMatchObject({ status: 'done', step: 6, output: join(dir, 'whole', 'adapter') });
    const metrics = readMetrics(join(dir, 'whole'));
    expect(Math.abs((metrics[0]?.loss ?? 0) - Math.log(2))).toBeLessThan(1e-6);
    expect(metrics[0]).toMatchObject({ accuracy: 0 });
    expect(metrics.at(-1)?.loss).toBeLessThan(0.5);
    expect(metrics.at(-1)?.accuracy).toBe(1);
    expect(metrics.at(-1)?.margin).toBeGreaterThan(0.5);
    const { rewardChosen = 0, rewardRejected = 0, margin = 0 } = metrics.at(-1) ?? {};
    expect(Math.abs(rewardChosen - rewardRejected - margin)).toBeLessThan(1e-9);

    const stop = new AbortController();
    const stopped = await runTraining(
      { recipe, out: join(dir, 'parts') },
      { signal: stop.signal, onProgress: ({ step }) => step === 4 && stop.abort() },
    );
    expect(stopped).toMatchObject({ status: 'stopped', step: 4 });
    await runTraining({ recipe, out: join(dir, 'parts'), resume: true });
    const file = (run: string): Buffer => readFileSync(join(dir, run, 'adapter', 'adapter_model.safetensors'));
    expect(file('parts').equals(file('whole'))).toBe(true);
    expect(readMetrics(join(dir, 'parts')).map((m) => m.loss)).toEqual(metrics.map((m) => m.loss));
  });

  it('is evaluated on held-out pairs', async () => {
    const evaluated = (set: string[], adapter?: string) =>
      evaluateLoss({
        path: recipe,
        set: ['data.eval=[{ path: pairs.jsonl, format: preference }]', ...set],
        ...(adapter ? { adapter } : {}),
      });
    const bare = await evaluated([]);
    expect(bare.preference).toMatchObject({ pairs: 12, accuracy: 0, margin: 0 });
    expect(Math.abs((bare.preference?.loss ?? 0) - Math.log(2))).toBeLessThan(1e-12);
    const trained = await evaluated([], join(dir, 'whole', 'adapter'));
    expect(trained.preference).toMatchObject({ pairs: 12, accuracy: 1 });
    expect(trained.preference?.loss).toBeLessThan(0.5);
    expect(trained.preference?.margin).toBeGreaterThan(0.5);
    const { rewardChosen = 0, rewardRejected = 0, margin = 0 } = trained.preference ?? {};
    expect(Math.abs(rewardChosen - rewardRejected - margin)).toBeLessThan(1e-9);
    // Alone in a batch or together, a pair is judged the same.
    const alone = await evaluated(['data.packing=false'], join(dir, 'whole', 'adapter'));
    expect(Math.abs((alone.preference?.loss ?? 0) - (trained.preference?.loss ?? 1))).toBeLessThan(1e-5);
    expect(alone.loss).toBeCloseTo(trained.loss, 5);
  });

  it('is planned by the same code', async () => {
    const plan = await planRecipe({ path: recipe, measure: false, out: join(dir, 'plan') });
    expect(plan).toMatchObject({ steps: 6, fits: true });
    expect(plan.totalPeakBytes).toBeGreaterThan(0);
  });

  it('refuses rows that are no pairs, and others refuse pairs', async () => {
    const unfit = { code: 'format_unfit', exitCode: 2 };
    await expect(runTraining({ recipe, out: join(dir, 'x'), set: ['data.train.0.format=chat'] })).rejects.toMatchObject(
      unfit,
    );
    const sft = (...set: string[]) => runTraining({ recipe, out: join(dir, 'x'), set: ['train.method=sft', ...set] });
    await expect(sft()).rejects.toMatchObject({ code: 'bad_recipe' });
    await expect(sft('train.beta=null')).rejects.toMatchObject(unfit);
    const text = readFileSync(recipe, 'utf8').replace('method: dpo, beta: 0.2', 'method: sft');
    writeFileSync(join(dir, 'sft.yaml'), text);
    await expect(runTraining({ recipe: join(dir, 'sft.yaml'), out: join(dir, 'x') })).rejects.toMatchObject(unfit);
    expect(existsSync(join(dir, 'x'))).toBe(false);
  });
});

// Training through a merge on the (emulated) device: the weights that the CPU merges, to the bit, its loss and
// gradients; a run that is gone on with has the same bits, also on pairs; the plan counts what a step takes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { evaluateLoss } from '../../src/evaluate/held-out-loss.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { lossAndGradients } from '../../src/model/gpt-oss.js';
import { mergedModel } from '../../src/model/merged.js';
import { createTrainable } from '../../src/model/trainable.js';
import { openDevice } from '../../src/native/device.js';
import { ops } from '../../src/native/ops.js';
import type { Place } from '../../src/native/tensor.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { planRecipe } from '../../src/train/plan.js';
import { runTraining } from '../../src/train/session.js';
import { pack } from '../model/golden.js';
import { tinyConfig, tinyPairs, tinyRun } from '../train/tiny.js';
import { distance } from './emulated.js';

const bytesOf = (a: ArrayBufferView): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);

describe('a model with its adapter merged in', () => {
  const folder = mkdtempSync(join(tmpdir(), 'temper-merged-')),
    // Three layers: two are there at a time where experts are streamed.
    config = { ...tinyConfig, num_hidden_layers: 3 };
  const prompt = (n: number): number[] => Array.from({ length: n }, (_, i) => (i * 37 + 5) % config.vocab_size);
  const batch = pack([prompt(13), prompt(21), prompt(1)]);
  const T = batch.tokens.length - 1;
  const targets = {
    rows: Int32Array.from({ length: T }, (_, i) => i),
    targets: Int32Array.from(batch.tokens.slice(1)),
    weights: new Float32Array(T).fill(1 / T),
  };
  const spec = adapterSpec(config, {
    rank: 4,
    alpha: 8,
    targets: ['attention', 'experts', 'router'],
    rsLora: false,
    dropout: 0,
    mergeAware: 'mxfp4',
  });
  beforeAll(async () => {
    const model = createTrainable(config, { seed: 3 });
    await model.save(folder);
    model.close();
    openDevice('cuda');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Merged weights of every layer, and what a batch through them gives. */
  function step(place: Place, { keep = true, experts = 'device' as 'device' | 'stream' } = {}) {
    using base = openCheckpoint(folder, { place, ...(place === 'cuda' ? { experts } : {}) });
    const adapter = createAdapter(config, spec, { seed: 5, trainable: true, place });
    ops.random_uniform(adapter.params, 3, -0.05, 0.05); // B is zero in a new adapter, and ΔW with it
    const model = mergedModel(base, adapter.model, { keep });
    try {
      const options = { precision: 'f32' as const, seed: 11, grads: null, gradients: true };
      const { nll } = lossAndGradients(model, null, batch, targets, options);
      const weights = model.layers.flatMap((w) =>
        [w.q, w.k, w.v, w.o, w.router, w.gateUp, w.down].flatMap(({ w: matrix, scales }) =>
          [matrix, ...(scales ? [scales] : [])].map((t) => bytesOf(t.read())),
        ),
      );
      return { nll, grads: adapter.grads?.toFloat32() ?? new Float32Array(), weights };
    } finally {
      model.close();
      adapter.close();
    }
  }
  it('is the same bytes, and has the gradients of the CPU, whatever is kept and wherever experts lie', () => {
    const [here, there] = [step('cpu'), step('cuda')];
    expect(there.weights.length).toBe(9 * config.num_hidden_layers);
    there.weights.forEach((w, i) => {
      expect(w.equals(here.weights[i] ?? Buffer.alloc(0)), `matrix ${i}`).toBe(true);
    });
    expect(distance(there.nll, here.nll)).toBeLessThan(2e-5);
    expect(here.grads.some((x) => x !== 0)).toBe(true);
    expect(distance(there.grads, here.grads)).toBeLessThan(1e-4);
    for (const other of [step('cuda', { keep: false }), step('cuda', { experts: 'stream' })]) {
      expect(other.weights.every((w, i) => w.equals(there.weights[i] ?? Buffer.alloc(0)))).toBe(true);
      expect(other.nll).toEqual(there.nll);
      expect(other.grads).toEqual(there.grads);
    }
  });
});

let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
const DEVICE = ['device=cuda', 'memoryLimit=512MiB'];
const PAIRS = [
  'train.method=dpo',
  'train.beta=0.3',
  'data.train=[{ path: pairs.jsonl, format: preference }]',
  'data.eval=[{ path: pairs.jsonl, format: preference }]',
];
const run = (name: string, set: readonly string[], resume = false, hooks = {}) =>
  runTraining({ recipe: at('recipe.yaml'), out: at('runs', name), set, resume }, hooks);
const adapterOf = (name: string): Buffer => readFileSync(at('runs', name, 'adapter', 'adapter_model.safetensors'));
beforeAll(async () => {
  dir = await tinyRun({
    train: 'steps: 3, rowsPerStep: 2, lr: 1.0e-2, precision: f32, checkpointEvery: 1',
    adapter: ', mergeAware: mxfp4, targets: [attention, experts, router]',
  });
  writeFileSync(at('pairs.jsonl'), tinyPairs(4));
});

describe.each([
  ['sft', []],
  ['dpo', PAIRS],
] as const)('a merge-aware run of %s', (method, set) => {
  it('begins as on the CPU, is planned, and goes on with the same bits', async () => {
    await run(`${method}-cpu`, [...set, 'device=cpu', 'train.steps=1']);
    const { peakBytes } = await run(`${method}-cuda`, [...set, ...DEVICE]);
    const [[here], there] = [readMetrics(at('runs', `${method}-cpu`)), readMetrics(at('runs', `${method}-cuda`))];
    expect(there).toHaveLength(3);
    // Later a weight may be rounded to the other side, as sums are made in another order.
    expect(Math.abs((there[0]?.loss ?? NaN) - (here?.loss ?? NaN))).toBeLessThan(1e-4);
    expect(Math.abs((there[0]?.gradNorm ?? NaN) / (here?.gradNorm ?? NaN) - 1)).toBeLessThan(1e-4);
    if (method === 'dpo') expect(Math.abs((there[0]?.loss ?? NaN) - Math.log(2))).toBeLessThan(1e-6);

    const { device } = await planRecipe({ path: at('recipe.yaml'), set: [...set, ...DEVICE], measure: false });
    expect(Math.abs((device?.totalPeakBytes ?? NaN) / peakBytes - 1)).toBeLessThan(0.05);

    const stop = new AbortController();
    await run(`${method}-cut`, [...set, ...DEVICE], false, {
      signal: stop.signal,
      onProgress: ({ step: n }: { step: number }) => n === 2 && stop.abort(),
    });
    await run(`${method}-cut`, [...set, ...DEVICE], true);
    expect(adapterOf(`${method}-cut`).equals(adapterOf(`${method}-cuda`))).toBe(true);

    const path = at('runs', `${method}-cuda`);
    const [on, off] = [
      await evaluateLoss({ path }),
      await evaluateLoss({ path, set: ['device=cpu', 'memoryLimit=null'] }),
    ];
    expect(Math.abs(on.loss - off.loss)).toBeLessThan(1e-4);
    if (method === 'dpo')
      expect(Math.abs((on.preference?.loss ?? NaN) - (off.preference?.loss ?? NaN))).toBeLessThan(1e-4);
  }, 240_000);
});

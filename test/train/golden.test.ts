// Five AdamW steps of PyTorch on a PEFT adapter, and logits of peft: made by test/golden/train/make_golden.py.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadDataset } from '../../src/data/load.js';
import { planSteps } from '../../src/data/order.js';
import type { Adapter } from '../../src/lora/adapter.js';
import { readPeft } from '../../src/lora/peft.js';
import { readFloatFile } from '../../src/lora/tensor-reader.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients } from '../../src/model/gpt-oss.js';
import type { Batch, ModelWeights, Targets } from '../../src/model/types.js';
import { Scope } from '../../src/native/tensor.js';
import { trainLoop } from '../../src/train/loop.js';
import { goldenRoot, relativeError } from '../model/golden.js';
import { broken, roundingBound, roundingBounds } from '../model/rounding.js';

const root = join(goldenRoot, '..', 'train');
const base = openCheckpoint(join(goldenRoot, 'odd'));
afterAll(() => base.close());
const files = [{ path: join(root, 'rows.jsonl'), format: 'tokens' }];
const data = await loadDataset(files, {
  tokenizer: null,
  vocabSize: base.config.vocab_size,
  maxTokens: 64,
  loss: { analysis: 1, commentary: 1, final: 1 },
});
const expected = JSON.parse(readFileSync(join(root, 'expected.json'), 'utf8')) as {
  options: {
    lr: number;
    betas: [number, number];
    eps: number;
    weightDecay: number;
    clipGradNorm: number;
    steps: number;
  };
  steps: { loss: number; gradNorm: number }[];
};

function logitsOf(model: ModelWeights, adapter: Adapter, row: number): Float32Array {
  using s = new Scope('activations');
  const tokens = data.examples.at(row)?.tokens ?? new Int32Array();
  const batch = { tokens, positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, tokens.length) };
  return logits(s, model, forwardHidden(s, model, adapter.model, batch, { precision: 'f32' }), 'f32').toFloat32();
}

/** Five steps of AdamW: losses, gradient norms, then every tensor of the adapter. */
async function fiveSteps(model: ModelWeights, packing: boolean): Promise<Float32Array[]> {
  using scope = new Scope('optimizer');
  const adapter = readPeft(join(root, 'adapter'), base.config, { trainable: true });
  const grads = adapter.grads ?? expect.fail('no gradients');
  const moments = { m: scope.zeros('f32', adapter.params.shape), v: scope.zeros('f32', adapter.params.shape) };
  const learner = {
    params: adapter.params,
    grads,
    refresh() {},
    save() {},
    close() {},
    nll: () => new Float32Array(),
    lossAndGradients: (batch: Batch, targets: Targets, seed: number) =>
      lossAndGradients(model, adapter.model, batch, targets, { precision: 'f32', seed, grads: null, gradients: true })
        .nll,
  };
  const plan = planSteps(
    Array.from(data.examples, (e) => e.tokens.length),
    { seed: 1, steps: expected.options.steps, rowsPerStep: data.examples.length },
  );
  const losses: number[] = [],
    norms: number[] = [];
  for await (const m of trainLoop(learner, moments, data.examples, plan, 0, {
    ...expected.options,
    seed: 1,
    packing,
    tokensPerBatch: 64,
    schedule: 'constant',
    warmup: 0,
    minLr: 0,
  })) {
    losses.push(m.loss);
    norms.push(m.gradNorm);
  }
  const out = [Float32Array.from(losses), Float32Array.from(norms), ...adapter.tensors.map((x) => x.toFloat32())];
  adapter.close();
  return out;
}

describe('training golden', () => {
  it.each([
    ['adapter', 0, 'logits.safetensors'],
    ['single', 1, 'single/logits.safetensors'],
  ] as const)('peft logits of %s', (folder, row, file) => {
    const adapter = readPeft(join(root, folder), base.config);
    using want = readFloatFile(join(root, file));
    const truth = want.entries.get('logits')?.read() ?? new Float32Array();
    const bound = roundingBound(base, (m) => [logitsOf(m, adapter, row)]);
    expect(relativeError(logitsOf(base, adapter, row), truth)).toBeLessThan(bound);
    using s = new Scope();
    expect(relativeError(logitsOf(broken(s, base), adapter, row), truth)).toBeGreaterThan(bound);
    adapter.close();
  });

  it("five steps of AdamW give PyTorch's losses and adapter, packed or not", async () => {
    const after = readPeft(join(root, 'adapter.after'), base.config);
    const wanted = [
      Float32Array.from(expected.steps, (x) => x.loss),
      Float32Array.from(expected.steps, (x) => x.gradNorm),
      ...after.tensors.map((x) => x.toFloat32()),
    ];
    const names = ['loss', 'gradient norm', ...after.entries.map((e) => `${e.layer} ${e.target} ${e.part}`)];
    after.close();
    const bounds = await roundingBounds(base, (m) => fiveSteps(m, true));
    const errors = (got: readonly Float32Array[]): number[] =>
      wanted.map((w, i) => relativeError(got[i] ?? new Float32Array(), w));
    for (const packing of [true, false]) {
      const found = errors(await fiveSteps(base, packing));
      console.log(
        `five steps, worst: ${Math.max(...found).toExponential(2)}, bounds to ${Math.max(...bounds).toExponential(2)}`,
      );
      for (const [i, err] of found.entries()) expect(err, names[i]).toBeLessThan(bounds[i] ?? Number.NaN);
    }
    using s = new Scope();
    const twin = errors(await fiveSteps(broken(s, base), true));
    expect(twin.some((err, i) => err > (bounds[i] ?? Number.NaN))).toBe(true);
  });
});

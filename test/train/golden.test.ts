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
import { Scope } from '../../src/native/tensor.js';
import { trainLoop } from '../../src/train/loop.js';
import { goldenRoot } from '../model/golden.js';

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

/** Largest distance, relative to the largest value. */
function distance(got: Float32Array, want: Float32Array): number {
  expect(got.length).toBe(want.length);
  let top = 0,
    worst = 0;
  for (let i = 0; i < want.length; i++) {
    top = Math.max(top, Math.abs(want[i] ?? 0));
    worst = Math.max(worst, Math.abs((got[i] ?? Number.NaN) - (want[i] ?? 0)));
  }
  return worst / top;
}

function logitsOf(adapter: Adapter, row: number): Float32Array {
  using s = new Scope('activations');
  const tokens = data.examples.at(row)?.tokens ?? new Int32Array();
  const batch = { tokens, positions: Int32Array.from(tokens, (_, i) => i), starts: Int32Array.of(0, tokens.length) };
  return logits(s, base, forwardHidden(s, base, adapter.model, batch, { precision: 'f32' }), 'f32').toFloat32();
}

describe('training golden', () => {
  it.each([
    ['adapter', 0, 'logits.safetensors'],
    ['single', 1, 'single/logits.safetensors'],
  ] as const)('peft logits of %s', (folder, row, file) => {
    const adapter = readPeft(join(root, folder), base.config);
    using want = readFloatFile(join(root, file));
    expect(distance(logitsOf(adapter, row), want.entries.get('logits')?.read() ?? new Float32Array())).toBeLessThan(
      1e-4,
    );
    adapter.close();
  });

  it("five steps of AdamW give PyTorch's losses and adapter, packed or not", async () => {
    for (const packing of [true, false]) {
      using scope = new Scope('optimizer');
      const adapter = readPeft(join(root, 'adapter'), base.config, { trainable: true });
      const grads = adapter.grads;
      if (!grads) throw new Error('no gradients');
      const moments = { m: scope.zeros('f32', adapter.params.shape), v: scope.zeros('f32', adapter.params.shape) };
      const learner = {
        params: adapter.params,
        grads,
        refresh() {},
        save() {},
        close() {},
        lossAndGradients: (
          b: Parameters<typeof lossAndGradients>[2],
          t: Parameters<typeof lossAndGradients>[3],
          seed: number,
        ) => lossAndGradients(base, adapter.model, b, t, { precision: 'f32', seed, grads: null, gradients: true }).nll,
      };
      const plan = planSteps(
        Array.from(data.examples, (e) => e.tokens.length),
        { seed: 1, steps: expected.options.steps, rowsPerStep: data.examples.length },
      );
      let n = 0;
      for await (const m of trainLoop(learner, moments, data.examples, plan, 0, {
        ...expected.options,
        seed: 1,
        packing,
        tokensPerBatch: 64,
        schedule: 'constant',
        warmup: 0,
        minLr: 0,
      })) {
        const want = expected.steps[n++];
        expect(Math.abs(m.loss / (want?.loss ?? 0) - 1)).toBeLessThan(1e-4);
        expect(Math.abs(m.gradNorm / (want?.gradNorm ?? 0) - 1)).toBeLessThan(1e-4);
      }
      expect(n).toBe(5);
      const after = readPeft(join(root, 'adapter.after'), base.config);
      adapter.entries.forEach((e, i) => {
        const got = adapter.tensors[i]?.toFloat32() ?? new Float32Array(),
          want = after.tensors[i]?.toFloat32() ?? new Float32Array();
        expect(distance(got, want), `${e.layer} ${e.target} ${e.part}`).toBeLessThan(1e-4);
      });
      adapter.close();
      after.close();
    }
  });
});

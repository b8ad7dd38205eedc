// Activations that products alone read, stored in bf16 as those round them: loss and gradients have the bits of storing
// them in f32, in less memory, whatever beside products would read them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import './emulated.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { type LossOptions, lossAndGradients } from '../../src/model/gpt-oss.js';
import { createTrainable } from '../../src/model/trainable.js';
import { addon } from '../../src/native/addon.js';
import { backendOf } from '../../src/native/backends.js';
import { deviceMemory, openDevice } from '../../src/native/device.js';
import { ops } from '../../src/native/ops.js';
import { pack } from '../model/golden.js';
import { tinyConfig } from '../train/tiny.js';

// rows of more than the kernel of few rows takes, and of as few
const lengths = { many: [70, 31, 1], few: [9, 5] };
const config = { ...tinyConfig, hidden_size: 64, intermediate_size: 32 },
  dir = mkdtempSync(join(tmpdir(), 'temper-rounded-'));
const backend = backendOf('cuda') as { storesRounded: boolean };
const stored = backend.storesRounded;
afterAll(() => {
  backend.storesRounded = stored;
  rmSync(dir, { recursive: true, force: true });
});
beforeAll(async () => {
  const model = createTrainable(config, { seed: 3 });
  await model.save(dir);
  model.close();
  openDevice('cuda');
});

type Step = { nll: Float32Array; grads: Float32Array; peak: number };
const batchOf = (lengths: readonly number[]) => {
  const batch = pack(lengths.map((n) => Array.from({ length: n }, (_, i) => (i * 37 + n) % config.vocab_size))),
    T = batch.tokens.length - 1;
  const targets = {
    rows: Int32Array.from({ length: T }, (_, i) => i),
    targets: Int32Array.from(batch.tokens.slice(1)),
    weights: new Float32Array(T).fill(1 / T),
  };
  return { batch, targets };
};
/** One way and the other. */
function bothWays(step: () => Step): readonly [Step, Step] {
  const of = (rounded: boolean): Step => {
    backend.storesRounded = rounded;
    addon.resetPeaks();
    return step();
  };
  return [of(true), of(false)];
}

/** @param keep how many layers keep what their backward reads */
function withAdapter(dropout: number, keep: number, n: readonly number[], precision: LossOptions['precision']): Step {
  using model = openCheckpoint(dir, { place: 'cuda' });
  const adapter = createAdapter(
    config,
    adapterSpec(config, { rank: 4, alpha: 8, targets: ['attention', 'experts', 'router'], rsLora: false, dropout }),
    { seed: 5, trainable: true, place: 'cuda' },
  );
  try {
    ops.random_uniform(adapter.params, 3, -0.05, 0.05);
    const { batch, targets } = batchOf(n);
    const { nll } = lossAndGradients(model, adapter.model, batch, targets, {
      precision,
      seed: 11,
      grads: null,
      gradients: true,
      keep: { attention: keep, experts: keep },
    });
    return { nll, grads: adapter.grads?.toFloat32() ?? new Float32Array(0), peak: deviceMemory().totalPeak };
  } finally {
    adapter.close();
  }
}
function withoutAdapter(n: readonly number[]): Step {
  const trained = createTrainable(config, { seed: 4, place: 'cuda' });
  try {
    const { batch, targets } = batchOf(n);
    const { nll } = lossAndGradients(trained.model, null, batch, targets, {
      precision: 'bf16',
      seed: 1,
      grads: trained.gradViews,
      gradients: true,
    });
    return { nll, grads: trained.grads.toFloat32(), peak: deviceMemory().totalPeak };
  } finally {
    trained.close();
  }
}

describe('activations in bf16', () => {
  for (const [rows, dropout, keep] of [
    ['many', 0, 0],
    ['many', 0, 2],
    ['many', 0.1, 2],
    ['few', 0, 0],
    ['few', 0.1, 0],
  ] as const)
    it(`an adapter, ${rows} rows, dropout ${dropout}, ${keep} layers kept`, () => {
      const [bf16, f32] = bothWays(() => withAdapter(dropout, keep, lengths[rows], 'bf16'));
      expect(bf16.nll).toEqual(f32.nll);
      expect(bf16.grads).toEqual(f32.grads);
      expect(f32.grads.some((g) => g !== 0)).toBe(true);
      expect(bf16.peak).toBeLessThanOrEqual(f32.peak);
      // under dropout an input stays f32, and the peak may lie there
      if (rows === 'many' && dropout === 0) expect(bf16.peak).toBeLessThan(f32.peak);
    });
  it('all weights, whose biases sum what is not rounded', () => {
    const [bf16, f32] = bothWays(() => withoutAdapter(lengths.many));
    expect(bf16.nll).toEqual(f32.nll);
    expect(bf16.grads).toEqual(f32.grads);
  });
  it('not in f32', () => {
    const [one, other] = bothWays(() => withAdapter(0, 0, lengths.few, 'f32'));
    expect(one).toEqual(other);
  });
});

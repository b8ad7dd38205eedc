// Long contexts are taken in chunks of tokens: the loss keeps its bits, gradients their value.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createAdapter } from '../../src/lora/adapter.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { parseConfig } from '../../src/model/config.js';
import { lossAndGradients, MOE_CHUNK_TOKENS } from '../../src/model/gpt-oss.js';
import { KEEP_NOTHING, type Keep, keepBytes, keepWithin, keptActivationBytes } from '../../src/model/kept.js';
import { createTrainable } from '../../src/model/trainable.js';
import { ops } from '../../src/native/ops.js';
import { dryRun } from '../../src/native/plan.js';
import { memoryStats, resetPeaks } from '../../src/native/tensor.js';
import { pack } from './golden.js';

const config = parseConfig({
  vocab_size: 64,
  hidden_size: 64,
  intermediate_size: 32,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  num_local_experts: 4,
  num_experts_per_tok: 2,
  sliding_window: 50,
  rope_theta: 10000,
  max_position_embeddings: 8192,
  rope_scaling: {
    rope_type: 'yarn',
    factor: 8,
    beta_fast: 32,
    beta_slow: 1,
    original_max_position_embeddings: 1024,
    truncate: false,
  },
});
const text = (n: number, salt: number): number[] =>
  Array.from({ length: n }, (_, i) => ((i * 7919 + salt * 31) ^ (i >> 3)) % 64);
// Boundaries of chunks fall inside a sequence, at its end and beside it; the last chunk is longer than the others.
const batch = pack([text(700, 1), text(1700, 2), text(672, 3), text(3, 4), text(1200, 5)]);
const T = batch.tokens.length;
const targets = {
  rows: Int32Array.from({ length: T }, (_, i) => i),
  targets: Int32Array.from({ length: T }, (_, i) => (i * 37) % 64),
  weights: Float32Array.from({ length: T }, (_, i) => (1 + (i % 3)) / T),
};

function run(
  precision: 'f32' | 'bf16',
  chunkTokens: number,
  dropout = 0,
  offload: string | null = null,
  keep: Keep = KEEP_NOTHING,
): { nll: Float32Array; grads: Float32Array; peak: number; offloaded: number; kept: number; keepBytes: number } {
  using model = createTrainable(config, { seed: 4 });
  const spec = adapterSpec(config, {
    rank: 4,
    alpha: 8,
    targets: ['attention', 'experts', 'router'],
    rsLora: false,
    dropout,
  });
  const adapter = createAdapter(config, spec, { seed: 2, trainable: true });
  try {
    if (!adapter.grads) throw new Error('no gradients');
    ops.random_normal(adapter.params, 9, 0.1);
    ops.fill(adapter.grads, 0);
    resetPeaks();
    const { nll } = lossAndGradients(model.model, adapter.model, batch, targets, {
      precision,
      seed: 11,
      grads: null,
      gradients: true,
      chunkTokens,
      offload,
      keep,
    });
    return {
      nll,
      grads: adapter.grads.toFloat32(),
      keepBytes: keepBytes(model.model, adapter.model, T, keep),
      peak: memoryStats().peak.activations,
      offloaded: memoryStats().offloadedPeak,
      kept: keptActivationBytes(model.model, adapter.model, T),
    };
  } finally {
    adapter.close();
  }
}
const off = (a: Float32Array, b: Float32Array): number =>
  Math.sqrt(a.reduce((s, x, i) => s + (x - (b[i] ?? NaN)) ** 2, 0) / b.reduce((s, x) => s + x * x, 0));

it.each([
  ['f32', 1e-6],
  ['bf16', 1e-3],
] as const)(
  '%s: chunks of 1,024 and 2,048 tokens give the loss of all at once to the bit, the ' +
    'gradients within the order of sums',
  (precision, tolerance) => {
    const whole = run(precision, 8 * MOE_CHUNK_TOKENS);
    expect(T).toBeGreaterThan(4 * MOE_CHUNK_TOKENS);
    for (const tokens of [MOE_CHUNK_TOKENS, 2 * MOE_CHUNK_TOKENS]) {
      const cut = run(precision, tokens);
      expect(cut.nll).toEqual(whole.nll);
      expect(off(cut.grads, whole.grads)).toBeLessThan(tolerance);
      expect(cut.peak).toBeLessThan(0.8 * whole.peak);
    }
  },
);

it('dropout draws other masks in each chunk, the same ones on every run', () => {
  const a = run('f32', MOE_CHUNK_TOKENS, 0.2),
    b = run('f32', MOE_CHUNK_TOKENS, 0.2),
    none = run('f32', MOE_CHUNK_TOKENS);
  expect(b.grads).toEqual(a.grads);
  expect(off(a.grads, none.grads)).toBeGreaterThan(0.05);
});

it('offloaded activations change no bit, are counted apart from memory, and leave nothing', () => {
  const memory = run('bf16', MOE_CHUNK_TOKENS, 0.1),
    disk = run('bf16', MOE_CHUNK_TOKENS, 0.1, tmpdir());
  expect(disk.nll).toEqual(memory.nll);
  expect(disk.grads).toEqual(memory.grads);
  expect(memory.offloaded).toBe(0);
  expect(disk.offloaded).toBe(disk.kept);
  expect(memory.peak - disk.peak).toBeGreaterThan(0.8 * disk.kept);
  expect(memoryStats().offloaded).toBe(0);
  expect(() => run('bf16', MOE_CHUNK_TOKENS, 0, join(tmpdir(), 'there-is-no-such-folder'))).toThrow(
    expect.objectContaining({ code: 'offload_unwritable' }),
  );
  expect(memoryStats().offloaded).toBe(0);
});

const ALL: Keep = { attention: 3, experts: 3 };

it.each(['f32', 'bf16'] as const)(
  '%s: what is kept for the backward changes no bit and takes what it says',
  (precision) => {
    const [nothing, all, some] = [KEEP_NOTHING, ALL, { attention: 2, experts: 1 }].map((keep) =>
      run(precision, MOE_CHUNK_TOKENS, 0.1, null, keep),
    );
    for (const kept of [all, some]) {
      expect(kept?.nll).toEqual(nothing?.nll);
      expect(kept?.grads).toEqual(nothing?.grads);
    }
    // What was workspace of one chunk before is in what is kept.
    const more = (all?.peak ?? NaN) - (nothing?.peak ?? NaN);
    expect(more).toBeLessThanOrEqual(all?.keepBytes ?? NaN);
    expect(more).toBeGreaterThan(0.8 * (all?.keepBytes ?? NaN));
  },
);

it('what is kept is not computed again, and a dry run counts it', () => {
  const dry = (keep: Keep) => {
    const { value, report } = dryRun(() => run('f32', MOE_CHUNK_TOKENS, 0, null, keep));
    const calls = (op: string): number => report.ops.filter((c) => c.op === op).length;
    return {
      ...value,
      peak: report.peak.activations,
      attention: calls('attention_fwd'),
      experts: calls('grouped_linear_fwd'),
    };
  };
  const [nothing, all] = [dry(KEEP_NOTHING), dry(ALL)];
  const chunks = Math.floor(T / MOE_CHUNK_TOKENS);
  expect([nothing.attention, all.attention]).toEqual([2 * 3 * chunks, 3 * chunks]);
  // gate_up and down forward, gate_up once more
  expect(all.experts).toBe((nothing.experts * 2) / 3);
  expect(all.experts).toBeGreaterThan(0);
  expect(all.peak).toBe(run('f32', MOE_CHUNK_TOKENS, 0, null, ALL).peak);
});

it('as many layers are kept as there is room for, attention before experts', () => {
  using model = createTrainable(config, { seed: 4 });
  const room = (keep: Keep): number => keepBytes(model.model, null, T, keep);
  const within = (bytes: number): Keep => keepWithin(model.model, null, T, bytes);
  expect(within(0)).toEqual(KEEP_NOTHING);
  for (const keep of [{ attention: 1, experts: 0 }, { attention: 3, experts: 0 }, { attention: 3, experts: 2 }, ALL]) {
    expect(within(room(keep))).toEqual(keep);
    expect(room(within(room(keep) - 1))).toBeLessThan(room(keep));
  }
  expect(within(Infinity)).toEqual(ALL);
});

// Training from scratch: it learns, what it saves is what it ran, and the same seed gives the same bits.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { parseConfig } from '../../src/model/config.js';
import { forwardHidden, lossAndGradients } from '../../src/model/gpt-oss.js';
import { createTrainable } from '../../src/model/trainable.js';
import { ops } from '../../src/native/ops.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { pack } from './golden.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-trainable-'));
afterAll(() => rmSync(dir, { recursive: true }));

const config = parseConfig({
  vocab_size: 64,
  hidden_size: 64,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  num_local_experts: 4,
  num_experts_per_tok: 2,
  sliding_window: 8,
  rope_theta: 10000,
  max_position_embeddings: 256,
  rope_scaling: {
    rope_type: 'yarn',
    factor: 8,
    beta_fast: 32,
    beta_slow: 1,
    original_max_position_embeddings: 32,
    truncate: false,
  },
});
// A text with a rule: each token follows from the two before.
const sequences = Array.from({ length: 4 }, (_, k) => {
  const t = [k + 1, 2 * k + 3];
  while (t.length < 32) t.push(((t.at(-1) ?? 0) * 3 + (t.at(-2) ?? 0)) % 64);
  return t;
});
const batch = pack(sequences);
const rows = Int32Array.from(sequences.flatMap((s, i) => s.slice(1).map((_, j) => i * 32 + j)));
const targets = {
  rows,
  targets: Int32Array.from(rows, (r) => batch.tokens[r + 1] ?? 0),
  weights: new Float32Array(rows.length).fill(1 / rows.length),
};

it('learns a rule, leaks nothing, and saves exactly the weights it ran', async () => {
  const start = memoryStats().totalLive;
  const runs: Float32Array[][] = [];
  for (let run = 0; run < 2; run++) {
    using t = createTrainable(config, { seed: 5 });
    using state = new Scope('optimizer');
    const m = state.zeros('f32', t.params.shape),
      v = state.zeros('f32', t.params.shape);
    const losses: Float32Array[] = [];
    let live = 0;
    for (let step = 1; step <= 60; step++) {
      ops.fill(t.grads, 0);
      losses.push(
        lossAndGradients(t.model, null, batch, targets, {
          precision: 'f32',
          seed: step,
          grads: t.gradViews,
          gradients: true,
        }).nll,
      );
      ops.adamw(t.params, m, v, t.grads, 3e-3, 0.9, 0.99, 1e-8, 0, step, 1);
      t.refresh();
      if (step === 1) live = memoryStats().totalLive;
      expect(memoryStats().totalLive).toBe(live);
    }
    runs.push(losses);
    const mean = (x: Float32Array = Float32Array.of(Number.NaN)): number => x.reduce((a, b) => a + b, 0) / x.length;
    if (run === 0)
      console.log(`from scratch: ${mean(losses[0]).toFixed(3)} → ${mean(losses.at(-1)).toFixed(3)} nats in 60 steps`);
    expect(mean(losses[0])).toBeGreaterThan(3.5);
    expect(mean(losses.at(-1))).toBeLessThan(1);

    const out = join(dir, 'saved');
    await t.save(out);
    await t.save(out); // in place of itself
    expect(readdirSync(dir)).toEqual(['saved']);
    const again = openCheckpoint(out);
    using s = new Scope();
    const a = forwardHidden(s, t.model, null, batch, { precision: 'bf16' }).toFloat32();
    const b = forwardHidden(s, again, null, batch, { precision: 'bf16' }).toFloat32();
    expect(Buffer.from(b.buffer).equals(Buffer.from(a.buffer))).toBe(true);
    expect(again.config).toEqual({
      ...config,
      layer_types: ['sliding_attention', 'full_attention'],
      experts_per_token: 2,
      hidden_act: 'silu',
      quantization_config: again.config.quantization_config,
    });
    again.close();
  }
  expect(runs[1]).toEqual(runs[0]);
  expect(memoryStats().totalLive).toBe(start);
  expect(existsSync(join(dir, 'saved', 'model.safetensors'))).toBe(true);
});

it('refuses widths that MXFP4 cannot hold', () => {
  expect(() => createTrainable({ ...config, hidden_size: 60 }, { seed: 1 })).toThrow(/multiples of 32/);
});

// Experts that come to the device layer by layer: the same bits as a model that lies there whole, forward and backward,
// and less of the device's memory.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import './emulated.js';
import { generateAll } from '../../src/infer/generate-all.js';
import { GREEDY } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { type Checkpoint, openCheckpoint } from '../../src/model/checkpoint.js';
import { lossAndGradients } from '../../src/model/gpt-oss.js';
import { createTrainable } from '../../src/model/trainable.js';
import { deviceMemory, openDevice } from '../../src/native/device.js';
import { ops } from '../../src/native/ops.js';
import { pack } from '../model/golden.js';
import { tinyConfig } from '../train/tiny.js';

const config = { ...tinyConfig, num_hidden_layers: 5 },
  dir = mkdtempSync(join(tmpdir(), 'temper-stream-'));
const trained = createTrainable(config, { seed: 3 });
await trained.save(dir);
trained.close();
const prompt = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => (i * 37 + 5) % config.vocab_size);
openDevice('cuda');
const open: Checkpoint[] = [];
const opened = (experts: 'device' | 'stream'): { model: Checkpoint; bytes: number } => {
  const before = deviceMemory().live.weights,
    model = openCheckpoint(dir, { place: 'cuda', experts });
  open.push(model);
  return { model, bytes: deviceMemory().live.weights - before };
};
afterAll(() => {
  for (const model of open) model.close();
  rmSync(dir, { recursive: true, force: true });
});

function gradients(model: Checkpoint): { nll: Float32Array; grads: Float32Array | undefined } {
  const adapter = createAdapter(
    config,
    adapterSpec(config, { rank: 2, alpha: 4, targets: ['attention', 'experts'], rsLora: false, dropout: 0 }),
    { seed: 5, trainable: true, place: 'cuda' },
  );
  try {
    ops.random_uniform(adapter.params, 3, -0.05, 0.05);
    const batch = pack([[...prompt(13)], [...prompt(7)]]),
      T = batch.tokens.length - 1;
    const { nll } = lossAndGradients(
      model,
      adapter.model,
      batch,
      {
        rows: Int32Array.from({ length: T }, (_, i) => i),
        targets: Int32Array.from(batch.tokens.slice(1)),
        weights: new Float32Array(T).fill(1 / T),
      },
      { precision: 'bf16', seed: 1, grads: null, gradients: true },
    );
    return { nll, grads: adapter.grads?.toFloat32() };
  } finally {
    adapter.close();
  }
}

describe('streamed experts', () => {
  const whole = opened('device'),
    streamed = opened('stream');
  it('hold two layers of the device', () => {
    const layer = (model: Checkpoint): number =>
      ['gateUp', 'down'].reduce((sum, m) => {
        const e = model.layers[0]?.[m as 'gateUp'];
        return sum + (e?.w.bytes ?? 0) + (e?.scales?.bytes ?? 0);
      }, 0);
    expect(config.num_hidden_layers).toBeGreaterThan(2);
    expect(whole.bytes - streamed.bytes).toBe((config.num_hidden_layers - 2) * layer(whole.model));
  });
  it('train with the same bits, pass after pass', () => {
    const want = gradients(whole.model);
    expect(want.grads?.some((x) => x !== 0)).toBe(true);
    for (let i = 0; i < 2; i++) expect(gradients(streamed.model)).toEqual(want);
  });
  it('generate the same tokens', () => {
    const generate = (model: Checkpoint): Int32Array[] => {
      using session = new Session(model, { precision: 'bf16', slots: 2, capacity: 40 });
      return generateAll(session, [
        { tokens: prompt(9), maxTokens: 5, stop: new Set<number>(), sampling: GREEDY },
        { tokens: prompt(4), maxTokens: 3, stop: new Set<number>(), sampling: GREEDY },
      ]).map((c) => c.tokens);
    };
    expect(generate(streamed.model)).toEqual(generate(whole.model));
  });
  it('are chosen by themselves where the whole model does not fit', () => {
    const room = deviceMemory().held;
    openDevice('cuda', room + Math.floor(whole.bytes * 1.1));
    try {
      expect(openCheckpointAuto()).toBe(true);
    } finally {
      openDevice('cuda', 2 ** 40);
    }
    expect(openCheckpointAuto()).toBe(false);
  });
  function openCheckpointAuto(): boolean {
    const model = openCheckpoint(dir, { place: 'cuda' });
    try {
      return model.streamsExperts ?? false;
    } finally {
      model.close();
    }
  }
});

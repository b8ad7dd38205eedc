// A step that keeps more than the device holds: begun anew with nothing kept, the same bits, and the run says so. In a
// process of its own: memory kept from other runs would hide it.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import './emulated.js';
import { openSafetensors } from '../../src/native/safetensors.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { planTraining, train } from '../../src/train/train.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-keep-less-'));
const at = (...p: string[]): string => join(dir, ...p);
const LAYERS = 10;
// wide heads: much to keep, little to compute
const init = {
  vocab_size: 96,
  hidden_size: 32,
  intermediate_size: 32,
  num_hidden_layers: LAYERS,
  num_attention_heads: 8,
  num_key_value_heads: 1,
  head_dim: 64,
  num_local_experts: 2,
  num_experts_per_tok: 1,
  sliding_window: 8,
  max_position_embeddings: 1024,
};
const tokens = Array.from({ length: 160 }, (_, j) => (7 * j) % 96);
writeFileSync(at('train.jsonl'), `${JSON.stringify({ tokens })}\n`);
writeFileSync(
  at('scratch.yaml'),
  `model: { init: ${JSON.stringify(init)} }
device: cuda
data: { train: [{ path: train.jsonl, format: tokens }], maxTokens: 160 }
train: { method: pretrain, steps: 1, rowsPerStep: 1, offloadActivations: never, offloadOptimizer: never }
`,
);
const settings = (recompute: string, limit: number): string[] => [
  `train.recompute=${recompute}`,
  `memoryLimit=${Math.ceil(limit / 1024)}KiB`,
];
const GIB = 2 ** 30;

it('a step in which memory runs out is begun anew with nothing kept; run, metrics and a notice say it', async () => {
  const { device } = await planTraining(at('scratch.yaml'), { set: settings('never', GIB) });
  const notices: string[] = [];
  const run = (out: string, limit: number) =>
    train(at('scratch.yaml'), {
      out: at('runs', out),
      set: settings('never', limit),
      onNotice: (notice) => notices.push(notice),
    });
  await run('tight', 0.85 * (device?.totalPeakBytes ?? NaN));
  const said = notices.filter((n) => n.includes('memory ran out'));
  expect(said).toHaveLength(1);
  expect(said[0]).toMatch(/^step 1: memory ran out and the step was begun anew/);
  expect(readMetrics(at('runs', 'tight')).map((m) => m.ranOut)).toEqual([true]);
  const { memory, status } = readRun(at('runs', 'tight')) ?? {};
  expect(status).toBe('done');
  const nothing = { moments: 'cuda', layers: LAYERS, kept: { attention: 0, experts: 0 } };
  expect(memory).toEqual({ ...nothing, ranOutAt: 1 });

  await run('roomy', GIB);
  expect(readRun(at('runs', 'roomy'))?.memory).toEqual({ ...nothing, kept: { attention: LAYERS, experts: LAYERS } });
  const weights = (name: string): Uint8Array[] => {
    using f = openSafetensors(at('runs', name, 'model', 'model.safetensors'));
    return [...f.tensors.keys()].map((k) => f.bytes(k));
  };
  expect(weights('tight')).toEqual(weights('roomy'));
});

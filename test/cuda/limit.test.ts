// Training under a limit of device memory that the allocator keeps to: what the plan says of a limit is what the run
// does, down to where nothing fits. In a process of its own: memory kept from other runs would hide it.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import './emulated.js';
import { deviceMemory } from '../../src/native/device.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { planTraining, train } from '../../src/train/train.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-limit-'));
const at = (...p: string[]): string => join(dir, ...p);
const MIB = 2 ** 20;
// a wide residual stream and many weights to train: much to keep, little to compute
const init = {
  vocab_size: 96,
  hidden_size: 256,
  intermediate_size: 32,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  head_dim: 64,
  num_local_experts: 8,
  num_experts_per_tok: 1,
  sliding_window: 8,
  max_position_embeddings: 1024,
};
const tokens = Array.from({ length: 101 }, (_, j) => (7 * j) % 96);
writeFileSync(at('train.jsonl'), `${JSON.stringify({ tokens })}\n`);
writeFileSync(
  at('scratch.yaml'),
  `model: { init: ${JSON.stringify(init)} }
device: cuda
data: { train: [{ path: train.jsonl, format: tokens }], maxTokens: 101 }
train: { method: pretrain, steps: 1, rowsPerStep: 1 }
`,
);
const under = (limit: number): string[] => [`memoryLimit=${limit}B`];
const run = (name: string, limit: number) => train(at('scratch.yaml'), { out: at('runs', name), set: under(limit) });
const planned = (limit: number) => planTraining(at('scratch.yaml'), { set: under(limit), measure: false });

it('a limit that the plan calls enough is enough, and kept to; one that is too small ends by name', async () => {
  // Far below: what the way takes that takes least.
  const tooSmall = await planned(8 * MIB),
    needed = tooSmall.device?.heldPeakBytes ?? NaN;
  expect(tooSmall.fits).toBe(false);
  await expect(run('small', Math.floor(0.8 * needed))).rejects.toMatchObject({ code: 'out_of_device_memory' });

  const limit = Math.ceil(needed / MIB) * MIB,
    enough = await planned(limit);
  expect(enough.fits).toBe(true);
  expect(enough.layout.moments).toBe('cpu');
  await run('enough', limit);
  const { memory, status } = readRun(at('runs', 'enough')) ?? {};
  expect(status).toBe('done');
  expect(memory).toEqual(enough.layout);
  expect(readMetrics(at('runs', 'enough')).map((m) => m.ranOut)).toEqual([undefined]);
  const { heldPeak } = deviceMemory();
  expect(heldPeak).toBeLessThanOrEqual(limit);
  expect(heldPeak).toBeGreaterThan(0.8 * needed);
});

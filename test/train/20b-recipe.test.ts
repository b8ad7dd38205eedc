// The shipped 20b recipe, two steps on the slice preset: the released layer shapes, two layers and six experts of them.
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { initCheckpoint, PRESETS } from '../../src/model/init.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { runTraining } from '../../src/train/session.js';
import { planTraining } from '../../src/train/train.js';

test('two steps on the slice, in the memory that was planned', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'temper-20b-'));
  const base = join(folder, 'slice');
  await initCheckpoint(base, 'slice', { seed: 3 });
  // The slice has no tokenizer of its own; nano's ids are all below its 4,096.
  const set = [
    `model.base=${base}`,
    `model.tokenizer=${join(packageRoot, 'models', 'nano')}`,
    'train.steps=2',
    'train.tokensPerStep=384',
    'train.checkpointEvery=2',
  ];
  const recipe = join(packageRoot, 'recipes', '20b-lora-cpu.yaml');
  const plan = await planTraining(recipe, { set, measure: false });
  const result = await runTraining({ recipe, set, out: join(folder, 'run') });
  const losses = readMetrics(result.run).map((m) => m.loss);
  expect(losses).toHaveLength(2);
  // A random model is as good as guessing: ln V, and a little more for its random logits.
  for (const loss of losses) expect(Math.abs(loss - Math.log(PRESETS.slice.vocab_size))).toBeLessThan(1.5);
  expect(Math.abs(plan.totalPeakBytes / result.peakBytes - 1)).toBeLessThanOrEqual(0.05);
  const written = JSON.parse(readFileSync(join(result.output ?? '', 'adapter_config.json'), 'utf8')) as { r: number };
  expect(written.r).toBe(16);
}, 300_000);

// train.offloadActivations: the same run with activations on disk; a disk without room stops it before it starts.
import fs, { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { readMetrics } from '../../src/runs/metrics.js';
import { planRecipe } from '../../src/train/plan.js';
import { runTraining } from '../../src/train/session.js';
import { tinyRun } from './tiny.js';

const disk = { free: Number.POSITIVE_INFINITY };
const { statfsSync } = fs;
fs.statfsSync = ((path: string) => {
  const s = statfsSync(path);
  return { ...s, bavail: Math.min(s.bavail, Math.floor(disk.free / s.bsize)) };
}) as typeof statfsSync;
syncBuiltinESMExports();
const folder = await tinyRun({ train: 'steps: 3, rowsPerStep: 6, lr: 1.0e-2' });
const recipe = join(folder, 'recipe.yaml');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  disk.free = Number.POSITIVE_INFINITY;
});
const adapter = (run: string): Buffer => readFileSync(join(run, 'adapter', 'adapter_model.safetensors'));

test('always and never give the same adapter; nothing is left in the folder', async () => {
  const runs = await Promise.all(
    (['always', 'never'] as const).map(
      async (mode) =>
        (await runTraining({ recipe, set: [`train.offloadActivations=${mode}`], out: join(folder, mode) })).run,
    ),
  );
  const [always, never] = runs.map(adapter);
  expect(always?.equals(never ?? Buffer.alloc(0))).toBe(true);
  expect(readMetrics(join(folder, 'always')).map((m) => m.loss)).toEqual(
    readMetrics(join(folder, 'never')).map((m) => m.loss),
  );
  expect(readdirSync(join(folder, 'always')).filter((n) => n.startsWith('.'))).toEqual([]);
});

test('without room on the disk neither run nor plan goes on', async () => {
  disk.free = 4096;
  const set = ['train.offloadActivations=always'];
  await expect(runTraining({ recipe, set, out: join(folder, 'full') })).rejects.toMatchObject({
    code: 'offload_disk_full',
    message: expect.stringContaining('--out') as string,
  });
  expect(existsSync(join(folder, 'full'))).toBe(false);
  const plan = await planRecipe({ path: recipe, set, measure: false, out: join(folder, 'full') });
  expect(plan.fits).toBe(false);
  expect(plan.advice).toContain('--out');
  expect(plan.offloadedBytes).toBeGreaterThan(4096);
  expect((await planRecipe({ path: recipe, measure: false })).offloadedBytes).toBe(0);
});

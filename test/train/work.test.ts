// What a step has to do, said from another step's dry run: what its own dry run counts. And how unevenly experts are
// used.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packBatch } from '../../src/data/pack.js';
import { ExpertLoad } from '../../src/model/expert-load.js';
import { loadRecipe } from '../../src/recipe/load.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { defaultRunFolder } from '../../src/runs/run-folder.js';
import { dryStep } from '../../src/train/dry-step.js';
import { train } from '../../src/train/train.js';
import { StepWork } from '../../src/train/work.js';
import { tinyConfig, tinyRun } from './tiny.js';

let dir = '';
beforeAll(async () => {
  dir = await tinyRun();
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Rows of these many tokens in one batch, of which every `each`-th is a target. */
const batchOf = (lengths: readonly number[], each = 1) =>
  packBatch(
    lengths.map((n, row) => ({
      tokens: Int32Array.from({ length: n + 1 }, (_, i) => (i * 7 + row) % tinyConfig.vocab_size),
      weights: Float32Array.from({ length: n + 1 }, (_, i) => (i > 0 && i % each === 0 ? 1 : 0)),
      source: { file: 'made', line: row + 1 },
    })),
  );

describe('work of a step', () => {
  const limits = { threads: 0, gflops: 2, gbPerSecond: 3 };
  const made = () => {
    const { recipe, name } = loadRecipe(join(dir, 'recipe.yaml'), { set: ['train.recompute=always'] });
    const use = { hostMoments: false, offloadFrom: Infinity, keepBytes: 0, tokens: 64 };
    const dry = (batches: Parameters<StepWork['of']>[0]) =>
      dryStep(recipe, defaultRunFolder(name), batches, use, 'known').step;
    return { dry, work: new StepWork(tinyConfig, dry, [batchOf([40, 3], 2), batchOf([5])], limits) };
  };
  it('has the operations that a dry run of that step counts', () => {
    const { dry, work } = made();
    for (const batches of [
      [batchOf([40, 3], 2)],
      [batchOf([1])],
      [batchOf([7, 8, 9, 30], 3)],
      [batchOf([64]), batchOf([2, 2, 2], 2), batchOf([33])],
    ]) {
      const calls = dry(batches),
        flops = calls.reduce((sum, c) => sum + c.cost.flops, 0),
        bytes = calls.reduce((sum, c) => sum + c.cost.bytes, 0);
      expect(work.of(batches).flops / flops).toBeCloseTo(1, 9);
      // Experts that got no row are not read: bytes are near, not the same.
      expect(Math.abs(work.of(batches).bytes / bytes - 1)).toBeLessThan(0.1);
    }
  });
  it('goes by the limit that it needs longer for', () => {
    const { work } = made(),
      batches = [batchOf([40])],
      { flops, bytes } = work.of(batches);
    const least = Math.max(flops / 2e9, bytes / 3e9);
    expect(work.percentOfLimit(batches, 4 * least)).toBeCloseTo(25, 9);
    const quick = new StepWork(tinyConfig, made().dry, [batchOf([40])], { ...limits, gflops: 1e9 });
    expect(quick.percentOfLimit(batches, quick.of(batches).bytes / 3e9)).toBeCloseTo(100, 9);
    expect(Math.abs(quick.of(batches).bytes / bytes - 1)).toBeLessThan(0.1);
  });
});

describe('load of the experts', () => {
  it('is the busiest of the mean, over layers and passes', () => {
    const load = new ExpertLoad(2, 4);
    expect(load.take()).toBeNull();
    load.add(0, Int32Array.of(0, 2, 4, 6, 8)); // even
    load.add(1, Int32Array.of(0, 8, 8, 8, 8)); // all to one
    expect(load.take()).toBe((1 + 4) / 2);
    expect(load.take()).toBeNull();
    load.add(1, Int32Array.of(0, 3, 3, 3, 4));
    load.add(1, Int32Array.of(0, 0, 3, 3, 4));
    expect(load.take()).toBe((3 * 4) / 8);
  });
  it('is in the metrics of each step, between even and all to the same', async () => {
    const out = join(dir, 'runs', 'load');
    await train(join(dir, 'recipe.yaml'), { out, set: ['train.steps=3'] });
    const most = tinyConfig.num_local_experts / tinyConfig.num_experts_per_tok;
    for (const m of readMetrics(out)) {
      expect(m.expertImbalance).toBeGreaterThanOrEqual(1);
      expect(m.expertImbalance).toBeLessThanOrEqual(most);
      expect(m.percentOfLimit).toBeUndefined(); // of a CPU it is not measured
    }
    expect(new Set(readMetrics(out).map((m) => m.expertImbalance)).size).toBeGreaterThan(1);
  });
});

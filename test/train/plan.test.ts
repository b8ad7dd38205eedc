// The plan against what then happens: the dry run must make the allocations that the run makes.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { lossAndGradients } from '../../src/model/gpt-oss.js';
import { initCheckpoint, PRESETS } from '../../src/model/init.js';
import { createTrainable } from '../../src/model/trainable.js';
import { addon } from '../../src/native/addon.js';
import { dryRun } from '../../src/native/plan.js';
import { memoryStats, resetPeaks } from '../../src/native/tensor.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { runTraining } from '../../src/train/session.js';
import { planTraining } from '../../src/train/train.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-plan-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const within = (got: number, wanted: number, share: number): void => {
  expect(Math.abs(got / wanted - 1), `${got} against ${wanted}`).toBeLessThanOrEqual(share);
};

const median = (x: readonly number[]): number => [...x].sort((a, b) => a - b)[x.length >> 1] ?? Number.NaN;

async function recipe(name: string, yaml: string): Promise<string> {
  const rows = Array.from({ length: 24 }, (_, i) =>
    JSON.stringify({
      tokens: Array.from({ length: 40 + 9 * i }, (_, j) => (i * 131 + j * 17) % 1000),
      weights: Array.from({ length: 40 + 9 * i }, (_, j) => (j > 10 ? 1 : 0)),
    }),
  );
  writeFileSync(join(folder, 'rows.jsonl'), `${rows.join('\n')}\n`);
  const file = join(folder, `${name}.yaml`);
  writeFileSync(file, `${yaml}\ndata: { train: [{ path: rows.jsonl, format: tokens }], maxTokens: 512 }\n`);
  return file;
}

test('adapter training: predicted peak within 5 % of the allocator', async () => {
  await initCheckpoint(join(folder, 'base'), 'nano', { seed: 1 });
  const file = await recipe(
    'lora',
    'model: { base: base }\nadapter: { rank: 8, targets: [attention, experts, router] ' +
      '}\ntrain: { steps: 8, tokensPerStep: 1500 }',
  );
  const result = await runTraining({ recipe: file, out: join(folder, 'run') });
  const plan = await planTraining(file, { measure: false });
  within(plan.totalPeakBytes, result.peakBytes, 0.05);
  expect(plan.trainedParameters).toBeGreaterThan(0);
  expect(plan.mappedBytes).toBeGreaterThan(1e6);
});

test('held-out rows, those of data.split too: how often they are evaluated, and the memory of long ones', async () => {
  await initCheckpoint(join(folder, 'split-base'), 'nano', { seed: 1 });
  const file = await recipe(
    'split',
    'model: { base: split-base }\nadapter: { rank: 2, targets: [attention] }\n' +
      'train: { steps: 7, rowsPerStep: 2, evalEvery: 3 }',
  );
  const split = ['data.split.eval=0.3', 'data.split.seed=1'];
  const plan = await planTraining(file, { set: split });
  expect(plan.evaluations).toBe(3);
  expect(plan.evalSeconds).toBeGreaterThan(0);
  expect(plan.totalSeconds).toBeCloseTo(plan.steps * plan.stepSeconds + plan.evalSeconds, 6);
  const none = await planTraining(file, { set: [...split, 'train.evalEvery=null'], measure: false });
  expect(none).toMatchObject({ evaluations: 0, evalSeconds: 0 });
  const long = { tokens: Array.from({ length: 1000 }, (_, i) => i % 1000) };
  writeFileSync(join(folder, 'long.jsonl'), `${JSON.stringify(long)}\n`);
  const set = ['data.eval=long.jsonl', 'data.maxTokens=1024'];
  const wide = await planTraining(file, { set, measure: false });
  expect(wide.totalPeakBytes).toBeGreaterThan(none.totalPeakBytes);
});

/** Calls of each op while `work` runs. */
async function countCalls(work: () => Promise<unknown>): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  const call = addon.call;
  const spy = vi.spyOn(addon, 'call').mockImplementation((id) => {
    const name = addon.opNames[id] ?? '';
    counts[name] = (counts[name] ?? 0) + 1;
    call(id);
  });
  try {
    await work();
  } finally {
    spy.mockRestore();
  }
  return counts;
}

test('a step is timed by exactly the calls it makes, and takes about as long', async () => {
  // Rows of one length: every step is the same, so two more steps are twice one step's calls.
  const rows = Array.from({ length: 8 }, (_, i) =>
    JSON.stringify({
      tokens: Array.from({ length: 300 }, (_, j) => (i * 131 + j * 17) % 1000),
      weights: Array.from({ length: 300 }, (_, j) => (j > 10 ? 1 : 0)),
    }),
  );
  writeFileSync(join(folder, 'equal.jsonl'), `${rows.join('\n')}\n`);
  const file = join(folder, 'equal.yaml');
  writeFileSync(
    file,
    'model: { base: base }\nadapter: { rank: 8, targets: [attention, experts, router] }\n' +
      'data: { train: [{ path: equal.jsonl, format: tokens }], maxTokens: 512 }\ntrain: { steps: 9, rowsPerStep: 4 }\n',
  );
  const run = (name: string, steps: number) =>
    runTraining({ recipe: file, out: join(folder, name), set: [`train.steps=${steps}`] });
  const one = await countCalls(() => run('one', 1));
  const three = await countCalls(() => run('three', 3));
  const perStep = Object.fromEntries(
    Object.entries(three)
      .map(([op, n]) => [op, (n - (one[op] ?? 0)) / 2] as const)
      .filter(([, n]) => n > 0),
  );

  // Time: the median of three pairs, as other tests use the cores meanwhile; docs/log.md has a quiet machine's figures.
  const ratios: number[] = [];
  for (const pair of [0, 1, 2]) {
    const measured = median(
      readMetrics((await run(`timed-${pair}`, 6)).run)
        .slice(1)
        .map((m) => m.tokens / m.tokensPerSecond),
    );
    const plan = await planTraining(file);
    expect(Object.fromEntries(Object.entries(plan.byOp).map(([op, { calls }]) => [op, calls]))).toEqual(perStep);
    ratios.push(plan.stepSeconds / measured);
  }
  console.log(`step, predicted over measured: ${ratios.map((r) => r.toFixed(2)).join(', ')}`);
  expect(median(ratios)).toBeGreaterThan(1 / 3);
  expect(median(ratios)).toBeLessThan(3);
}, 400_000);

test('training from scratch: predicted peak within 5 %', async () => {
  const file = await recipe(
    'scratch',
    `model: { init: ${JSON.stringify(PRESETS.nano)} }\ntrain: { method: pretrain, steps: 2, tokensPerStep: 3000 }`,
  );
  const plan = await planTraining(file, { measure: false });
  const result = await runTraining({ recipe: file, out: join(folder, 'scratch-run') });
  within(plan.totalPeakBytes, result.peakBytes, 0.05);
});

test('what cannot fit is refused with the knob to turn', async () => {
  const file = await recipe(
    'huge',
    'model: { base: base }\nadapter: { rank: 1024, targets: [experts] }\ntrain: { steps: 1 }',
  );
  const set = ['train.recompute=always'];
  const plan = await planTraining(file, { measure: false, set });
  expect(plan.peakBytes.adapter).toBeGreaterThan(plan.peakBytes.activations);
  expect(plan).toMatchObject({ fits: true, advice: '' });
  const short = await planTraining(file, { measure: false, availableBytes: plan.totalPeakBytes - 1 });
  expect(short.fits).toBe(false);
  expect(short.advice).toContain('adapter.rank');
  expect((await planTraining(file, { measure: false, availableBytes: plan.totalPeakBytes })).fits).toBe(true);
});

test.each(['f32', 'bf16'] as const)('every category, %s, one pass: within 1 %', (precision) => {
  const T = 700;
  const pass = (): void => {
    const model = createTrainable(PRESETS.nano, { seed: 1 });
    const tokens = Int32Array.from({ length: T }, (_, i) => (i * 7919) % 1000);
    resetPeaks();
    lossAndGradients(
      model.model,
      null,
      { tokens, positions: Int32Array.from(tokens, (_, i) => i % 350), starts: Int32Array.of(0, 350, 700) },
      {
        rows: Int32Array.from({ length: 90 }, (_, i) => i * 3),
        targets: tokens.slice(0, 90),
        weights: new Float32Array(90).fill(1 / 90),
      },
      { precision, seed: 0, grads: model.gradViews, gradients: true },
    );
    model.close();
  };
  pass();
  const measured = memoryStats();
  const { report } = dryRun(pass);
  for (const category of ['weights', 'optimizer', 'activations', 'workspace'] as const)
    within(report.peak[category], measured.peak[category], 0.01);
  within(report.totalPeak, measured.totalPeak, 0.01);
});

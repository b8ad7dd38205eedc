// The serving plan against what a session then takes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { dryServing } from '../../src/infer/plan.js';
import { GREEDY } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { initCheckpoint } from '../../src/model/init.js';
import { quantizeDense } from '../../src/model/q8.js';
import { memoryStats, resetPeaks } from '../../src/native/tensor.js';

const root = mkdtempSync(join(tmpdir(), 'temper-serving-')),
  dir = join(root, 'model');
beforeAll(async () => {
  await initCheckpoint(dir, 'nano', { seed: 1 });
});
afterAll(() => rmSync(root, { recursive: true, force: true }));
const within = (got: number, wanted: number, share: number): void => {
  expect(Math.abs(got / wanted - 1), `${got} against ${wanted}`).toBeLessThanOrEqual(share);
};

test.each([
  ['bf16', 1, 1024],
  ['bf16', 8, 700],
  ['q8', 3, 600],
] as const)(
  '%s, %i sequences of %i tokens: peak within 5 %%, keys and values exact',
  (denseDtype, sequences, context) => {
    const plan = dryServing(dir, { context, sequences, denseDtype });
    resetPeaks();
    const before = memoryStats().totalLive;
    const checkpoint = openCheckpoint(dir),
      model = denseDtype === 'q8' ? quantizeDense(checkpoint) : checkpoint;
    {
      using session = new Session(model, { precision: 'bf16', slots: sequences, capacity: context });
      session.commitCache(); // as if all sequences were as long as they may be at once
      const tokens = Int32Array.from({ length: context - 3 }, (_, i) => (i * 37) % 1000);
      for (let i = 0; i < sequences; i++) session.start({ tokens, maxTokens: 3, stop: new Set(), sampling: GREEDY });
      while (!session.idle) session.step();
    }
    model.close();
    const { peak, totalPeak } = memoryStats();
    within(plan.totalPeakBytes, totalPeak - before, 0.05);
    expect(plan.peakBytes.kv).toBe(peak.kv);
    expect(plan.kvBytesPerSequence).toBe(peak.kv / sequences);
    expect(plan.fits).toBe(true);
  },
);

test('what cannot fit names the knob', () => {
  const plan = dryServing(dir, { context: 1024, sequences: 64, availableBytes: 1e6 });
  expect(plan).toMatchObject({ fits: false, advice: expect.stringContaining('--sequences') as string });
  expect(() => dryServing(dir, { context: 2000, sequences: 1 })).toThrow(
    expect.objectContaining({ code: 'context_too_long' }),
  );
});

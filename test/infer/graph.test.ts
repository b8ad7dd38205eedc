// Recorded decode steps on the CPU, and what its recordings must survive: tensors that are freed, files that are cut,
// ops that fail.
import { copyFileSync, mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { DecodeSteps, type StepValues } from '../../src/model/decode-step.js';
import { KvCache } from '../../src/model/kv-cache.js';
import { quantizeDense } from '../../src/model/q8.js';
import type { ModelWeights } from '../../src/model/types.js';
import { addon } from '../../src/native/addon.js';
import { Graph } from '../../src/native/graph.js';
import { ops } from '../../src/native/ops.js';
import { dryRun } from '../../src/native/plan.js';
import { memoryStats, resetPeaks, Scope, Tensor } from '../../src/native/tensor.js';
import { recordedSteps, step } from './recorded-steps.js';
import { tinyCheckpoint } from './tiny.js';

const { dir } = await tinyCheckpoint();
const bf16 = openCheckpoint(dir),
  q8 = quantizeDense(openCheckpoint(dir));
afterAll(() => {
  q8.close();
  bf16.close();
});
recordedSteps({ bf16, q8 });
const code = (value: string): Error => expect.objectContaining({ code: value }) as Error;

describe('a recording on the host', () => {
  it('says that a tensor from outside is gone, and does not hold it', () => {
    using s = new Scope(),
      inner = new Scope();
    const x = s.from(Float32Array.of(1, 2)),
      y = inner.from(Float32Array.of(3, 4)),
      live = memoryStats().totalLive;
    using graph = Graph.record(() => ops.add(x, y), 'cpu');
    inner.close();
    expect(memoryStats().totalLive).toBe(live - y.bytes);
    expect(() => graph.launch()).toThrow(code('stale_tensor'));
    expect([...x.toFloat32()]).toEqual([1, 2]);
  });

  it('passes on what an op fails with, and runs again when the cause is gone', () => {
    using s = new Scope();
    const table = s.from(Float32Array.of(1, 2, 3, 4), [2, 2]),
      row = s.from(Int32Array.of(7)),
      out = s.zeros('f32', [1, 2]);
    using graph = Graph.record(() => ops.gather_rows(out, table, row), 'cpu');
    expect(() => graph.launch()).toThrow(code('bad_index'));
    row.write(Int32Array.of(1));
    graph.launch();
    expect([...out.toFloat32()]).toEqual([3, 4]);
  });

  it('notices a file that was cut under it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'temper-graph-')),
      path = join(folder, 'weights.bin');
    try {
      copyFileSync(join(dir, 'config.json'), path);
      truncateSync(path, 3 * 16384);
      const file = addon.mapFile(path);
      using s = new Scope();
      const mapped = s.adopt(new Tensor(addon.mapTensor(file, 16384, 0, [8192]), 'f32', [8192])),
        x = s.zeros('f32', [8192]);
      using graph = Graph.record(() => ops.add(x, mapped), 'cpu');
      graph.launch();
      truncateSync(path, 16384);
      expect(() => graph.launch()).toThrow(code('file_changed'));
      expect(() => graph.launch()).toThrow(code('file_changed'));
      addon.unmapFile(file);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('shares its memory with others: fewer sequences take none, more begin anew; a dry run counts the same', () => {
    const values = (B: number): StepValues => ({ params: new Float32Array(4 * B), u: new Float32Array(B) });
    const run = (live: () => number): number[] => {
      using cache = new KvCache(bf16.config, 4, 64),
        steps = new DecodeSteps(bf16, cache, 'bf16');
      const before = live();
      return [2, 1, 3, 2, 4].map((B) => {
        for (let b = 0; b < 4; b++) cache.reset(b);
        for (let at = 0; at < 3; at++) steps.run(null, step(at, B), values(B));
        return live() - before;
      });
    };
    const [two = 0, one = 0, three = 0, twoAgain = 0, four = 0] = run(() => memoryStats().totalLive);
    expect(two).toBeGreaterThan(8 * bf16.config.vocab_size);
    expect(one - two).toBeLessThan(two / 20); // the inputs of another step
    expect(twoAgain - three).toBeLessThan(two / 20);
    expect(three).toBeLessThan(1.6 * two);
    expect(four).toBeLessThan(2.1 * two);
    const threeSteps = (model: ModelWeights): void => {
      using cache = new KvCache(model.config, 4, 64),
        steps = new DecodeSteps(model, cache, 'bf16');
      for (let at = 0; at < 3; at++) steps.run(null, step(at, 4), values(4));
    };
    const before = memoryStats().totalLive;
    resetPeaks();
    threeSteps(bf16);
    const peak = memoryStats().totalPeak - before;
    const { report } = dryRun(() => {
      const model = openCheckpoint(dir);
      try {
        threeSteps(model);
      } finally {
        model.close();
      }
    });
    expect(Math.abs(report.totalPeak / peak - 1), `${report.totalPeak} planned, ${peak} taken`).toBeLessThan(0.05);
    expect(report.ops.filter((c) => c.op === 'sample')).toHaveLength(3);
  });
});

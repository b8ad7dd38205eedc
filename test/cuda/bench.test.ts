// The bench on the (emulated) device: every row has numbers, the made-up model is what the file would hold, and ops are
// timed one by one.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { bench } from '../../src/bench/bench.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { initCheckpoint, madeUpModel } from '../../src/model/init.js';
import { openDevice } from '../../src/native/device.js';
import { measureDeviceLimits } from '../../src/native/device-limits.js';
import { tinyConfig } from '../train/tiny.js';
import { distance } from './emulated.js';

openDevice('cuda');
const root = mkdtempSync(join(tmpdir(), 'temper-bench-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('bench on the device', () => {
  it('measures prefill, decode and a LoRA step of a model made in device memory', () => {
    const { rows } = bench(tinyConfig, {
      place: 'cuda',
      limits: { threads: 0, gflops: 1, gbPerSecond: 1 },
      ops: true,
      precision: 'bf16',
      prefill: [12],
      depths: [0],
      batches: [2],
      lora: [16],
      rank: 2,
      secondsPerRow: 0.01,
    });
    expect(rows.map((r) => r.name)).toEqual(['prefill 12', 'decode 2 at 0', 'LoRA step 16']);
    for (const r of rows) {
      expect(r.tokensPerSecond).toBeGreaterThan(0);
      expect(r.deviceBytes?.weights).toBeGreaterThan(0);
      const experts = r.name.startsWith('decode') ? 'grouped_linear_swiglu_fwd' : 'grouped_linear_fwd';
      expect(r.byOp?.map((o) => o.op)).toContain(experts);
      for (const o of r.byOp ?? []) expect(o.seconds).toBeGreaterThan(0);
    }
    expect(rows[2]?.byOp?.map((o) => o.op)).toContain('adamw');
    expect(rows[2]?.expertImbalance).toBeGreaterThanOrEqual(1);
  });
  it('measures what a device can do, within what memory is left', () => {
    const limits = measureDeviceLimits('cuda', 0, 64);
    expect(limits.gflops).toBeGreaterThan(0);
    expect(limits.gbPerSecond).toBeGreaterThan(0);
  });
  it('the made-up model has the values that initCheckpoint writes', async () => {
    const dir = join(root, 'model');
    await initCheckpoint(dir, tinyConfig, { seed: 5 });
    using file = openCheckpoint(dir);
    const made = madeUpModel(tinyConfig, { seed: 5, place: 'cuda', embed: 'cpu' });
    try {
      for (const [a, b] of [
        [made.embed, file.embed],
        [made.head, file.head],
        [made.layers[1]?.gateUp.w, file.layers[1]?.gateUp.w],
        [made.layers[0]?.down.scales, file.layers[0]?.down.scales],
        [made.layers[1]?.q.w, file.layers[1]?.q.w],
      ] as const) {
        expect(a?.numel).toBe(b?.numel);
        if (a?.dtype === 'u8') expect(a.read()).toEqual(b?.read());
        else
          expect(
            distance(Float32Array.from(a?.read() ?? [], bf16), Float32Array.from(b?.read() ?? [], bf16)),
          ).toBeLessThan(0.01);
      }
    } finally {
      made.close();
    }
  });
});
function bf16(bits: number): number {
  const u = new Uint32Array([bits << 16]);
  return new Float32Array(u.buffer)[0] ?? NaN;
}

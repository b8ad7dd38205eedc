// What a run does with the memory there is: which way it takes, and how much it keeps in what that leaves.
import { describe, expect, it } from 'vitest';
import { OFFLOAD_FROM_BYTES } from '../../src/model/kept.js';
import type { MemoryModes, MemoryUse } from '../../src/train/memory-use.js';
import { chooseUse } from '../../src/train/room.js';

/** A step of 100 bytes, 10 more with the moments on the device, 20 with the layer inputs there; `gaps` beside them. */
const dryWith = (gaps: number) => (use: MemoryUse) => {
  const totalPeak = 100 + (use.hostMoments ? 0 : 10) + (use.offloadFrom === 0 ? 0 : 20);
  return { totalPeak: 7, mappedBytes: 3, device: { totalPeak, heldPeak: totalPeak + gaps, peak: {} as never } };
};
const dry = dryWith(0);
const onDevice = (device: number, modes: MemoryModes = {}): MemoryUse =>
  chooseUse(modes, 'cuda', 64, { host: 0, device }, dry).use;

describe('on a device', () => {
  it('all stays where there is room; layer inputs leave first, then the moments', () => {
    const ways = [200, 120, 110, 50].map((limit) => {
      const { hostMoments, offloadFrom } = onDevice(limit);
      return [hostMoments, offloadFrom];
    });
    // 0.95 of 120 is 114, of 110 104.5
    expect(ways).toEqual([
      [false, Infinity],
      [false, 0],
      [true, 0],
      [true, 0],
    ]);
  });
  it('keeps in what is left, and nothing where that is not known', () => {
    expect(onDevice(200).keepBytes).toBe(190 - 130);
    expect(onDevice(50).keepBytes).toBe(0);
    expect(onDevice(Number.NaN)).toMatchObject({ hostMoments: false, offloadFrom: Infinity, keepBytes: 0 });
  });
  it('what rounding and gaps take must fit as well', () => {
    const at = (gaps: number): MemoryUse => chooseUse({}, 'cuda', 64, { host: 0, device: 200 }, dryWith(gaps)).use;
    expect(at(5).keepBytes).toBe(190 - 130);
    expect(at(40)).toMatchObject({ hostMoments: false, offloadFrom: Infinity, keepBytes: 200 - 170 });
    expect(at(80)).toMatchObject({ hostMoments: false, offloadFrom: 0, keepBytes: 200 - 190 });
    expect(at(95)).toMatchObject({ hostMoments: true, offloadFrom: 0, keepBytes: 200 - 195 });
  });
  it('what a recipe says holds', () => {
    expect(onDevice(50, { offloadOptimizer: 'never' }).hostMoments).toBe(false);
    expect(onDevice(500, { offloadOptimizer: 'always', offloadActivations: 'always' })).toMatchObject({
      hostMoments: true,
      offloadFrom: 0,
    });
    expect(onDevice(500, { recompute: 'always' }).keepBytes).toBe(0);
    expect(onDevice(50, { recompute: 'never' }).keepBytes).toBe(Infinity);
  });
});

it('on the CPU half of what a step and the mapped files leave is kept in, and large inputs go to disk', () => {
  const { use } = chooseUse({}, 'cpu', 64, { host: 30, device: Number.NaN }, dry);
  expect(use).toEqual({ hostMoments: false, offloadFrom: OFFLOAD_FROM_BYTES, keepBytes: 10, tokens: 64 });
  expect(chooseUse({}, 'cpu', 64, { host: 9, device: 0 }, dry).use.keepBytes).toBe(0);
});

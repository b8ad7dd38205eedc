// Copies beside the ops: what crosses the bus both ways, in the order of the ops, and what a run says of it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import './emulated.js';
import { Parked, Parking } from '../../src/model/parked.js';
import { createTrainable } from '../../src/model/trainable.js';
import { arrive, deviceMemory, evict, openDevice, prefetch, takeTransfers } from '../../src/native/device.js';
import { Scope, type Tensor } from '../../src/native/tensor.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { train } from '../../src/train/train.js';
import { tinyConfig, tinyRun } from '../train/tiny.js';

openDevice('cuda');
/** Elements: several of the pieces that copies are made of, and a rest. */
const N = 5 * 2 ** 20 + 7;
const bytesOf = (x: Float32Array): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
const here = new Scope('activations'),
  there = new Scope('activations', 'cuda');
afterAll(() => {
  here.close();
  there.close();
});

it('brings back what was on the device when it was asked for, whatever ops write once it arrived', () => {
  const some = (): Tensor => there.empty('f32', [N]);
  const [x, y, source, noise] = [some(), some(), some(), some()],
    copy = here.empty('f32', [N]),
    want = Float32Array.from({ length: N }, (_, i) => i);
  source.write(want);
  noise.write(new Float32Array(N));
  // The copies wait for what was called before them, and what is called after them for the copies.
  const busy = (t: Tensor): void => {
    for (let i = 0; i < 20; i++) t.copy(noise);
  };
  takeTransfers();
  busy(x);
  x.copy(source);
  arrive(evict(copy, x));
  busy(x);
  expect(bytesOf(copy.toFloat32()).equals(bytesOf(want))).toBe(true);
  busy(y);
  arrive(prefetch(y, copy));
  copy.write(new Float32Array(N));
  expect(bytesOf(y.toFloat32()).equals(bytesOf(want))).toBe(true);
  const { bytes, hiddenPercent } = takeTransfers();
  expect(bytes).toBe(2 * 4 * N);
  expect(hiddenPercent).toBeGreaterThanOrEqual(0);
  expect(hiddenPercent).toBeLessThanOrEqual(100);
  expect(takeTransfers()).toEqual({ bytes: 0, hiddenPercent: NaN });
});

it('refuses a tensor on the wrong side, of another size, and a ticket twice', () => {
  const x = there.empty('f32', [8]),
    h = here.empty('f32', [8]),
    short = here.empty('f32', [7]);
  const code = (c: string): unknown => expect.objectContaining({ code: c });
  expect(() => evict(x, h)).toThrow(code('wrong_device'));
  expect(() => prefetch(h, x)).toThrow(code('wrong_device'));
  expect(() => evict(short, x)).toThrow(code('shape_mismatch'));
  const ticket = evict(h, x);
  arrive(ticket);
  expect(() => arrive(ticket)).toThrow(code('bad_argument'));
});

it('a pass that ends in an error leaves nothing behind', () => {
  const before = deviceMemory().totalLive;
  expect(() => {
    using s = new Scope('activations', 'cuda');
    using parking = new Parking();
    const leaving = parking.park(s.empty('f32', [1000])),
      coming = parking.park(s.empty('f32', [1000]));
    coming.left();
    coming.fetch();
    expect(leaving).toBeInstanceOf(Parked);
    throw new Error('the pass failed');
  }).toThrow('the pass failed');
  expect(deviceMemory().totalLive).toBe(before);
});

it('layer inputs cross the bus once each way, but for the last layer’s, and each step says so', async () => {
  const dir = await tinyRun(),
    layers = 4,
    rank = 2;
  const model = createTrainable({ ...tinyConfig, num_hidden_layers: layers }, { seed: 3 });
  await model.save(join(dir, 'base'));
  model.close();
  const tokens = Array.from({ length: 21 }, (_, i) => (i * 5) % 96);
  writeFileSync(join(dir, 'one.jsonl'), `${JSON.stringify({ tokens })}\n`);
  const run = (mode: 'always' | 'never') =>
    train(join(dir, 'recipe.yaml'), {
      out: join(dir, 'runs', mode),
      set: [
        'device=cuda',
        'data.train.0.path=one.jsonl',
        'train.steps=2',
        'train.rowsPerStep=1',
        `train.offloadActivations=${mode}`,
      ],
    });
  await run('never');
  await run('always');
  const [never, always] = (['never', 'always'] as const).map((mode) => readMetrics(join(dir, 'runs', mode)));
  const T = tokens.length - 1,
    K = tinyConfig.num_experts_per_tok;
  for (const m of always ?? []) {
    expect(m.copiedBytes).toBe(2 * (layers - 1) * 4 * T * (tinyConfig.hidden_size + K * rank));
    expect(m.copiesHidden).toBeGreaterThanOrEqual(0);
    expect(m.copiesHidden).toBeLessThanOrEqual(100);
  }
  expect(always).toHaveLength(2);
  expect(never?.map((m) => m.copiedBytes)).toEqual([undefined, undefined]);
  expect(always?.map((m) => m.loss)).toEqual(never?.map((m) => m.loss));
});

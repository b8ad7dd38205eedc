// What the released shapes take on a GPU, planned without one: 20b on a 16 GB card, with a long context on one of 24
// GB, 120b on one of 80 GB and, with streamed experts, of 24 GB. `held`: what the arena's books take from the driver.
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { PRESETS } from '../../src/model/init.js';
import { checkpointTensors } from '../../src/model/layout.js';
import { layoutFile } from '../../src/native/safetensors.js';
import { planTraining } from '../../src/train/train.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gpu-plan-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const GIB = 2 ** 30;

/** Files of the released shapes that are all holes: they take no disk. */
function released(preset: '20b' | '120b'): string {
  const dir = join(root, preset),
    path = join(dir, 'model.safetensors');
  if (existsSync(path)) return dir;
  mkdirSync(dir);
  writeFileSync(join(dir, 'config.json'), JSON.stringify(PRESETS[preset]));
  const { header, total } = layoutFile(
    path,
    checkpointTensors(PRESETS[preset]).map((t) => ({
      name: t.name,
      dtype: t.dtype,
      shape: t.shape,
      data: new Uint8Array(0),
    })),
    {},
  );
  const fd = openSync(path, 'w');
  writeSync(fd, header);
  ftruncateSync(fd, total);
  closeSync(fd);
  return dir;
}
async function plan(base: string, tokens: number, memoryLimit: string) {
  const at = (name: string): string => join(root, name);
  writeFileSync(
    at('rows.jsonl'),
    `${JSON.stringify({
      tokens: Array.from({ length: tokens + 1 }, (_, i) => i),
      weights: Array.from({ length: tokens + 1 }, (_, i) => (i ? 1 : 0)),
    })}\n`,
  );
  writeFileSync(
    at('recipe.yaml'),
    `model: { base: ${base} }\nadapter: { rank: 16, alpha: 32, targets: [attention, experts] ` +
      `}\ndata: { train: [{ path: rows.jsonl, format: tokens }], maxTokens: ${tokens + 1} ` +
      `}\ntrain: { steps: 1 }\ndevice: cuda\nmemoryLimit: ${memoryLimit}\n`,
  );
  const { device, fits, layout } = await planTraining(at('recipe.yaml'), { measure: false, availableBytes: 2 ** 40 });
  console.log(
    `${base.split('/').at(-1)}, ${tokens} tokens, limit ${memoryLimit}: ` +
      `${((device?.totalPeakBytes ?? NaN) / GIB).toFixed(2)} GiB of the device planned, ` +
      `${((device?.heldPeakBytes ?? NaN) / GIB).toFixed(2)} held, weights ` +
      `${((device?.peakBytes.weights ?? NaN) / GIB).toFixed(2)}`,
  );
  return {
    total: (device?.totalPeakBytes ?? NaN) / GIB,
    held: (device?.heldPeakBytes ?? NaN) / GIB,
    weights: (device?.peakBytes.weights ?? NaN) / GIB,
    fits,
    layout,
  };
}

test('20b with adapters on attention and all experts within 15.2 GiB', async () => {
  const base = released('20b');
  const short = await plan(base, 1024, '15.2GiB'),
    long = await plan(base, 4096, '15.2GiB');
  expect(short.weights).toBeCloseTo(11.74, 1); // everything but the embedding table
  for (const { total, held, fits } of [short, long]) {
    expect(held).toBeGreaterThan(total);
    expect(held).toBeLessThanOrEqual(15.2);
    expect(fits).toBe(true);
  }
});
test('20b with 32,768 tokens within 23 GiB', async () => {
  const { held, fits, layout } = await plan(released('20b'), 32_768, '23GiB');
  expect(held).toBeLessThanOrEqual(23);
  expect(fits).toBe(true);
  expect(layout.moments).toBe('cuda'); // the layers' inputs are enough to leave
});
test('120b within 76 GiB; within 22 GiB its experts are streamed', async () => {
  const base = released('120b');
  const whole = await plan(base, 8192, '76GiB'),
    streamed = await plan(base, 8192, '22GiB');
  expect(whole.weights).toBeCloseTo(59.69, 1);
  expect(whole.held).toBeLessThanOrEqual(76);
  expect(streamed.weights).toBeLessThan(7);
  expect(streamed.held).toBeLessThanOrEqual(22);
  expect([whole.fits, streamed.fits]).toEqual([true, true]);
});

// The event file of TensorBoard, read back by the format's own description.
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readMetrics, type StepMetrics } from '../../src/runs/metrics.js';
import { appendEvents, beginEvents, crc32c } from '../../src/runs/tensorboard.js';
import { runTraining } from '../../src/train/session.js';
import { tinyRun } from './tiny.js';

interface Event {
  readonly at: number;
  readonly step: number;
  readonly version?: string;
  readonly values: Readonly<Record<string, number>>;
}
function fields(bytes: Buffer): { readonly field: number; readonly value: number | Buffer }[] {
  const out: { field: number; value: number | Buffer }[] = [];
  let at = 0;
  const varint = (): number => {
    let n = 0,
      scale = 1;
    for (; ; scale *= 128) {
      const b = bytes[at++] ?? 0;
      n += (b & 127) * scale;
      if (b < 128) return n;
    }
  };
  while (at < bytes.length) {
    const key = varint(),
      wire = key & 7;
    let value: number | Buffer;
    if (wire === 0) value = varint();
    else if (wire === 1) [value, at] = [bytes.readDoubleLE(at), at + 8];
    else if (wire === 5) [value, at] = [bytes.readFloatLE(at), at + 4];
    else {
      const n = varint();
      [value, at] = [bytes.subarray(at, at + n), at + n];
    }
    out.push({ field: key >> 3, value });
  }
  return out;
}
function read(run: string): Event[] {
  const file = readFileSync(join(run, 'events.out.tfevents.temper'));
  const masked = (b: Buffer): number => {
    const c = crc32c(b);
    return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
  };
  const events: Event[] = [];
  for (let at = 0; at < file.length; ) {
    const n = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + n);
    expect(file.readUInt32LE(at + 8)).toBe(masked(file.subarray(at, at + 8)));
    expect(file.readUInt32LE(at + 12 + n)).toBe(masked(data));
    const of = (f: number): number | Buffer | undefined => fields(data).find((x) => x.field === f)?.value;
    const values = fields((of(5) as Buffer | undefined) ?? Buffer.alloc(0)).map(({ value }) => {
      const [tag, number] = fields(value as Buffer);
      return [String(tag?.value), Number(number?.value)] as const;
    });
    const version = of(3);
    expect(of(1)).toBeGreaterThan(1.7e9);
    events.push({
      at: Number(of(1)),
      step: Number(of(2)),
      values: Object.fromEntries(values),
      ...(version === undefined ? {} : { version: String(version) }),
    });
    at += 16 + n;
  }
  return events;
}
const line = (step: number, more: Partial<StepMetrics> = {}): StepMetrics => ({
  step,
  loss: 1 / step,
  lr: 0.5,
  gradNorm: 2,
  tokens: 10,
  tokensPerSecond: 100,
  peakBytes: 1,
  ...more,
});

it('knows CRC-32C', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283); // RFC 3720, B.4 has the polynomial
});
it('holds the version first, then every figure of every step', () => {
  const run = mkdtempSync(join(tmpdir(), 'temper-events-'));
  beginEvents(run, [line(1)]);
  appendEvents(run, line(300, { evalLoss: 0.25, evalMatch: 0.5 }));
  const step = { 'train/loss': 1, 'train/lr': 0.5, 'train/grad_norm': 2, 'train/tokens_per_second': 100 };
  expect(read(run).map(({ at: _, ...e }) => e)).toEqual([
    { step: 0, version: 'brain.Event:2', values: {} },
    { step: 1, values: step },
    {
      step: 300,
      values: { ...step, 'train/loss': Math.fround(1 / 300), 'eval/loss': 0.25, 'eval/exact_match': 0.5 },
    },
  ]);
});
it('of a run that was stopped and went on has every step once', async () => {
  const dir = await tinyRun();
  const set = ['train.tensorBoard=true', 'train.evalEvery=4'];
  const out = join(dir, 'runs', 'a'),
    recipe = join(dir, 'recipe.yaml');
  const stop = new AbortController();
  await runTraining({ recipe, out, set }, { signal: stop.signal, onProgress: (p) => p.step === 5 && stop.abort() });
  const before = read(out);
  await runTraining({ recipe, out, set, resume: true });
  // What was done keeps the time when it was done.
  expect(read(out).slice(0, 6)).toEqual(before);
  const events = read(out).slice(1);
  expect(events.map((e) => e.step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
  expect(events.map((e) => e.values['train/loss'])).toEqual(readMetrics(out).map((m) => Math.fround(m.loss)));
  expect(events.filter((e) => e.values['eval/loss'] !== undefined).map((e) => e.step)).toEqual([4, 8, 12]);
});

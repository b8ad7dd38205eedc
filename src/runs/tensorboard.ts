// TensorBoard's event file of a run: records of a length, its masked CRC-32C, an Event
// (tensorflow/core/util/event.proto) and its masked CRC-32C. Written by hand: four fields of one message are all there
// is to it.
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../base/files.js';
import { readInput } from '../base/inputs.js';
import type { StepMetrics } from './metrics.js';

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c >>> 0;
});
/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const b of bytes) c = (CRC[(c ^ b) & 255] ?? 0) ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}
/** As in TFRecord, so that a CRC of bytes that hold CRCs is no special case. */
const masked = (bytes: Uint8Array): number => {
  const c = crc32c(bytes);
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
};

function record(event: Buffer): Buffer {
  const out = Buffer.alloc(16 + event.length);
  out.writeBigUInt64LE(BigInt(event.length), 0);
  out.writeUInt32LE(masked(out.subarray(0, 8)), 8);
  event.copy(out, 12);
  out.writeUInt32LE(masked(event), 12 + event.length);
  return out;
}

function varint(n: number): Buffer {
  const out: number[] = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) | 128);
  return Buffer.from([...out, n]);
}
/** Field of bytes: wire type 2. */
const bytesField = (field: number, bytes: Buffer): Buffer =>
  Buffer.concat([Buffer.from([(field << 3) | 2]), varint(bytes.length), bytes]);
function numberField(field: number, size: 4 | 8, value: number): Buffer {
  const out = Buffer.alloc(1 + size);
  out[0] = (field << 3) | (size === 8 ? 1 : 5);
  if (size === 8) out.writeDoubleLE(value, 1);
  else out.writeFloatLE(value, 1);
  return out;
}

/** Event { wall_time = 1, step = 2, file_version = 3 | summary = 5 { value = 1 { tag = 1, simple_value = 2 } } } */
const eventOf = (seconds: number, step: number, what: Buffer): Buffer =>
  record(Buffer.concat([numberField(1, 8, seconds), Buffer.from([2 << 3]), varint(step), what]));

const TAGS: readonly (readonly [tag: string, of: (m: StepMetrics) => number | undefined])[] = [
  ['train/loss', (m) => m.loss],
  ['train/lr', (m) => m.lr],
  ['train/grad_norm', (m) => m.gradNorm],
  ['train/tokens_per_second', (m) => m.tokensPerSecond],
  ['train/percent_of_limit', (m) => m.percentOfLimit],
  ['train/expert_imbalance', (m) => m.expertImbalance],
  ['train/copies_hidden', (m) => m.copiesHidden],
  ['train/preferred', (m) => m.accuracy],
  ['train/margin', (m) => m.margin],
  ['train/reward_chosen', (m) => m.rewardChosen],
  ['train/reward_rejected', (m) => m.rewardRejected],
  ['eval/loss', (m) => m.evalLoss],
  ['eval/exact_match', (m) => m.evalMatch],
  ['eval/preferred', (m) => m.evalAccuracy],
  ['eval/margin', (m) => m.evalMargin],
  ['eval/reward_chosen', (m) => m.evalRewardChosen],
  ['eval/reward_rejected', (m) => m.evalRewardRejected],
];
function stepEvent(m: StepMetrics, seconds: number): Buffer {
  const values = TAGS.flatMap(([tag, of]) => {
    const value = of(m);
    if (value === undefined) return [];
    return [bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), numberField(2, 4, value)]))];
  });
  return eventOf(seconds, m.step, bytesField(5, Buffer.concat(values)));
}

/** Any name with `tfevents` in it is found by TensorBoard. */
const eventsFile = (run: string): string => join(run, 'events.out.tfevents.temper');
const now = (): number => Date.now() / 1000;

/** When which step was written, of an event file of ours; what follows a damaged record is left out. */
function timesIn(file: Buffer): ReadonlyMap<number, number> {
  const times = new Map<number, number>();
  for (let at = 0; at + 16 <= file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const event = file.subarray(at + 12, at + 12 + length);
    if (at + 16 + length > file.length || file.readUInt32LE(at + 12 + length) !== masked(event)) break;
    // wall_time, then step: see eventOf.
    let [step, scale] = [0, 1];
    for (let i = 10; i < event.length; i++, scale *= 128) {
      step += ((event[i] ?? 0) & 127) * scale;
      if ((event[i] ?? 0) < 128) break;
    }
    if (event.length > 10) times.set(step, event.readDoubleLE(1));
    at += 16 + length;
  }
  return times;
}
function oldTimes(run: string): ReadonlyMap<number, number> {
  try {
    return timesIn(readInput(eventsFile(run), 'metrics'));
  } catch {
    return new Map();
  }
}

/** Begins the file with the steps that stand, at the times they were done: those after them will be run again. */
export function beginEvents(run: string, metrics: readonly StepMetrics[]): void {
  const times = oldTimes(run);
  writeFileAtomic(
    eventsFile(run),
    Buffer.concat([
      eventOf(times.get(0) ?? now(), 0, bytesField(3, Buffer.from('brain.Event:2'))),
      ...metrics.map((m) => stepEvent(m, times.get(m.step) ?? now())),
    ]),
  );
}
export const appendEvents = (run: string, m: StepMetrics): void => appendFileSync(eventsFile(run), stepEvent(m, now()));

// 20,000 damaged Parquet files and as many of Arrow: each gives rows or an error, soon and in little memory. What is
// damaged are small files of every kind of column and encoding.
import { readFileSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { recordBatches } from '../../src/data/sources/arrow/batches.js';
import { FileBytes } from '../../src/data/sources/parquet/column.js';
import { rowGroups } from '../../src/data/sources/parquet/rows.js';
import { checkRows } from '../../src/data/sources/table.js';

const CASES = 20_000;
const golden = (name: string): Buffer => readFileSync(join(import.meta.dirname, '../golden/data', name));

/** The doors without the file system: what they read lies in memory. */
const doors = {
  parquet: (bytes: Buffer) =>
    rowGroups(new FileBytes('f', bytes.length, (into, at) => bytes.copy(into, 0, at, at + into.length))),
  arrow: (bytes: Buffer) => {
    const read = (into: Buffer, offset: number, length: number, at: number) =>
      Promise.resolve({ bytesRead: bytes.copy(into, offset, at, at + length) });
    return recordBatches('f', { stat: () => Promise.resolve({ size: bytes.length }), read } as unknown as FileHandle);
  },
};

/** @returns how many rows there were before the end or the error, and which error */
async function outcome(door: keyof typeof doors, bytes: Buffer): Promise<{ rows: number; error: unknown }> {
  let rows = 0;
  try {
    for await (const part of doors[door](bytes)) {
      checkRows(rows + part.rows, bytes.length);
      for (let i = 0; i < part.rows; i++) {
        part.at(i);
        rows++;
      }
    }
    return { rows, error: null };
  } catch (error) {
    return { rows, error };
  }
}

let seed = 1;
const random = (n: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
};
const EXTREMES = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 0x10000];

/** One to four changes: bits, bytes, lengths, pieces left out, doubled or moved, an end cut off. */
function damaged(good: Buffer): Buffer {
  let b = Buffer.from(good);
  for (let k = 1 + random(4); k > 0; k--) {
    // Lengths and offsets lie near the ends.
    const near = random(3);
    const span = near === 0 ? b.length : Math.min(b.length, 1200);
    const at = near === 2 ? b.length - 1 - random(span) : random(span);
    switch (random(8)) {
      case 0:
      case 1:
        b[at] = (b[at] ?? 0) ^ (1 << random(8));
        break;
      case 2:
        b[at] = random(256);
        break;
      case 3:
        b[at] = EXTREMES[random(5)] ?? 0;
        break;
      case 4:
        if (at + 4 <= b.length) b.writeUInt32LE(EXTREMES[random(EXTREMES.length)] ?? 0, at);
        break;
      case 5:
        b = Buffer.concat([b.subarray(0, at), b.subarray(Math.min(b.length, at + 1 + random(16)))]);
        break;
      case 6: {
        const from = random(b.length);
        b.copy(b, at, from, from + random(64));
        break;
      }
      default:
        if (random(8) === 0) b = b.subarray(0, at);
        else b[at] = (b[at] ?? 0) + (random(2) === 0 ? 1 : 255);
    }
    if (b.length === 0) return Buffer.from([0]);
  }
  return b;
}

const CORPUS = {
  parquet: ['kinds.snappy.parquet', 'kinds.gzip.parquet', 'tokens.snappy.parquet', 'tokens.zstd.parquet'],
  arrow: ['kinds.arrow', 'kinds.stream.arrow', 'tokens.arrow', 'tokens.stream.arrow', 'lz4.feather'],
};

describe.each(['parquet', 'arrow'] as const)('the door of %s', (door) => {
  const files = CORPUS[door].map(golden);
  it('reads what is whole', async () => {
    for (const file of files) expect(await outcome(door, file)).toMatchObject({ error: null });
  });
  it(`gives rows or an error for ${CASES} damaged files, soon and in little memory`, async () => {
    await outcome(door, files[0] as Buffer);
    const before = process.memoryUsage();
    let [read, refused, slowest, most] = [0, 0, 0, 0];
    for (let k = 0; k < CASES; k++) {
      const bytes = damaged(files[k % files.length] as Buffer);
      const cpu = process.cpuUsage();
      const { error, rows } = await outcome(door, bytes);
      const used = process.cpuUsage(cpu);
      slowest = Math.max(slowest, (used.user + used.system) / 1000);
      expect(rows).toBeLessThanOrEqual(64 * bytes.length);
      if (error === null) read++;
      else {
        refused++;
        expect(error).toBeInstanceOf(Error);
      }
      if (k % 500 === 0) most = Math.max(most, process.memoryUsage().arrayBuffers - before.arrayBuffers);
    }
    console.log(`${door}: ${read} read, ${refused} refused, slowest ${slowest.toFixed(0)} ms`);
    expect(refused).toBeGreaterThan(CASES / 4);
    expect(read).toBeGreaterThan(0);
    expect(slowest).toBeLessThan(2000);
    expect(most).toBeLessThan(256 * 2 ** 20);
  }, 300_000);
});

// Files that unpack to far more than they are, or to something else than they say: named errors in little memory.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { DataError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { sourceOf } from '../../src/data/sources/index.js';
import { unLz4Frame } from '../../src/data/sources/lz4.js';
import { unzstd, ZstdFrames } from '../../src/data/sources/zstd-frames.js';

const golden = (name: string): Buffer => readFileSync(join(import.meta.dirname, '../golden/data', name));
const dir = mkdtempSync(join(tmpdir(), 'temper-packed-'));
afterAll(() => rmSync(dir, { recursive: true }));
const written = (name: string, bytes: Uint8Array): string => {
  const path = join(dir, name);
  writeFileSync(path, bytes);
  return path;
};
async function rowsOf(file: string): Promise<unknown[] | DataError> {
  const rows: unknown[] = [];
  try {
    for await (const batch of (await sourceOf(file)).read(file).batches)
      for (const r of batch) rows.push(r.error ?? r.value);
    return rows;
  } catch (e) {
    if (e instanceof DataError) return e;
    throw e;
  }
}

describe('Zstandard', () => {
  const good = golden('checksum.zst');
  const wanted = golden('chat.jsonl')
    .toString('utf8')
    .trimEnd()
    .split('\n')
    .map((l) => JSON.parse(l) as unknown);
  it('is read with its checksum, several frames and such to skip in one file', async () => {
    expect(await rowsOf(written('a.zst', good))).toEqual(wanted);
    const skipped = Buffer.from('502a4d18030000006162630000', 'hex').subarray(0, 11);
    expect(await rowsOf(written('b.jsonl.zst', Buffer.concat([skipped, good, skipped, good])))).toHaveLength(602);
  });
  it('that is cut off, damaged or of another checksum is an error, never other rows', async () => {
    for (let k = 1; k <= 20; k++) {
      const cut = good.subarray(0, Math.floor((good.length * k) / 21));
      expect(await rowsOf(written('cut.zst', cut))).toMatchObject({ code: 'bad_zstd' });
    }
    for (let k = 0; k < 200; k++) {
      const flipped = Buffer.from(good);
      const at = (k * 7919) % good.length;
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (k % 8));
      const got = await rowsOf(written('flipped.zst', flipped));
      // What changes nothing of the content may pass: a window that is larger than it need be.
      // Without its first bytes it is a file of lines that are no JSON.
      if (Array.isArray(got) && got.every((r) => r instanceof DataError)) continue;
      if (!(got instanceof DataError)) expect(got, `bit ${k % 8} of byte ${at}`).toEqual(wanted);
      else expect(['bad_zstd', 'file_kind', 'not_json']).toContain(got.code);
    }
  });
  it('with a window that no memory should be taken for is refused', async () => {
    const frame = Buffer.concat([Buffer.from('28b52ffd', 'hex'), Buffer.from([0, 0xa0]), Buffer.alloc(3)]);
    const e = (await rowsOf(written('window.zst', frame))) as DataError;
    expect(e).toMatchObject({ code: 'bad_zstd' });
    expect(e.message).toMatch(/window of 1073741824 bytes is above/);
  });
  it('gives no more than was asked for', async () => {
    const frames = await ZstdFrames.open();
    expect(() => unzstd(frames.fresh(), good, 10)).toThrow(/more than the 10 bytes/);
    expect(() => unzstd(frames.fresh(), good, 10 ** 6)).toThrow(/says 1000000/);
  });
});

it('an LZ4 frame is cut to its size and never read past', () => {
  const feather = golden('lz4.feather');
  const at = feather.indexOf(Buffer.from('04224d18', 'hex'));
  expect(at).toBeGreaterThan(0);
  for (let k = 0; k < 500; k++) {
    const frame = Buffer.from(feather.subarray(at, at + 40));
    frame[(k * 31) % 40] = (k * 97) % 256;
    try {
      expect(unLz4Frame(frame, 16)).toHaveLength(16);
    } catch (e) {
      expect(e).toBeInstanceOf(Error);
    }
  }
});

describe('what unpacks to a thousand times its size', () => {
  /** Peak memory of a process that reads the file, MiB above one that reads next to nothing. */
  function peak(file: string): { readonly code: string; readonly mib: number } {
    const dist = join(packageRoot, 'dist/data/sources/index.js');
    const script = `
      const { sourceOf } = await import(${JSON.stringify(dist)});
      let code = '';
      try {
        const file = ${JSON.stringify(file)};
        const source = await sourceOf(file);
        for await (const batch of source.read(file).batches) for (const r of batch) code ||= r.error?.code ?? '';
      } catch (e) { code = e.code ?? String(e); }
      const { readFileSync } = await import('node:fs');
      const mib = Number(/VmHWM:\\s*(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
      console.log(JSON.stringify({ code, mib }));`;
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    return JSON.parse(out) as { code: string; mib: number };
  }
  const small = peak(written('small.jsonl.gz', gzipSync('{}\n')));
  it.each<[string, string, () => Uint8Array]>([
    ['gzip, one line', 'line_too_long', () => gzipSync(Buffer.alloc(400 * 2 ** 20, 'a'))],
    [
      'gzip, an array',
      'row_too_large',
      () => gzipSync(Buffer.concat([Buffer.from('["'), Buffer.alloc(400 * 2 ** 20, 'a')])),
    ],
    ['gzip, a table inside', 'file_kind', () => gzipSync(gzipSync(Buffer.alloc(2 ** 20)))],
    [
      'Zstandard, one line of runs',
      'line_too_long',
      () => {
        const run = Buffer.from([0b010 | 0, 0, 16, 0x61]); // 128 KiB of one letter, not the last block
        return Buffer.concat([Buffer.from('28b52ffd0040', 'hex'), ...Array.from({ length: 8000 }, () => run)]);
      },
    ],
  ])('%s is %s', (name, code, make) => {
    const got = peak(written(`${name.replaceAll(/\W/g, '-')}.${name.startsWith('gzip') ? 'gz' : 'zst'}`, make()));
    expect(got.code).toBe(code);
    expect(got.mib - small.mib).toBeLessThan(300);
  });
  it.each(['snappy', 'gzip'])('a page header of %s that says it has 2 GiB', (codec) => {
    const good = golden(`kinds.${codec}.parquet`);
    // The header of the first page: type, then its size unpacked as a zigzag integer of several bytes.
    const at = 4;
    expect(good[at]).toBe(0x15);
    const bomb = Buffer.concat([
      good.subarray(0, at + 3),
      Buffer.from([0xfe, 0xff, 0xff, 0xff, 0x0f]),
      good.subarray(at + 4),
    ]);
    const got = peak(written(`bomb-${codec}.parquet`, bomb));
    expect(['bad_table', 'row_group_too_large']).toContain(got.code);
    expect(got.mib - small.mib).toBeLessThan(150);
  });
});

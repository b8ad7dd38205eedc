// Large files: the bytes and their digest, past the page cache and through it, and what a full disk does.
import { createHash } from 'node:crypto';
import { constants, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { LargeFile } from '../../src/base/large-file.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-large-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Whether this folder's file system takes O_DIRECT. */
function takesDirect(): boolean {
  try {
    openSync(join(folder, 'probe'), constants.O_WRONLY | constants.O_CREAT | constants.O_DIRECT);
    return true;
  } catch {
    return false;
  }
}
function bytesOf(n: number, seed: number): Uint8Array {
  const out = new Uint8Array(n);
  let x = seed;
  for (let i = 0; i < n; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    out[i] = x >>> 24;
  }
  return out;
}

const MIB = 1 << 20;
describe.each([
  ['through the page cache', Number.POSITIVE_INFINITY],
  ['past the page cache', 0],
])('%s', (_, directFrom) => {
  test.each([
    ['nothing', []],
    ['one byte', [1]],
    ['a block', [4096]],
    ['odd pieces over several buffers', [5, 8 * MIB - 5, 3, 12 * MIB + 1, 0, 4095]],
    ['more than all buffers hold', [104 * MIB + 17, 9]],
  ])('%s', async (name, sizes) => {
    const path = join(folder, `${name} ${directFrom}`);
    writeFileSync(path, 'what was there before, and longer than one byte');
    const expectedBytes = sizes.reduce((a, b) => a + b, 0);
    const file = await LargeFile.create(path, { expectedBytes, directFrom });
    expect(file.direct).toBe(directFrom === 0 && takesDirect());
    const hash = createHash('sha256'),
      whole: Uint8Array[] = [];
    for (const [i, n] of sizes.entries()) {
      const piece = bytesOf(n, i);
      whole.push(piece.slice());
      hash.update(piece);
      await file.write(piece);
      piece.fill(255); // it is the caller's again
    }
    expect(await file.finish()).toBe(hash.digest('hex'));
    await file.close();
    await file.close();
    expect(statSync(path).size).toBe(expectedBytes);
    expect(Buffer.compare(readFileSync(path), Buffer.concat(whole))).toBe(0);
  });
});

test('a disk without room is an error, where the file is used next or at its end', async () => {
  const file = await LargeFile.create('/dev/full', { expectedBytes: 1 });
  await expect(
    (async () => {
      for (let i = 0; i < 8; i++) await file.write(new Uint8Array(8 * MIB));
      await file.finish();
    })(),
  ).rejects.toMatchObject({ code: 'ENOSPC' });
  await file.close();
});

test('two files at once do not share their buffers', async () => {
  const paths = [join(folder, 'a'), join(folder, 'b')];
  const files = await Promise.all(paths.map((path) => LargeFile.create(path, { expectedBytes: 0 })));
  for (let i = 0; i < 5; i++) for (const [k, f] of files.entries()) await f.write(bytesOf(1000, i + 10 * k));
  for (const f of files) await f.finish().finally(() => f.close());
  for (const [k, path] of paths.entries())
    for (let i = 0; i < 5; i++)
      expect(Buffer.compare(readFileSync(path).subarray(1000 * i, 1000 * (i + 1)), bytesOf(1000, i + 10 * k))).toBe(0);
});

// A mapped file that is shortened under us is an error, not the end of the process.
import { mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { CheckpointError } from '../../src/base/errors.js';
import { addon } from '../../src/native/addon.js';
import { ops } from '../../src/native/ops.js';
import { DTYPES, Scope, Tensor } from '../../src/native/tensor.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-mapped-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const N = 1 << 20;
const path = join(folder, 'weights.bin');
beforeEach(() => {
  writeFileSync(path, new Uint8Array(new Float32Array(N).fill(2).buffer));
});

function map(scope: Scope): { file: number; tensor: Tensor } {
  const file = addon.mapFile(path);
  return { file, tensor: scope.adopt(new Tensor(addon.mapTensor(file, 0, DTYPES.indexOf('f32'), [N]), 'f32', [N])) };
}
const sum = (scope: Scope, t: Tensor): number => {
  const out = scope.empty('f32', [1]);
  ops.sum_squares(out, t);
  return out.toFloat32()[0] ?? Number.NaN;
};
const changed = expect.objectContaining({
  code: 'file_changed',
  message: expect.stringContaining('weights.bin') as string,
}) as Error;

test('shortened while mapped: the op that reads it fails, and so does every later one', () => {
  using scope = new Scope();
  const { file, tensor } = map(scope);
  expect(sum(scope, tensor)).toBe(4 * N);
  truncateSync(path, 4096);
  expect(() => sum(scope, tensor)).toThrow(changed);
  expect(() => sum(scope, tensor)).toThrow(CheckpointError);
  expect(() => tensor.read()).toThrow(changed);
  addon.unmapFile(file);
});

test('shortened to nothing, read from JavaScript first', () => {
  using scope = new Scope();
  const { file, tensor } = map(scope);
  truncateSync(path, 0);
  expect(() => tensor.read()).toThrow(changed);
  addon.unmapFile(file);
});

test('a new file under the old name leaves the mapping as it was', () => {
  using scope = new Scope();
  const { file, tensor } = map(scope);
  writeFileSync(`${path}.new`, 'short');
  renameSync(`${path}.new`, path);
  expect(sum(scope, tensor)).toBe(4 * N);
  addon.unmapFile(file);
});

test('another mapping is not touched by the damage of one', () => {
  using scope = new Scope();
  const first = map(scope);
  const other = join(folder, 'other.bin');
  writeFileSync(other, new Uint8Array(new Float32Array(16).fill(3).buffer));
  const file = addon.mapFile(other);
  const whole = scope.adopt(new Tensor(addon.mapTensor(file, 0, DTYPES.indexOf('f32'), [16]), 'f32', [16]));
  truncateSync(path, 0);
  expect(() => sum(scope, first.tensor)).toThrow(changed);
  expect(sum(scope, whole)).toBe(9 * 16);
  addon.unmapFile(first.file);
  addon.unmapFile(file);
});

test.skipIf(process.platform !== 'linux')(
  'an offloaded tensor whose disk loses it: a typed error, written or read, and the process lives',
  () => {
    using scope = new Scope();
    const [read, written, whole] = [0, 1, 2].map(() => scope.offloaded(folder, 'f32', [N])) as [Tensor, Tensor, Tensor];
    for (const t of [read, written, whole]) ops.fill(t, 2);
    const files = readdirSync('/proc/self/fd')
      .sort((a, b) => Number(a) - Number(b))
      .filter((n) => {
        try {
          return readlinkSync(`/proc/self/fd/${n}`).startsWith(folder);
        } catch {
          return false;
        }
      });
    expect(files).toHaveLength(3);
    for (const n of files.slice(0, 2)) truncateSync(`/proc/self/fd/${n}`, 0);
    const lost = expect.objectContaining({ code: 'offload_lost' }) as Error;
    expect(() => sum(scope, read)).toThrow(lost);
    expect(() => ops.fill(written, 3)).toThrow(lost);
    expect(() => written.write(new Float32Array(N))).toThrow(lost);
    expect(sum(scope, whole)).toBe(4 * N);
  },
);

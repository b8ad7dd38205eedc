import { existsSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { makeFolders } from '../../src/base/folders.js';

const root = mkdtempSync(join(tmpdir(), 'folders-'));

it('makes what is missing and says where it began', () => {
  expect(makeFolders(join(root, 'a', 'b', 'c'))).toBe(join(root, 'a'));
  expect(existsSync(join(root, 'a', 'b', 'c'))).toBe(true);
  expect(makeFolders(join(root, 'a', 'b', 'd'))).toBe(join(root, 'a', 'b', 'd'));
  expect(makeFolders(join(root, 'a'))).toBeUndefined();
  symlinkSync(join(root, 'a'), join(root, 'link'));
  expect(makeFolders(join(root, 'link', 'e'))).toBe(join(root, 'link', 'e'));
});
it('ends where nothing can be made, with the error of the system', () => {
  writeFileSync(join(root, 'file'), '');
  symlinkSync('circle', join(root, 'circle'));
  for (const [path, code] of [
    ['/proc/none/x', 'ENOENT'],
    [join(root, 'file'), 'EEXIST'],
    [join(root, 'file', 'x'), 'ENOTDIR'],
    [join(root, 'circle', 'x'), 'ELOOP'],
    [join(root, 'n'.repeat(300)), 'ENAMETOOLONG'],
  ] as const)
    expect(() => makeFolders(path), path).toThrow(expect.objectContaining({ code }));
});

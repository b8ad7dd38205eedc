// Where the addon is looked for, and what is said where it is not: a copy of the compiled package in a folder of its
// own, with and without a platform package beside it.
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot, versions } from '../../src/base/machine.js';

const project = mkdtempSync(join(tmpdir(), 'temper-package-'));
afterAll(() => rmSync(project, { recursive: true }));
const modules = join(project, 'node_modules');
const own = join(modules, 'temper-oss');
const platform = join(modules, '@temper-oss', `${process.platform}-${process.arch}`);
mkdirSync(own, { recursive: true });
cpSync(join(packageRoot, 'dist'), join(own, 'dist'), { recursive: true });
cpSync(join(packageRoot, 'package.json'), join(own, 'package.json'));
symlinkSync(join(packageRoot, 'node_modules'), join(own, 'node_modules'));

const script = `
  const { memoryStats } = await import('temper-oss');
  try { console.log(typeof memoryStats().totalLive); } catch (e) { console.log(e.code, e.exitCode, e.message); }`;
const use = (): Promise<string> =>
  new Promise((resolve) =>
    execFile(process.execPath, ['--input-type=module', '-e', script], { cwd: project }, (_, out, err) =>
      resolve((out + err).trim()),
    ),
  );
const install = (version: string, addon: string | null): void => {
  rmSync(platform, { recursive: true, force: true });
  mkdirSync(platform, { recursive: true });
  writeFileSync(join(platform, 'package.json'), JSON.stringify({ name: 'x', version }));
  if (addon !== null) cpSync(join(packageRoot, 'build', 'temper.node'), join(platform, 'temper.node'));
  if (addon === '') writeFileSync(join(platform, 'temper.node'), 'no library');
};

it.each([
  ['none', () => {}, /^addon_missing 2 .*npx temper build-native/],
  ['of another version', () => install('0.0.1', 'whole'), /^addon_version 2 .*is .* 0\.0\.1, wanted .*npm install/],
  ['without its library', () => install(versions().temper, null), /^addon_missing 2 .*npx temper build-native/],
  ['that cannot be loaded', () => install(versions().temper, ''), /^addon_unusable 2 .*npx temper build-native/],
  ['whole', () => install(versions().temper, 'whole'), /^number$/],
] as const)(
  'a platform package: %s',
  async (_, prepare, said) => {
    prepare();
    const out = await use();
    expect(out).toMatch(said);
    expect(out).not.toContain('\n');
  },
  30_000,
);

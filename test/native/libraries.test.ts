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

const doctor = (): Promise<{ readonly code: number; readonly out: string; readonly err: string }> =>
  new Promise((resolve) =>
    execFile(
      process.execPath,
      [join(own, 'dist', 'cli', 'main.js'), 'doctor', '--no-measure'],
      { cwd: project, env: { ...process.env, TEMPER_CUDA_LIBRARY: '' } },
      (error, out, err) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, out, err }),
    ),
  );
it('the doctor tells of packages that do not fit in a line, and goes on', async () => {
  install(versions().temper, 'whole');
  const cuda = `${platform}-cuda`;
  mkdirSync(cuda, { recursive: true });
  writeFileSync(join(cuda, 'package.json'), JSON.stringify({ name: 'x', version: '0.0.1' }));
  const other = await doctor();
  expect(other.err).toBe('');
  expect(other.code).toBe(0);
  expect(other.out).toMatch(/^cuda {6}a package of another version\n {10}.* 0\.0\.1, wanted .*npm install/m);
  expect(other.out).toMatch(/^auto {6}cpu/m);
  rmSync(cuda, { recursive: true });
  // Without the addon there is less to tell, and what is wrong with it is told.
  for (const [version, said] of [
    ['0.0.1', /^addon {5}.* 0\.0\.1, wanted .*npm install/m],
    [versions().temper, /^addon {5}.*cannot be loaded .*npx temper build-native/m],
  ] as const) {
    install(version, '');
    const without = await doctor();
    expect(without).toMatchObject({ code: 2, err: '' });
    expect(without.out).toMatch(/^node .*\ncpu .*\nmemory /);
    expect(without.out).toMatch(said);
  }
});

it.each([
  ['none', () => rmSync(platform, { recursive: true, force: true }), /^addon_missing 2 .*npx temper build-native/],
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
  180_000,
);

// Every example of docs/api.md runs as written.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test, vi } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';

const page = readFileSync(join(packageRoot, 'docs', 'api.md'), 'utf8');
const examples = [...page.matchAll(/^## ([^\n]+)\n(?:(?!^## )[\s\S])*?^```ts\n([\s\S]*?)^```/gm)].map((m) => ({
  title: m[1] ?? '',
  code: m[2] ?? '',
}));
const folder = join(packageRoot, 'build', 'docs-examples');
mkdirSync(folder, { recursive: true });
afterAll(() => {
  for (const dir of [folder, join(packageRoot, 'runs', 'api-example')]) rmSync(dir, { recursive: true, force: true });
});

test('the page has an example under every heading', () => {
  expect(examples.length).toBe([...page.matchAll(/^## /gm)].length);
  expect(examples.length).toBe(14);
});

test.each(examples)(
  '$title',
  async ({ title, code }) => {
    const file = join(folder, `${title.replaceAll(/\W+/g, '-')}.ts`);
    writeFileSync(file, code.replaceAll("'temper-oss'", JSON.stringify(join(packageRoot, 'src', 'index.ts'))));
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    const cwd = process.cwd();
    try {
      rmSync(join(packageRoot, 'runs', 'api-example'), { recursive: true, force: true });
      await import(pathToFileURL(file).href);
      expect(log.mock.calls.length, 'an example prints what it made').toBeGreaterThan(0);
      for (const call of log.mock.calls) expect(call.join(' ')).not.toMatch(/undefined|NaN/);
    } finally {
      log.mockRestore();
      process.chdir(cwd);
    }
  },
  180_000,
);

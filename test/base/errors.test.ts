// The list of error codes, the page that is generated from where they are raised, and errors between threads.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { ERROR_CODES } from '../../src/base/error-codes.js';
import { errorFromData, errorToData } from '../../src/base/error-data.js';
import { DataError, IntegrityError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';

it('every code that is raised, in TypeScript or native code, is in the list, and the list holds no other', () => {
  const page = readFileSync(join(packageRoot, 'docs', 'errors.md'), 'utf8');
  const raised = [...page.matchAll(/^\| `([a-z0-9_]+)`/gm)].map((m) => m[1] ?? '');
  expect(raised.length).toBeGreaterThan(100);
  expect([...ERROR_CODES]).toEqual([...ERROR_CODES].sort());
  expect(raised.filter((code) => !(ERROR_CODES as readonly string[]).includes(code))).toEqual([]);
  expect(ERROR_CODES.filter((code) => !raised.includes(code))).toEqual([]);
});

it('errors come back from another thread as the class they were', () => {
  const made = new IntegrityError('run_changed', 'runs/a: differs', { run: 'runs/a' });
  const back = errorFromData(structuredClone(errorToData(made)));
  expect(back).toBeInstanceOf(IntegrityError);
  expect(back).toMatchObject({
    code: 'run_changed',
    message: 'runs/a: differs',
    details: { run: 'runs/a' },
    exitCode: 40,
  });
  // What cannot be cloned is dropped, the error is not.
  const odd = errorFromData(structuredClone(errorToData(new DataError('bad_row', 'x', { f: 1n }))));
  expect(odd).toMatchObject({ code: 'bad_row', details: {} });
  expect(errorFromData(errorToData(new RangeError('far')))).toMatchObject({ name: 'RangeError', message: 'far' });
  expect(errorFromData(errorToData('text'))).toMatchObject({ message: 'text' });
});

it('paths and errors are there without native code, which is loaded at its first use', async () => {
  const index = join(packageRoot, 'dist', 'index.js');
  const script = `
    const { TemperError, createAdapter, memoryStats } = await import(${JSON.stringify(index)});
    if (typeof createAdapter !== 'function') throw new Error('the library is not there');
    for (let i = 0; i < 2; i++)
      try {
        memoryStats();
      } catch (e) {
        if (!(e instanceof TemperError)) throw e;
        console.log(e.code);
      }`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, TEMPER_ADDON: '/nowhere/temper.node' },
  });
  expect(stdout.trim().split('\n')).toEqual(['addon_missing', 'addon_missing']);
});

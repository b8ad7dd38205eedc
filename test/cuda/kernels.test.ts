// A launch lets a kernel begin before the kernels ahead of it have ended (native/gpu/runtime.h). One that does not
// wait first races with them, which the emulation cannot show. What asks for memory ahead, by `ask_ahead`, may stand
// before: it brings lines to L2 and nothing into the kernel.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';

/** First statement in the body of each __global__ function, but for ask_ahead. */
function firstStatements(text: string): string[] {
  const past = (at: number): number => {
    // the index after the parenthesis that closes the one at `at`
    let depth = 0,
      i = at;
    do {
      if (text[i] === '(') depth++;
      else if (text[i] === ')') depth--;
      i++;
    } while (depth > 0 && i < text.length);
    return i;
  };
  return [...text.matchAll(/__global__\s+void\s*/g)].map((m) => {
    let at = m.index + m[0].length;
    if (text.startsWith('__launch_bounds__', at)) at = past(text.indexOf('(', at));
    const body = text.indexOf('{', past(text.indexOf('(', at))) + 1;
    const statement = (from: number): string => text.slice(from, text.indexOf(';', from) + 1).trim();
    const first = statement(body);
    return /^ask_ahead(<[\w, ]*>)?\(\w+\);$/.test(first) ? statement(text.indexOf(';', body) + 1) : first;
  });
}

it('every kernel waits first for those ahead of it', () => {
  const found = ['cuda', 'gpu'].flatMap((room) => {
    const dir = join(packageRoot, 'native', room);
    const kernels = readdirSync(dir, { recursive: true, encoding: 'utf8' })
      .filter((f) => /\.cuh?$/.test(f))
      .flatMap((f) => firstStatements(readFileSync(join(dir, f), 'utf8')).map((s) => `${f}: ${s}`));
    expect(kernels.length).toBeGreaterThanOrEqual(20);
    return kernels;
  });
  expect(found.length).toBeGreaterThanOrEqual(60);
  expect(found.filter((s) => !s.endsWith(': wait_for_previous();'))).toEqual([]);
});
it('is seen by that search where it does not', () => {
  expect(
    firstStatements(
      'template <int W> __global__ void __launch_bounds__(kA * kB, 1)\n    f(float* x, int ' +
        '(*g)(int)) {\n  x[0] = 1;\n  wait_for_previous();\n}\n__global__ void g(A a) {\n  ' +
        'wait_for_previous();\n}\n__global__ void h(A a) {\n  ask_ahead<W>(a);\n  wait_for_previous();\n}\n' +
        '__global__ void i(A a) {\n  ask_ahead<W>(a);\n  x[0] = 1;\n  wait_for_previous();\n}',
    ),
  ).toEqual(['x[0] = 1;', 'wait_for_previous();', 'wait_for_previous();', 'x[0] = 1;']);
});

// The op table: what is made from it is up to date and agrees with the addon; contracts; and what a call costs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NativeError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { addon } from '../../src/native/addon.js';
import { OP_ARGUMENTS } from '../../src/native/ops.generated.js';
import { type Ops, ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';

/** Names of the table, read from its declaration with no help of the generator's. */
const declared = [...readFileSync(join(packageRoot, 'native/include/temper/ops.def'), 'utf8').matchAll(/^\w+$/gm)].map(
  (m) => m[0],
);

describe('one table', () => {
  it('what is made from ops.def is up to date', async () => {
    const { generateOps } = (await import(join(packageRoot, 'scripts/generate-ops.mjs'))) as {
      generateOps: () => Record<string, string>;
    };
    const made = Object.entries(generateOps());
    expect(made).toHaveLength(2);
    for (const [path, content] of made)
      expect(readFileSync(join(packageRoot, path), 'utf8') === content, `${path} is stale: run npm run ops`).toBe(true);
  });
  it('the addon and the typed door have its ops, in its order', () => {
    expect(declared.length).toBeGreaterThanOrEqual(35);
    expect(addon.opNames).toEqual(declared);
    expect(ops.add).toBeTypeOf('function'); // loads them
    expect(Object.keys(ops)).toEqual(declared);
  });
  for (const [id, name] of addon.opNames.entries()) {
    it(`${name}: arity, and no argument is a tensor unless it is one`, () => {
      const names: readonly string[] = OP_ARGUMENTS[name as keyof Ops];
      expect(addon.opArity[id]).toBe(names.length);
      const call = ops[name as keyof Ops] as unknown as (...a: unknown[]) => void;
      expect(() => call(...names.map(() => null), null)).toThrow(
        expect.objectContaining({
          code: 'bad_argument',
          message: expect.stringContaining(`wanted ${names.length}: ${names.join(', ')}`) as string,
        }),
      );
      expect(() => call(...names.map(() => null))).toThrow(NativeError);
    });
  }
  it('errors name the argument', () => {
    using s = new Scope();
    const gone = new Scope();
    const x = gone.zeros('f32', [2]);
    gone.close();
    expect(() => ops.add(s.zeros('f32', [2]), x)).toThrow(/^add: src was freed/);
    expect(() => ops.sample(x, x, x, x, x, null)).toThrow(/^sample: tokens was freed/);
  });
});

describe('contracts are checked before an op runs', () => {
  const cases: Record<string, [string, RegExp, (s: Scope) => void]> = {
    'another shape': [
      'shape_mismatch',
      /rmsnorm_fwd: w has shape \[3\], wanted \[D=4\]/,
      (s) => {
        const f = (...n: number[]) => s.zeros('f32', n);
        ops.rmsnorm_fwd(f(2, 4), f(2), null, f(2, 4), null, f(3), 1e-5);
      },
    ],
    'another dtype': [
      'bad_dtype',
      /embedding_fwd: ids is f32, wanted i32/,
      (s) => ops.embedding_fwd(s.zeros('f32', [1, 2]), s.zeros('f32', [3, 2]), s.zeros('f32', [1])),
    ],
    'a tensor missing': [
      'missing_tensor',
      /h must be given together/,
      (s) => {
        const f = (...n: number[]) => s.zeros('f32', n);
        ops.linear_fwd(f(1, 2), null, f(1, 3), f(2, 3), null, f(1, 3), f(2, 1), 1, 0, 0, 0, 0);
      },
    ],
    'output over input': [
      'aliasing',
      /swiglu_bwd: dz and z share memory/,
      (s) => {
        const z = s.zeros('f32', [1, 4]);
        ops.swiglu_bwd(z, null, s.zeros('f32', [1, 2]), z, null, 1.7, 7);
      },
    ],
    'a partial overlap': [
      'aliasing',
      /share memory/,
      (s) => {
        const x = s.zeros('f32', [6]);
        ops.add(x.view(s, [4]), x.view(s, [4], 2));
      },
    ],
    'a number out of range': [
      'bad_argument',
      /dropout is 1, wanted 0…1 \(excluded\)/,
      (s) => {
        const f = (...n: number[]) => s.zeros('f32', n);
        ops.linear_fwd(f(1, 2), null, f(1, 3), f(2, 3), null, null, null, 1, 1, 0, 0, 0);
      },
    ],
    'NaN as a number': [
      'bad_argument',
      /wanted a finite number/,
      (s) => ops.swiglu_fwd(s.zeros('f32', [1, 2]), s.zeros('f32', [1, 4]), NaN, 7),
    ],
    'a fraction for an integer': [
      'bad_argument',
      /wanted an integer/,
      (s) => ops.random_normal(s.zeros('f32', [4]), 0.5, 1),
    ],
    'scales without MXFP4': [
      'bad_argument',
      /layout 1 has none/,
      (s) => {
        const f = (...n: number[]) => s.zeros('f32', n);
        ops.grouped_linear_fwd(
          f(1, 2),
          null,
          f(1, 32),
          null,
          s.zeros('i32', [2]),
          f(1, 2, 32),
          s.zeros('u8', [1, 2, 1]),
          null,
          null,
          null,
          1,
          1,
          0,
          0,
        );
      },
    ],
    'heads that do not divide': [
      'shape_mismatch',
      /not a multiple/,
      (s) => {
        const f = (...n: number[]) => s.zeros('f32', n);
        const i = (...n: number[]) => s.zeros('i32', n);
        ops.attention_fwd(
          f(1, 3, 2),
          null,
          f(1, 3, 2),
          f(1, 2, 2),
          f(1, 2, 2),
          null,
          i(2),
          i(1),
          i(1),
          null,
          0,
          0,
          0,
          1,
          0,
        );
      },
    ],
  };
  for (const [what, [code, message, run]] of Object.entries(cases)) {
    it(`${what} → ${code}`, () => {
      using s = new Scope();
      expect(() => run(s)).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) as string }),
      );
    });
  }
  it('what may alias, may', () => {
    using s = new Scope();
    const x = s.from(Float32Array.of(1, 2), [1, 2]);
    const r = s.from(Float32Array.of(10, 20), [1, 2]);
    ops.rmsnorm_fwd(s.empty('f32', [1, 2]), s.empty('f32', [1]), x, x, r, s.from(Float32Array.of(1, 1)), 1e-5);
    expect([...x.read()]).toEqual([11, 22]);
  });
  it('a failed call leaves the next one working', () => {
    using s = new Scope();
    const a = s.from(Float32Array.of(1));
    expect(() => ops.add(a, s.zeros('f32', [2]))).toThrow(NativeError);
    ops.add(a, s.from(Float32Array.of(2)));
    expect(a.toFloat32()[0]).toBe(3);
  });
});

it('a call costs well under 2 µs', () => {
  using s = new Scope();
  const a = s.zeros('f32', [1]);
  const b = s.zeros('f32', [1]);
  const f = (...n: number[]) => s.zeros('f32', n);
  const [y, h, x, w, A, B] = [f(1, 1), f(1, 1), f(1, 1), f(1, 1), f(1, 1), f(1, 1)];
  const time = (calls: number, run: () => void): number => {
    const rounds = Array.from({ length: 9 }, () => {
      const from = process.hrtime.bigint();
      for (let i = 0; i < calls; i++) run();
      return Number(process.hrtime.bigint() - from) / 1000 / calls;
    });
    return Math.min(...rounds); // other work on the machine only ever adds
  };
  time(20_000, () => ops.add(a, b));
  const two = time(20_000, () => ops.add(a, b));
  const twelve = time(20_000, () => ops.linear_fwd(y, h, x, w, null, A, B, 1, 0, 0, 0, 0));
  process.stderr.write(
    `op overhead: add (2 arguments) ${two.toFixed(2)} µs, linear_fwd on one element (12 ` +
      `arguments, its arithmetic included) ${twelve.toFixed(2)} µs\n`,
  );
  expect(two).toBeLessThan(2);
});

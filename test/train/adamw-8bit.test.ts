// AdamW with its moments in 8 bits: against float64 and numpy, beside f32 moments, and as what a run keeps.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { HOST } from '../../src/native/backends.js';
import { ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';
import { loadState } from '../../src/runs/checkpoint.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { createMoments, type Moments, momentBytes } from '../../src/train/moments.js';
import { runTraining } from '../../src/train/session.js';
import { planTraining } from '../../src/train/train.js';
import { tinyRun } from './tiny.js';

interface Options {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  readonly gradScale: number;
}
const PLAIN: Options = { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, gradScale: 1 };

/** Parameters and moments on the host, stepped by the op. */
class Stepped implements Disposable {
  readonly scope = new Scope('optimizer', HOST);
  readonly p;
  readonly moments: Moments;
  constructor(
    start: Float32Array,
    readonly name: 'adamw' | 'adamw_8bit' = 'adamw_8bit',
  ) {
    this.p = this.scope.from(start);
    this.moments = createMoments(name, this.scope, this.p);
  }
  step(g: Float32Array, count: number, o: Options = PLAIN): void {
    using scope = new Scope('workspace', HOST);
    const { m, v, mScales, vScales } = this.moments;
    const grads = scope.from(g);
    const rest = [o.lr, o.beta1, o.beta2, o.eps, o.weightDecay, count, o.gradScale] as const;
    if (mScales && vScales) ops.adamw_8bit(this.p, m, v, mScales, vScales, grads, ...rest);
    else ops.adamw(this.p, m, v, grads, ...rest);
  }
  get state(): Record<'p' | 'm' | 'v' | 'mScales' | 'vScales', ArrayLike<number>> {
    const { m, v, mScales, vScales } = this.moments;
    return {
      p: this.p.read(),
      m: m.read(),
      v: v.read(),
      mScales: mScales?.read() ?? [],
      vScales: vScales?.read() ?? [],
    };
  }
  [Symbol.dispose](): void {
    this.scope.close();
  }
}
/** Numbers in (-1, 1) that anybody can make again. */
function noise(seed: number): () => number {
  let x = seed >>> 0;
  return () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return (x / 2 ** 31 - 1) * (1 - 2 ** -20);
  };
}
const filled = (n: number, at: (i: number) => number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => at(i));

/** What the codes stand for, said by the papers: middles of equal parts of [0.1, 1] in seven decades, 0 and 1. */
function bookOf(signed: boolean): number[] {
  const values = new Array<number>(256).fill(0);
  values[signed ? 128 : 1] = 1;
  for (let decade = 0; decade < 7; decade++) {
    const parts = 2 ** (signed ? decade : decade + 1);
    for (let k = 0; k < parts; k++) {
      const low = 0.1 + (0.9 * k) / parts,
        high = 0.1 + (0.9 * (k + 1)) / parts,
        middle = (10 ** (decade - 6) * (low + high)) / 2;
      values[parts + k] = middle;
      if (signed) values[128 + parts + k] = -middle;
    }
  }
  return values;
}
const BOOKS = { m: bookOf(true), v: bookOf(false) };
/** The largest distance of y to the nearest value, were it coded as well as it can be. */
const nearest = (book: readonly number[], y: number): number => Math.min(...book.map((x) => Math.abs(x - y)));

describe('codes', () => {
  it('are 256 different numbers each, with 0 and 1', () => {
    for (const book of [BOOKS.m, BOOKS.v]) {
      expect(new Set(book).size).toBe(256);
      expect(book.filter((x) => x === 0 || x === 1)).toHaveLength(2);
    }
  });
  it('each stands for what the papers say, and is the code of it', () => {
    // Moments that do not change: no gradient, and decay rates of nearly 1.
    const still = { ...PLAIN, beta1: 1 - 2 ** -52, beta2: 1 - 2 ** -52 };
    for (const [name, other] of [
      ['m', 'v'],
      ['v', 'm'],
    ] as const) {
      using all = new Stepped(new Float32Array(256));
      all.moments[name].write(Uint8Array.from({ length: 256 }, (_, i) => i));
      all.moments[`${name}Scales`]?.write(Float32Array.of(1));
      all.step(new Float32Array(256), 1, { ...still, lr: 1, eps: 2 ** 52 });
      expect([...Array.from(all.state[name])]).toEqual(Array.from({ length: 256 }, (_, i) => i));
      expect(all.state[`${name}Scales`]).toEqual(Float32Array.of(1));
      expect(all.state[`${other}Scales`]).toEqual(Float32Array.of(0));
    }
    // One parameter a code: the scale that it leaves is the value.
    for (const name of ['m', 'v'] as const)
      for (let code = 0; code < 256; code++) {
        using one = new Stepped(new Float32Array(1));
        one.moments[name].write(Uint8Array.of(code));
        one.moments[`${name}Scales`]?.write(Float32Array.of(1));
        one.step(new Float32Array(1), 1, still);
        const value = Math.abs(BOOKS[name][code] as number);
        expect(Math.abs((one.state[`${name}Scales`][0] as number) - value)).toBeLessThanOrEqual(2 ** -24 * value);
      }
  });
});

describe('a step', () => {
  it("gives numpy's codes, scales and parameters", () => {
    const golden = JSON.parse(readFileSync(join(packageRoot, 'test/golden/train/adamw-8bit.json'), 'utf8')) as {
      readonly options: Options;
      readonly p: number[];
      readonly first: number[];
      readonly second: number[];
      readonly steps: readonly Record<'g' | 'p' | 'm' | 'v' | 'mScales' | 'vScales', number[]>[];
    };
    for (const [mine, theirs] of [
      [BOOKS.m, golden.first],
      [BOOKS.v, golden.second],
    ] as const)
      mine.forEach((x, code) => {
        expect(x).toBeCloseTo(theirs[code] as number, 14);
      });
    using run = new Stepped(Float32Array.from(golden.p));
    expect(golden.steps).toHaveLength(3);
    for (const [i, want] of golden.steps.entries()) {
      run.step(Float32Array.from(want.g), i + 1, golden.options);
      const got = run.state;
      expect(Array.from(got.m)).toEqual(want.m);
      expect(Array.from(got.v)).toEqual(want.v);
      for (const part of ['p', 'mScales', 'vScales'] as const)
        want[part].forEach((x, at) => {
          expect(Math.abs((got[part][at] as number) - x)).toBeLessThanOrEqual(2 ** -21 * Math.abs(x) + 2 ** -30 * 1e-2);
        });
    }
  });

  it.each([1, 37, 255, 256, 257, 70001])('over %i elements is float64 within what a code can say', (n) => {
    const random = noise(n);
    using run = new Stepped(filled(n, random));
    const p = Float64Array.from(run.state.p),
      b = { ...PLAIN, weightDecay: 0.1, gradScale: 0.5 };
    for (let count = 1; count <= 4; count++) {
      const before = run.state,
        g = filled(n, () => random() * 10 ** (4 * random()));
      run.step(g, count, b);
      const after = run.state;
      let worst = 0,
        off = 0,
        zeros = 0;
      for (let from = 0; from < n; from += 256) {
        const block = from / 256,
          to = Math.min(n, from + 256);
        const exact = { m: new Float64Array(to - from), v: new Float64Array(to - from) };
        for (let i = from; i < to; i++) {
          const d = (g[i] as number) * b.gradScale;
          const old = (name: 'm' | 'v'): number =>
            (BOOKS[name][before[name][i] as number] as number) * (before[`${name}Scales`][block] as number);
          const m = b.beta1 * old('m') + (1 - b.beta1) * d,
            v = b.beta2 * old('v') + (1 - b.beta2) * d * d;
          exact.m[i - from] = m;
          exact.v[i - from] = v;
          const root = Math.sqrt(v / (1 - b.beta2 ** count)) + b.eps;
          const moved = (b.lr * m) / (1 - b.beta1 ** count) / root;
          const want = (before.p[i] as number) * (1 - b.lr * b.weightDecay) - moved;
          const size = Math.abs(before.p[i] as number) + b.lr * 10;
          worst = Math.max(worst, Math.abs((after.p[i] as number) - want) / size);
        }
        for (const name of ['m', 'v'] as const) {
          const most = exact[name].reduce((a, x) => Math.max(a, Math.abs(x)), 0),
            scale = after[`${name}Scales`][block] as number;
          off = Math.max(off, Math.abs(scale - most) / (most || 1));
          exact[name].forEach((x, i) => {
            const code = after[name][from + i] as number,
              got = BOOKS[name][code] as number,
              y = most > 0 ? x / most : 0;
            // A second moment that is not 0 has the smallest code at least.
            const best =
              name === 'v' && x > 0
                ? Math.min(...BOOKS.v.slice(1).map((c) => Math.abs(c - y)))
                : nearest(BOOKS[name], y);
            if (Math.abs(got - y) > best + 4e-6 * Math.abs(y) + 1e-12) zeros++;
          });
          if (n > 1000 && block > 8) break; // a linear search over the book; the rest is the native tests'
        }
        if (n > 1000 && block > 8) break;
      }
      expect(worst).toBeLessThan(2 ** -20);
      expect(off).toBeLessThan(2 ** -21);
      expect(zeros).toBe(0);
    }
    expect(Array.from(p).some((x, i) => x !== run.state.p[i])).toBe(true);
  });

  it('the first one is that of f32 moments, to the bit: zeros, denormals, NaN and infinities too', () => {
    const random = noise(5),
      start = filled(1000, random);
    const g = filled(1000, (i) => (i % 7 === 0 ? 0 : random() * 2 ** -(i % 149)));
    g[300] = Number.NaN;
    g[600] = Infinity;
    g[601] = -Infinity;
    using codes = new Stepped(start);
    using plain = new Stepped(start, 'adamw');
    for (const run of [codes, plain]) run.step(g, 1);
    expect(codes.state.p).toEqual(plain.state.p);
    expect(Number.isNaN(codes.state.p[300])).toBe(true);
    expect(Array.from(codes.state.p).filter(Number.isNaN)).toHaveLength(3);
    // The block of a NaN is one from then on: no step after it says otherwise.
    codes.step(new Float32Array(1000), 2);
    const spoilt = Array.from(codes.state.p, Number.isNaN);
    expect(spoilt.slice(0, 256).some((x) => x)).toBe(false);
    expect(spoilt.slice(256, 768).every((x) => x)).toBe(true);
    expect(spoilt.slice(768).some((x) => x)).toBe(false);
  });

  it('zeros stay zeros, and a second moment above 0 never becomes 0', () => {
    using run = new Stepped(new Float32Array(300));
    run.step(new Float32Array(300), 1);
    expect(Array.from(run.state.p).every((x) => x === 0)).toBe(true);
    expect(Array.from(run.state.vScales)).toEqual([0, 0]);
    const g = filled(300, (i) => (i === 0 ? 1 : 1e-12));
    run.step(g, 2);
    expect(run.state.v[0]).toBe(1);
    expect(
      Array.from(run.state.v)
        .slice(1, 256)
        .every((x) => x === 2),
    ).toBe(true);
    // So nothing is divided by eps alone, whatever the first moment says.
    const before = run.state.p;
    for (let count = 3; count < 40; count++)
      run.step(
        filled(300, (i) => (i === 0 ? 1 : 0)),
        count,
      );
    const moved = Array.from(run.state.p, (x, i) => Math.abs(x - (before[i] as number)));
    expect(Math.max(...moved.slice(1))).toBeLessThan(PLAIN.lr);
  });

  it('tensors that do not belong together are refused', () => {
    using scope = new Scope('optimizer', HOST);
    const f = (n: number) => scope.zeros('f32', [n]),
      u = (n: number) => scope.zeros('u8', [n]);
    const call = (t: readonly [number, number, number]): void =>
      ops.adamw_8bit(f(257), u(t[0]), u(257), f(t[1]), f(t[2]), f(257), 1, 0.9, 0.9, 1, 0, 1, 1);
    call([257, 2, 2]);
    for (const t of [
      [256, 2, 2],
      [257, 1, 2],
      [257, 2, 3],
    ] as const)
      expect(() => call(t)).toThrow(expect.objectContaining({ code: 'shape_mismatch' }));
  });
});

describe('a run', () => {
  let dir = '';
  const at = (name: string): string => join(dir, 'runs', name);
  const EIGHT = 'train.optimizer.name=adamw_8bit';
  const run = (out: string, set: readonly string[], { resume = false, stopAt = 0 } = {}) => {
    const stop = new AbortController();
    return runTraining(
      { recipe: join(dir, 'recipe.yaml'), out: at(out), set, resume },
      { signal: stop.signal, onProgress: (p) => p.step === stopAt && stop.abort() },
    );
  };
  const adapter = (name: string): Buffer => readFileSync(join(at(name), 'adapter', 'adapter_model.safetensors'));
  beforeAll(async () => {
    dir = await tinyRun({
      train: 'steps: 60, rowsPerStep: 6, lr: 1.0e-2, checkpointEvery: 5',
      adapter: ', targets: [attention, experts, router]',
    });
    await run('plain', []);
    await run('eight', [EIGHT]);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('learns what one with f32 moments learns', () => {
    const losses = (name: string): number[] => readMetrics(at(name)).map((m) => m.loss);
    const plain = losses('plain'),
      eight = losses('eight'),
      end = (x: readonly number[]): number => x.slice(-10).reduce((a, b) => a + b) / 10;
    expect(eight[0]).toBe(plain[0]);
    expect(eight).not.toEqual(plain);
    console.log(`loss of the last ten of 60 steps: ${end(plain)} with f32 moments, ${end(eight)} with 8-bit ones`);
    expect(end(plain)).toBeLessThan(0.9 * (plain[0] as number));
    expect(Math.abs(end(eight) / end(plain) - 1)).toBeLessThan(0.005);
  });

  it('that is stopped and goes on has the bits of one that was not', async () => {
    const stopped = await run('stopped', [EIGHT], { stopAt: 23 });
    expect(stopped.step).toBeLessThan(60);
    await run('stopped', [EIGHT], { resume: true });
    expect(readRun(at('stopped'))?.status).toBe('done');
    expect(adapter('stopped').equals(adapter('eight'))).toBe(true);
    expect(adapter('stopped').equals(adapter('plain'))).toBe(false);
  });

  it('does not go on with the other moments', async () => {
    await expect(run('eight', [], { resume: true })).rejects.toMatchObject({
      code: 'run_changed',
      message: expect.stringContaining('train.optimizer.name is "adamw", the run began with "adamw_8bit"') as string,
    });
    // Nor does a checkpoint that says it is of this run.
    const { digests, trainedParameters } = readRun(at('eight')) ?? expect.fail('no record');
    using scope = new Scope('optimizer', HOST);
    const step = 60;
    for (const [folder, name] of [
      ['eight', 'adamw'],
      ['plain', 'adamw_8bit'],
    ] as const) {
      const its = readRun(at(folder))?.digests ?? digests;
      const file = readFileSync(join(at(folder), 'checkpoints', `step-${step}`, 'state.safetensors'));
      const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE())).toString()) as Record<
        string,
        { shape: number[] }
      >;
      const params = scope.zeros('f32', header.params?.shape ?? []);
      expect(params.numel).toBeGreaterThanOrEqual(trainedParameters);
      await expect(
        loadState(at(folder), step, { params, ...createMoments(name, scope, params) }, its),
      ).rejects.toMatchObject({
        code: 'tensor_dtype',
        message: expect.stringMatching(/m is (U8|F32), wanted (F32|U8).*train\.optimizer\.name/) as string,
      });
    }
  });

  it('is planned with what its moments take, and the way out is named where it does not fit', async () => {
    const recipe = join(dir, 'recipe.yaml');
    const plain = await planTraining(recipe, { measure: false }),
      eight = await planTraining(recipe, { measure: false, set: [EIGHT] });
    expect(plain.moments.optimizer).toBe('adamw');
    expect(plain.moments.bytes).toBe(momentBytes('adamw', plain.trainedParameters));
    expect(eight.moments).toEqual({
      optimizer: 'adamw_8bit',
      bytes: plain.moments.bytesIn8Bits,
      bytesIn8Bits: plain.moments.bytesIn8Bits,
    });
    const saved = plain.moments.bytes - eight.moments.bytes;
    expect(saved / plain.moments.bytes).toBeGreaterThan(0.73);
    const less = plain.peakBytes.optimizer - eight.peakBytes.optimizer;
    expect(Math.abs(less / saved - 1)).toBeLessThan(0.05);
    const short = { measure: false, availableBytes: 1 };
    expect((await planTraining(recipe, short)).advice).toMatch(/adamw_8bit takes .* less/);
    expect((await planTraining(recipe, { ...short, set: [EIGHT] })).advice).not.toContain('adamw_8bit');
  });
});

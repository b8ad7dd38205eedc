// The bridge to TensorFlow.js on its pure-JavaScript backend and on wasm: values against plain arithmetic in double,
// gradients against finite differences, no copies, no leaks.
import '@tensorflow/tfjs-backend-wasm';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { readPeft } from '../../src/lora/peft.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { createTrainable } from '../../src/model/trainable.js';
import type { ExpertWeights } from '../../src/model/types.js';
import { addon } from '../../src/native/addon.js';
import { ops } from '../../src/native/ops.js';
import { Scope, type Tensor } from '../../src/native/tensor.js';
import { createBridge, type FrozenModel, type MoeOptions, writeRows } from '../../src/tfjs/index.js';
import { runTraining } from '../../src/train/session.js';
import { tinyConfig } from '../train/tiny.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-tfjs-'));
const bridge = createBridge(tf);
let model: FrozenModel;
beforeAll(async () => {
  const made = createTrainable(tinyConfig, { seed: 3 });
  await made.save(join(dir, 'base'));
  made.close();
  model = bridge.open(join(dir, 'base'));
});
afterAll(() => {
  model.close();
  rmSync(dir, { recursive: true, force: true });
});

const { hidden_size: D, intermediate_size: F, num_local_experts: E, num_experts_per_tok: K } = tinyConfig;
const random = (shape: number[], seed: number, scale = 1): tf.Tensor =>
  tf.randomNormal(shape, 0, scale, 'float32', seed);
/** All that the experts may be given. */
const everything = (
  T: number,
): Required<{ [P in keyof MoeOptions]: NonNullable<MoeOptions[P]> }> & { x: tf.Tensor } => ({
  x: random([T, D], 1),
  scores: random([T, E], 2),
  gateUp: { A: random([E, 3, D], 3, 0.2), B: random([E, 2 * F, 3], 4, 0.2), scale: 0.7 },
  down: { A: random([E, 2, F], 5, 0.2), B: random([E, D, 2], 6, 0.2), scale: 1.3 },
  gateUpBias: random([E, 2 * F], 7, 0.3),
  downBias: random([E, D], 8, 0.3),
});

/** The experts in double, from their dequantised weights. */
function plainMoe(layer: number, T: number, on: ReturnType<typeof everything>): number[] {
  using scope = new Scope('workspace');
  const checkpoint = openCheckpoint(join(dir, 'base'));
  const w = checkpoint.layers[layer];
  if (!w) throw new Error('no layer');
  const dense = (e: ExpertWeights, N: number, C: number): Float32Array => {
    const out = scope.empty('f32', [E, N, C]);
    ops.mxfp4_dequantize(out, e.w, e.scales as Tensor);
    return out.toFloat32();
  };
  const gateUp = dense(w.gateUp, 2 * F, D),
    down = dense(w.down, D, F);
  checkpoint.close();
  const v = (t: tf.Tensor): Float32Array => t.dataSync<'float32'>();
  const [x, scores] = [v(on.x), v(on.scores)];
  const times = (
    e: number,
    W: Float32Array,
    N: number,
    C: number,
    of: (c: number) => number,
    { A, B, scale = 1 }: { A: tf.Tensor; B: tf.Tensor; scale?: number },
    bias: Float32Array,
  ): number[] => {
    const R = A.shape[1] as number;
    const [a, b] = [v(A), v(B)];
    const h = Array.from({ length: R }, (_, r) => {
      let sum = 0;
      for (let c = 0; c < C; c++) sum += (a[(e * R + r) * C + c] ?? 0) * of(c);
      return sum;
    });
    return Array.from({ length: N }, (_, n) => {
      let sum = bias[e * N + n] ?? 0;
      for (let c = 0; c < C; c++) sum += (W[(e * N + n) * C + c] ?? 0) * of(c);
      for (let r = 0; r < R; r++) sum += scale * (b[(e * N + n) * R + r] ?? 0) * (h[r] ?? 0);
      return sum;
    });
  };
  const out = new Array<number>(T * D).fill(0);
  for (let t = 0; t < T; t++) {
    const best = Array.from({ length: E }, (_, e) => e)
      .sort((p, q) => (scores[t * E + q] ?? 0) - (scores[t * E + p] ?? 0))
      .slice(0, K);
    const exps = best.map((e) => Math.exp(scores[t * E + e] ?? 0));
    const total = exps.reduce((p, q) => p + q, 0);
    best.forEach((e, k) => {
      const z = times(e, gateUp, 2 * F, D, (c) => x[t * D + c] ?? 0, on.gateUp, v(on.gateUpBias));
      const act = Array.from({ length: F }, (_, f) => {
        const gate = Math.min(z[2 * f] ?? 0, tinyConfig.swiglu_limit);
        const up = Math.max(-tinyConfig.swiglu_limit, Math.min(z[2 * f + 1] ?? 0, tinyConfig.swiglu_limit));
        return (gate / (1 + Math.exp(-tinyConfig.swiglu_alpha * gate))) * (up + 1);
      });
      times(e, down, D, F, (c) => act[c] ?? 0, on.down, v(on.downBias)).forEach((y, d) => {
        out[t * D + d] = (out[t * D + d] ?? 0) + ((exps[k] ?? 0) / total) * y;
      });
    });
  }
  return out;
}

/** tf.grads of loss(…) in its arguments, each against differences along two random directions. */
function checkGradients(
  args: readonly tf.Tensor[],
  loss: (...a: tf.Tensor[]) => tf.Scalar,
  names: readonly string[],
): void {
  const grads = tf.grads((...a: tf.Tensor[]) => loss(...a))([...args]);
  expect(grads).toHaveLength(args.length);
  args.forEach((arg, i) => {
    for (const seed of [11, 12]) {
      const [analytic, numeric, size] = tf.tidy(() => {
        const v = random(arg.shape, seed * 100 + i);
        const at = (h: number): number =>
          loss(...args.map((a, k) => (k === i ? tf.add(a, tf.mul(v, h)) : a))).dataSync()[0] ?? Number.NaN;
        const h = 1e-2;
        const g = grads[i] as tf.Tensor;
        return [
          tf.sum(tf.mul(g, v)).dataSync()[0] ?? Number.NaN,
          (at(h) - at(-h)) / (2 * h),
          tf.norm(g).dataSync()[0] ?? Number.NaN,
        ] as const;
      });
      expect(size, names[i]).toBeGreaterThan(0);
      expect(Math.abs(analytic - numeric), `${names[i]}: ${analytic} against ${numeric}`).toBeLessThan(
        4e-3 * Math.max(size, Math.abs(numeric)),
      );
    }
  });
  tf.dispose(grads);
}

describe.each(['cpu', 'wasm'])('on the %s backend', (backend) => {
  beforeAll(async () => {
    expect(await tf.setBackend(backend)).toBe(true);
    await tf.ready();
  });

  it('the experts compute what plain arithmetic does, more tokens than a chunk too', () => {
    const T = 9;
    const on = everything(T);
    const got = model.layer(1).moe(on.x, on).dataSync();
    const want = plainMoe(1, T, on);
    let worst = 0;
    want.forEach((w, i) => {
      worst = Math.max(worst, Math.abs((got[i] ?? Number.NaN) - w));
    });
    expect(worst).toBeLessThan(1e-4 * Math.max(...want.map(Math.abs)));
    const many = tf.tile(on.x, [120, 1]);
    const long = model.layer(1).moe(many, { ...on, scores: tf.tile(on.scores, [120, 1]) as tf.Tensor });
    const apart = tf.max(tf.abs(tf.sub(long, tf.tile(model.layer(1).moe(on.x, on), [120, 1]))));
    expect(long.shape).toEqual([9 * 120, D]);
    expect(apart.dataSync()[0]).toBeLessThan(1e-4);
  });

  it('gradients of the experts to x, scores, pairs and biases', () => {
    const on = everything(7);
    const c = random([7, D], 20);
    const layer = model.layer(0);
    const args = [on.x, on.scores, on.gateUp.A, on.gateUp.B, on.down.A, on.down.B, on.gateUpBias, on.downBias];
    checkGradients(
      args,
      (x, scores, gA, gB, dA, dB, gateUpBias, downBias) =>
        tf.sum(
          tf.mul(
            c,
            layer.moe(x as tf.Tensor, {
              scores: scores as tf.Tensor,
              gateUp: { A: gA as tf.Tensor, B: gB as tf.Tensor, scale: 0.7 },
              down: { A: dA as tf.Tensor, B: dB as tf.Tensor, scale: 1.3 },
              gateUpBias: gateUpBias as tf.Tensor,
              downBias: downBias as tf.Tensor,
            }),
          ),
        ) as tf.Scalar,
      ['x', 'scores', 'gateUp.A', 'gateUp.B', 'down.A', 'down.B', 'gateUpBias', 'downBias'],
    );
    // Alone, and through the frozen router.
    checkGradients([on.x], (x) => tf.sum(tf.mul(c, layer.moe(x as tf.Tensor))) as tf.Scalar, ['x']);
  });

  it('gradients of the linear op to x, A, B and bias, of frozen matrices and of one of tfjs', () => {
    const x = random([2, 3, D], 30),
      c = random([2, 3, D], 31),
      A = random([2, D], 32, 0.3),
      B = random([D, 2], 33, 0.3),
      bias = random([D], 34),
      W = random([D, D], 35, 0.2);
    const plain = (h: tf.Tensor): tf.Tensor =>
      tf.add(
        tf.add(tf.matMul(tf.reshape(h, [6, D]), W as tf.Tensor2D, false, true), bias),
        tf.mul(
          tf.matMul(tf.matMul(tf.reshape(h, [6, D]), A as tf.Tensor2D, false, true), B as tf.Tensor2D, false, true),
          1.5,
        ),
      );
    const ours = bridge.linear(x, W, { bias, lora: { A, B, scale: 1.5 } });
    expect(ours.shape).toEqual([2, 3, D]);
    expect(tf.max(tf.abs(tf.sub(tf.reshape(ours, [6, D]), plain(x)))).dataSync()[0]).toBeLessThan(1e-4);
    checkGradients(
      [x, A, B, bias],
      (x1, A1, B1, b1) =>
        tf.sum(
          tf.mul(
            c,
            bridge.linear(x1 as tf.Tensor, W, {
              bias: b1 as tf.Tensor,
              lora: { A: A1 as tf.Tensor, B: B1 as tf.Tensor, scale: 1.5 },
            }),
          ),
        ) as tf.Scalar,
      ['x', 'A', 'B', 'bias'],
    );
    const layer = model.layer(1);
    const q = layer.pair('q', { rank: 2, seed: 5 });
    expect(tf.max(tf.abs(tf.sub(layer.linear('q', x, { lora: q }), layer.linear('q', x)))).dataSync()[0]).toBe(0);
    const out = layer.linear('q', x).shape.at(-1) as number;
    const [cq, Bq] = [random([2, 3, out], 36), random([out, 2], 37, 0.3)];
    checkGradients(
      [x, q.A, Bq],
      (x1, A1, B1) =>
        tf.sum(
          tf.mul(cq, layer.linear('q', x1 as tf.Tensor, { lora: { A: A1 as tf.Tensor, B: B1 as tf.Tensor } })),
        ) as tf.Scalar,
      ['x', 'A', 'B'],
    );
    expect(() => tf.grads((w: tf.Tensor) => tf.sum(bridge.linear(x, w)))([W])).toThrow(); // W is frozen, loudly
  });

  it('values pass without a copy', () => {
    const on = everything(4);
    const given = vi.spyOn(addon, 'borrow');
    const copies = [vi.spyOn(addon, 'write'), vi.spyOn(addon, 'read')];
    const y = model.layer(0).moe(on.x, on);
    const buffers = given.mock.calls.map(([data]) => data.buffer);
    expect(buffers).toHaveLength(10); // y, the kept products, eight inputs
    for (const spy of copies) expect(spy).not.toHaveBeenCalled();
    vi.restoreAllMocks();
    if (backend === 'cpu') {
      expect(buffers).toContain(y.dataSync().buffer);
      expect(buffers).toContain(on.x.dataSync().buffer);
    } else {
      const { wasm } = tf.backend() as unknown as { wasm: { HEAPU8: Uint8Array } };
      expect(new Set(buffers)).toEqual(new Set([wasm.HEAPU8.buffer]));
    }
  });

  it('leaves no tensor behind, of tfjs or of its own, forward, backward and on errors', () => {
    const on = everything(5);
    const before = [tf.memory().numTensors, tf.memory().numBytes, addon.tensorCount()];
    for (let i = 0; i < 3; i++) tf.tidy(() => void model.layer(0).moe(on.x, on));
    expect([tf.memory().numTensors, tf.memory().numBytes, addon.tensorCount()]).toEqual(before);
    const v = tf.variable(on.down.B);
    const withVariable = [tf.memory().numTensors, tf.memory().numBytes, addon.tensorCount()];
    for (let i = 0; i < 3; i++) {
      const { value, grads } = tf.variableGrads(
        () => tf.sum(tf.square(model.layer(0).moe(on.x, { down: { A: on.down.A, B: v } }))) as tf.Scalar,
      );
      tf.dispose([value, ...Object.values(grads)]);
      // no backward after it: what it kept goes with the tape
      tf.tidy(() => void bridge.linear(on.x, tf.ones([3, D])));
    }
    expect([tf.memory().numTensors, tf.memory().numBytes, addon.tensorCount()]).toEqual(withVariable);
    v.dispose();
    for (const wrong of [
      () => model.layer(0).moe(tf.ones([5, D + 1])),
      () => model.layer(0).moe(on.x, { scores: tf.ones([4, E]) }),
      () => model.layer(0).moe(tf.cast(on.x, 'int32')),
      () => model.layer(0).moe(on.x, { down: { A: on.down.A, B: on.gateUp.B } }),
      () => model.layer(0).moe(on.x, { downBias: tf.ones([E, F + 1]) }),
      () => bridge.linear(on.x, tf.ones([3, D + 1])),
      () => bridge.linear(on.x, tf.ones([3, D]), { bias: tf.ones([2]) }),
    ])
      expect(() => tf.tidy(wrong)).toThrow(/wanted/);
    expect([tf.memory().numTensors, tf.memory().numBytes, addon.tensorCount()]).toEqual(before);
  });

  it('tf.train.adam lowers a loss', () => {
    const layer = model.layer(0);
    const x = random([16, D], 40);
    const wanted = tf.add(layer.moe(x), random([16, D], 41, 0.1));
    const start = layer.pair('down', { rank: 4, seed: 1 });
    const down = { A: tf.variable(start.A), B: tf.variable(start.B), scale: start.scale };
    const adam = tf.train.adam(0.02);
    const losses = Array.from({ length: 25 }, () => {
      const loss = adam.minimize(() => tf.mean(tf.square(tf.sub(layer.moe(x, { down }), wanted))), true) as tf.Scalar;
      const [value = Number.NaN] = loss.dataSync();
      loss.dispose();
      return value;
    });
    expect(losses.at(-1)).toBeLessThan(0.5 * (losses[0] ?? 0));
  });
});

it('pairs become a PEFT adapter with their values', async () => {
  await tf.setBackend('cpu');
  const layer = model.layer(1);
  const down = { A: random([E, 2, F], 50), B: random([E, D, 2], 51), scale: 1.5 };
  const q = { ...layer.pair('q', { rank: 3 }) };
  await model.saveAdapter(join(dir, 'adapter'), { 1: { down, q } }, 'test');
  const checkpoint = openCheckpoint(join(dir, 'base'));
  const read = readPeft(join(dir, 'adapter'), checkpoint.config);
  const pair = read.model.layers[1]?.down;
  expect(pair?.scale).toBe(1.5);
  expect(pair?.B.toFloat32()).toEqual(down.B.dataSync());
  expect(pair?.A.toFloat32()).toEqual(down.A.dataSync());
  expect(Object.keys(read.model.layers[0] ?? {})).toEqual([]);
  expect(Object.keys(read.model.layers[1] ?? {}).sort()).toEqual(['down', 'q']);
  read.close();
  checkpoint.close();
  await expect(model.saveAdapter(join(dir, 'none'), {})).rejects.toMatchObject({ code: 'no_target' });
  await expect(model.saveAdapter(join(dir, 'none'), { 9: { q } })).rejects.toMatchObject({ code: 'no_such_layer' });
  expect(() => model.layer(2)).toThrow(/layers 0…1/);
});

it('a closed model is refused', () => {
  const other = bridge.open(join(dir, 'base'));
  const layer = other.layer(0);
  other.close();
  expect(() => layer.moe(random([2, D], 1))).toThrow(/freed|closed/);
});

describe('tf.data', () => {
  it('feeds training: its elements become rows', async () => {
    await tf.setBackend('cpu');
    const before = tf.memory().numTensors;
    const dataset = tf.data
      .generator(function* () {
        for (let i = 0; i < 12; i++) yield Array.from({ length: 10 }, (_, j) => (i * 3 + j) % 96);
      })
      .map((tokens) => ({ tokens: tf.tensor1d(tokens as unknown as number[], 'int32'), weights: tf.ones([10]) }));
    expect(await writeRows(dataset, join(dir, 'rows.jsonl'))).toBe(12);
    expect(tf.memory().numTensors).toBe(before);
    const first = readFileSync(join(dir, 'rows.jsonl'), 'utf8').split('\n')[1] ?? '';
    expect(JSON.parse(first)).toEqual({ tokens: [3, 4, 5, 6, 7, 8, 9, 10, 11, 12], weights: new Array(10).fill(1) });
    writeFileSync(
      join(dir, 'recipe.yaml'),
      `model: { base: base }
adapter: { rank: 2 }
device: cpu
data: { train: [{ path: rows.jsonl, format: tokens }], maxTokens: 64 }
train: { steps: 2, rowsPerStep: 6 }
`,
    );
    expect(await runTraining({ recipe: join(dir, 'recipe.yaml'), out: join(dir, 'run') })).toMatchObject({
      status: 'done',
      step: 2,
    });
  });
  it('an element that is no row ends it, and leaves no file', async () => {
    const path = join(dir, 'bad.jsonl');
    await expect(writeRows(tf.data.array([{ text: 'a' }, 3] as never), path)).rejects.toMatchObject({
      code: 'bad_row',
      message: expect.stringContaining('element 2') as string,
    });
    await expect(writeRows(tf.data.array([{ x: Number.NaN }]), path)).rejects.toMatchObject({ code: 'bad_row' });
    expect(() => readFileSync(path)).toThrow();
  });
});

it('the example trains, leaks nothing and saves an adapter', () => {
  const out = execFileSync(process.execPath, [join(packageRoot, 'examples', 'tfjs-lora.mjs'), join(dir, 'made')], {
    encoding: 'utf8',
  });
  expect(Number(/loss ([\d.]+) times lower/.exec(out)?.[1])).toBeGreaterThan(5);
  expect(out).toContain('tensors more than before: 4\n');
  const nano = openCheckpoint(join(packageRoot, 'models', 'nano'));
  const adapter = readPeft(join(dir, 'made'), nano.config);
  expect(Object.keys(adapter.model.layers[1] ?? {})).toEqual(['down']);
  adapter.close();
  nano.close();
});

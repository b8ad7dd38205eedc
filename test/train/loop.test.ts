import { describe, expect, it } from 'vitest';
import type { Example } from '../../src/data/example.js';
import { planSteps } from '../../src/data/order.js';
import { ops } from '../../src/native/ops.js';
import { Scope } from '../../src/native/tensor.js';
import type { Learner } from '../../src/objectives/learner.js';
import type { StepMetrics } from '../../src/runs/metrics.js';
import { type LoopOptions, trainLoop } from '../../src/train/loop.js';

const examples: Example[] = Array.from({ length: 6 }, (_, k) => ({
  tokens: Int32Array.from({ length: 4 + k }, (_, i) => i + 1),
  weights: Float32Array.from({ length: 4 + k }, (_, i) => (i % 2 ? 1 : 0.5)),
  source: { file: 'd.jsonl', line: k + 1 },
}));
const options: LoopOptions = {
  seed: 1,
  packing: true,
  tokensPerBatch: 8,
  clipGradNorm: null,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  schedule: 'constant',
  lr: 0.1,
  warmup: 0,
  minLr: 0,
};

/** nll of a target is its token; the gradient of parameter j is Σ weight·(j + 1) plus whatever `extra` says. */
function fake(scope: Scope, extra: (call: number) => number = () => 0): Learner & { seeds: number[]; batches: number } {
  const params = scope.zeros('f32', [4]),
    grads = scope.zeros('f32', [4]);
  const learner = {
    params,
    grads,
    seeds: [] as number[],
    batches: 0,
    refresh() {},
    save() {},
    close() {},
    lossAndGradients(
      _batch: unknown,
      targets: { weights: Float32Array; targets: Int32Array },
      seed: number,
    ): Float32Array {
      learner.seeds.push(seed);
      const sum = targets.weights.reduce((a, w) => a + w, 0);
      using s = new Scope('workspace');
      ops.add(grads, s.from(Float32Array.from([1, 2, 3, 4], (v) => v * sum + extra(learner.batches))));
      learner.batches++;
      return Float32Array.from(targets.targets);
    },
    nll: (_batch: unknown, targets: { targets: Int32Array }) =>
      Float32Array.from(targets.targets, (t) => t / (params.toFloat32().every((p) => Math.abs(p) < 1e9) ? 1 : 0)),
  };
  return learner;
}

async function run(scope: Scope, learner: Learner, over: Partial<LoopOptions> = {}, steps = 2): Promise<StepMetrics[]> {
  const out: StepMetrics[] = [];
  const plan = planSteps(
    examples.map((e) => e.tokens.length),
    { seed: 1, steps, rowsPerStep: 6 },
  );
  for await (const m of trainLoop(
    learner,
    { m: scope.zeros('f32', [4]), v: scope.zeros('f32', [4]) },
    examples,
    plan,
    0,
    { ...options, ...over },
  ))
    out.push(m);
  return out;
}

describe('the loop', () => {
  it('weighs every token by its share of the step, however the step is cut into batches', async () => {
    using scope = new Scope('workspace');
    let weight = 0,
      wanted = 0;
    for (const e of examples)
      for (let i = 1; i < e.tokens.length; i++) {
        weight += e.weights[i] ?? 0;
        wanted += (e.weights[i] ?? 0) * (e.tokens[i] ?? 0);
      }
    for (const tokensPerBatch of [1, 8, 1000]) {
      const learner = fake(scope);
      const metrics = await run(scope, learner, { tokensPerBatch });
      expect(learner.batches).toBe({ 1: 12, 8: 10, 1000: 2 }[tokensPerBatch]);
      expect(metrics[0]?.loss).toBeCloseTo(wanted / weight, 5);
      expect(metrics[0]?.gradNorm).toBeCloseTo(Math.sqrt(30), 5);
      expect(new Set(learner.seeds).size).toBe(learner.seeds.length);
    }
  });

  it('clips by the global norm, and only above it', async () => {
    // AdamW does not see the size of a gradient that stays the same, so the moments are looked at.
    for (const [clip, scale] of [
      [1, 1 / Math.sqrt(30)],
      [100, 1],
      [null, 1],
    ] as const) {
      using scope = new Scope('workspace');
      const learner = fake(scope);
      const m = scope.zeros('f32', [4]),
        v = scope.zeros('f32', [4]);
      const plan = planSteps([5], { seed: 1, steps: 1, rowsPerStep: 1 });
      for await (const _ of trainLoop(learner, { m, v }, [examples[1] as Example], plan, 0, {
        ...options,
        clipGradNorm: clip,
      })) {
        /* one step */
      }
      for (const [j, x] of m.toFloat32().entries()) expect(x).toBeCloseTo(0.1 * (j + 1) * scale, 5);
      for (const x of learner.params.toFloat32()) expect(x).toBeCloseTo(-0.1, 4);
    }
  });

  it('stops at a gradient that is not a number, before it reaches the parameters', async () => {
    using scope = new Scope('workspace');
    const learner = fake(scope, (call) => (call === 6 ? Infinity : 0));
    await expect(run(scope, learner, { tokensPerBatch: 8 }, 9)).rejects.toMatchObject({
      name: 'TrainError',
      code: 'bad_gradient',
      message: expect.stringMatching(/^step 2: the gradient norm is Infinity, rows d\.jsonl:\d, /) as string,
    });
    expect(learner.params.toFloat32().every((x) => Math.abs(x + 0.1) < 1e-3)).toBe(true);
  });

  it('stops at a last update that leaves no loss', async () => {
    using scope = new Scope('workspace');
    const learner = fake(scope);
    await expect(run(scope, learner, { lr: 1e12 }, 1)).rejects.toMatchObject({
      code: 'bad_update',
      message: expect.stringMatching(/^step 1: after the update the loss of rows d\.jsonl:\d.* is Infinity/) as string,
    });
  });

  it('a step cut off between batches changes nothing', async () => {
    using scope = new Scope('workspace');
    const stop = new AbortController();
    const learner = fake(scope, (call) => {
      if (call === 6) stop.abort();
      return 0;
    });
    const plan = planSteps(
      examples.map((e) => e.tokens.length),
      { seed: 1, steps: 5, rowsPerStep: 6 },
    );
    const seen: number[] = [];
    for await (const m of trainLoop(
      learner,
      { m: scope.zeros('f32', [4]), v: scope.zeros('f32', [4]) },
      examples,
      plan,
      0,
      options,
      stop.signal,
    ))
      seen.push(m.step);
    expect(seen).toEqual([1]);
    expect(learner.params.toFloat32().every((x) => Math.abs(x + 0.1) < 1e-3)).toBe(true);
  });
});

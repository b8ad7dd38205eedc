// The training loop: gradients of a step gathered batch by batch, clipped, AdamW. It knows neither files nor models.

import { TrainError } from '../base/errors.js';
import type { Example } from '../data/example.js';
import { deriveSeed, type StepPlan } from '../data/order.js';
import { fillBins, packBatch, weightSum } from '../data/pack.js';
import { peakBytes } from '../native/device.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { StepMetrics } from '../runs/metrics.js';
import type { Learner } from './learner.js';
import { learningRate, type Schedule } from './schedule.js';

export interface Moments {
  readonly m: Tensor;
  readonly v: Tensor;
}

export interface LoopOptions extends Schedule {
  readonly seed: number;
  readonly packing: boolean;
  readonly tokensPerBatch: number;
  readonly clipGradNorm: number | null;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
}

const places = (examples: readonly Example[]): string => {
  const shown = examples
    .slice(0, 8)
    .map((e) => `${e.source.file}:${e.source.line}`)
    .join(', ');
  return examples.length > 8 ? `${shown} and ${examples.length - 8} more` : shown;
};

/**
 * Trains steps done+1 … plan.steps and yields after each. The caller may stop between yields; a step it saw is
 * complete. `stopped` is asked between batches: a step cut off there leaves parameters and moments as they were.
 * @throws {TrainError} bad_loss, bad_gradient: NaN or infinity; parameters and moments are as after the step before
 */
export async function* trainLoop(
  learner: Learner,
  moments: Moments,
  examples: readonly Example[],
  plan: StepPlan,
  done: number,
  options: LoopOptions,
  stopped: () => boolean = () => false,
): AsyncGenerator<StepMetrics, void, void> {
  using scope = new Scope('workspace', learner.params.place);
  const squares = scope.empty('f32', [1]);
  for (let step = done + 1; step <= plan.steps; step++) {
    const began = performance.now();
    const rows = plan.rows(step - 1).indices.map((i) => examples[i] as Example);
    const total = weightSum(rows);
    const bins = fillBins(rows, options.tokensPerBatch, options.packing);
    ops.fill(learner.grads, 0);
    let loss = 0;
    let tokens = 0;
    for (const [b, bin] of bins.entries()) {
      // Lets messages and signals in; native calls block this thread.
      await new Promise((next) => setImmediate(next));
      if (stopped()) return;
      const { batch, targets } = packBatch(bin, 1 / total);
      const nll = learner.lossAndGradients(batch, targets, deriveSeed(options.seed, step, b));
      let part = 0;
      for (let i = 0; i < nll.length; i++) part += (nll[i] ?? 0) * (targets.weights[i] ?? 0);
      if (!Number.isFinite(part))
        throw new TrainError(
          'bad_loss',
          `step ${step}: the loss of batch ${b + 1} of ${bins.length} is ${part}, rows ` +
            `${places(bin)}; look at these rows, or lower train.lr (it was ` +
            `${learningRate(step, plan.steps, options).toExponential(2)})`,
          { step, batch: b + 1, rows: bin.map((e) => e.source) },
        );
      loss += part;
      tokens += batch.tokens.length;
    }
    ops.sum_squares(squares, learner.grads);
    const gradNorm = Math.sqrt(squares.toFloat32()[0] ?? Number.NaN);
    if (!Number.isFinite(gradNorm))
      throw new TrainError(
        'bad_gradient',
        `step ${step}: the gradient norm is ${gradNorm}, rows ${places(rows)}; look at these rows, or lower train.lr`,
        { step, rows: rows.map((e) => e.source) },
      );
    // As PyTorch's clip_grad_norm_: the small constant keeps the quotient below 1 at the limit itself.
    const gradScale = options.clipGradNorm === null ? 1 : Math.min(1, options.clipGradNorm / (gradNorm + 1e-6));
    const lr = learningRate(step, plan.steps, options);
    ops.adamw(
      learner.params,
      moments.m,
      moments.v,
      learner.grads,
      lr,
      options.betas[0],
      options.betas[1],
      options.eps,
      options.weightDecay,
      step,
      gradScale,
    );
    learner.refresh();
    const seconds = (performance.now() - began) / 1000;
    yield {
      step,
      loss,
      lr,
      gradNorm,
      tokens,
      tokensPerSecond: tokens / seconds,
      peakBytes: peakBytes(learner.params.place),
    };
  }
}

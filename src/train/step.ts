// One optimizer step: gradients batch by batch, their norm, clipping, AdamW. The loop runs it, the plan runs it dry,
// the bench times it.
import type { PackedBatch } from '../data/pack.js';
import { ops } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { Learner } from '../objectives/learner.js';
import type { Objective, ReferenceSums, Share } from '../objectives/objective.js';
import type { Moments } from './moments.js';

export interface StepSettings {
  /** null: gradients are not clipped. */
  readonly clipGradNorm: number | null;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
}

export class OptimizerStep implements Disposable {
  readonly #scope: Scope;
  readonly #squares: Tensor;
  constructor(
    readonly learner: Learner,
    readonly moments: Moments,
    readonly objective: Objective,
    readonly settings: StepSettings,
  ) {
    this.#scope = new Scope('workspace', learner.params.place);
    this.#squares = this.#scope.empty('f32', [1]);
  }

  begin(): void {
    ops.fill(this.learner.grads, 0);
  }
  /** Adds a batch's gradients. @param sumsOf as Objective.gradients takes it */
  add(batch: PackedBatch, seed: number, sumsOf?: ReferenceSums): Share {
    return this.objective.gradients(this.learner, batch, seed, sumsOf);
  }
  /** Of all that was added since `begin`, before clipping. Waits for a device. */
  gradNorm(): number {
    ops.sum_squares(this.#squares, this.learner.grads);
    return Math.sqrt(this.#squares.toFloat32()[0] ?? Number.NaN);
  }
  /** @param step from 1 */
  update(step: number, lr: number, gradNorm: number): void {
    const { learner, moments, settings } = this;
    const { clipGradNorm: limit, betas, eps, weightDecay } = settings;
    // As PyTorch's clip_grad_norm_: the small constant keeps the quotient below 1 at the limit itself.
    const scale = limit === null ? 1 : Math.min(1, limit / (gradNorm + 1e-6));
    const { params, grads } = learner,
      { m, v, mScales, vScales } = moments;
    const rest = [lr, betas[0], betas[1], eps, weightDecay, step, scale] as const;
    if (mScales && vScales) ops.adamw_8bit(params, m, v, mScales, vScales, grads, ...rest);
    else ops.adamw(params, m, v, grads, ...rest);
    learner.refresh();
  }

  close(): void {
    this.#scope.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

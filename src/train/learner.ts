// What the loop trains: one flat tensor of parameters and one of gradients. An adapter and a whole model look the same
// from there.
import type { Batch, Targets } from '../model/types.js';
import type { Tensor } from '../native/tensor.js';

export interface Learner {
  /** f32 [P], and their gradients, f32 [P], which lossAndGradients adds to. */
  readonly params: Tensor;
  readonly grads: Tensor;
  /**
   * @returns nll of each target in nats, unweighted; adds the gradient of Σ weight·nll. `seed` draws the dropout masks
   */
  lossAndGradients(batch: Batch, targets: Targets, seed: number): Float32Array;
  /** Called after the optimizer changed `params`. */
  refresh(): void;
  close(): void;
}

// What the loop trains: one flat tensor of parameters and one of gradients. An adapter and a whole model look the same
// from there.
import type { Batch, Targets } from '../model/types.js';
import type { Tensor } from '../native/tensor.js';

export type Weigh = (nll: Float32Array) => Float32Array;

export interface Learner {
  /** f32 [P], and their gradients, f32 [P], which lossAndGradients adds to. */
  readonly params: Tensor;
  readonly grads: Tensor;
  /**
   * Adds the gradient of Σ weight·nll, or, with `weigh`, of a loss that is any function of the nll: `weigh` is given
   * them and returns ∂loss/∂nll of each target.
   * @param seed draws the dropout masks
   * @returns nll of each target in nats, unweighted
   */
  lossAndGradients(batch: Batch, targets: Targets, seed: number, weigh?: Weigh): Float32Array;
  /**
   * Nll of each target in nats under the parameters as they are: forward alone, without dropout.
   * @param hits receives 1 for each target that is the most probable token
   */
  nll(batch: Batch, targets: Targets, hits?: Uint8Array | null): Float32Array;
  /** Nll of each target under what was there before training: the base without the adapter. Absent: there is none. */
  reference?(batch: Batch, targets: Targets): Float32Array;
  /** After memory ran out: from now on less stays from forward to backward, with the same bits. False: nothing did. */
  keepLess?(): boolean;
  /**
   * Rows of the busiest expert ÷ those of the mean one, the mean over the layers, of the gradients since it was last
   * asked; null: there were none.
   */
  expertImbalance?(): number | null;
  /** Called after the optimizer changed `params`. */
  refresh(): void;
  close(): void;
}

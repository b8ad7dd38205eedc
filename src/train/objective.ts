// What a step minimises, apart from what is trained (learner.ts) and how parameters follow (step.ts). An objective cuts
// a step's samples into batches and makes gradients of each: it may look at a forward pass before it weighs the tokens
// of the backward one.
import type { Example } from '../data/example.js';
import { fillBins, type PackedBatch, packBatch, weightSum } from '../data/pack.js';
import type { Recipe } from '../recipe/schema.js';
import type { Learner } from './learner.js';

export interface BatchLimits {
  /** Inputs of a batch at most; a longer sample has one to itself. */
  readonly tokensPerBatch: number;
  /** Several samples in a batch, none seeing another. */
  readonly packing: boolean;
}
export interface Objective {
  /** The batches of one step, in the order they run; what the step divides by is in their weights. */
  batches(samples: readonly Example[], limits: BatchLimits): readonly PackedBatch[];
  /**
   * Adds the gradient of one batch's share of the step's loss to `learner.grads`.
   * @param seed draws the dropout masks
   * @returns that share: the step's loss is the sum over its batches, nats per weighted token
   */
  gradients(learner: Learner, batch: PackedBatch, seed: number): number;
}

/** Σ weight·nll / Σ weight over the step, with the weights that the data gives. */
const weightedNll: Objective = {
  batches(samples, { tokensPerBatch, packing }) {
    const scale = 1 / weightSum(samples);
    return fillBins(samples, tokensPerBatch, packing).map((bin) => packBatch(bin, scale));
  },
  gradients(learner, { batch, targets }, seed) {
    const nll = learner.lossAndGradients(batch, targets, seed);
    let share = 0;
    for (let i = 0; i < nll.length; i++) share += (nll[i] ?? 0) * (targets.weights[i] ?? 0);
    return share;
  },
};
/** Conversations, of which the answers count. */
export const sft: Objective = weightedNll;
/** Text, of which every token counts. */
export const pretrain: Objective = weightedNll;

export const OBJECTIVES: Readonly<Record<Recipe['train']['method'], Objective>> = { sft, pretrain };

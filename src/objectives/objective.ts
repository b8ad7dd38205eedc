// What a step minimises, apart from what is trained (learner.ts) and how parameters follow (src/train/step.ts). An
// objective cuts a step's samples into batches and makes gradients of each: it may look at a forward pass before it
// weighs the tokens of the backward one.
import type { Example } from '../data/example.js';
import { fillBins, type PackedBatch, packBatch, weightSum } from '../data/pack.js';
import type { Recipe } from '../recipe/schema.js';
import { DEFAULT_BETA, dpo } from './dpo.js';
import type { Learner } from './learner.js';
import { orpo } from './orpo.js';

export interface BatchLimits {
  /** Inputs of a batch at most; a longer sample has one to itself. */
  readonly tokensPerBatch: number;
  /** Several samples in a batch, none seeing another. */
  readonly packing: boolean;
}
/** What one batch adds to a step. */
export interface Share {
  /** Of the step's loss, which is the sum over its batches. */
  readonly loss: number;
  /** Of figures that are sums over batches too, by name; they stand in metrics.jsonl beside the loss. */
  readonly figures?: Readonly<Record<string, number>>;
}
/** Σ weight·nll of each example of a batch under the reference (learner.reference), in double. */
export type ReferenceSums = (batch: PackedBatch) => Float64Array;

export interface Objective {
  /** Examples that make one sample: they lie one after the other, and in one batch. 2: chosen, then rejected. */
  readonly examplesPerSample: 1 | 2;
  /** It looks at the reference: `gradients` and `judge` are given what that says, computed once a sample. */
  readonly compares?: true;
  /**
   * The batches of one step, in the order they run; what the step divides by is in their weights or their `scale`.
   * @param examples whole samples
   */
  batches(examples: readonly Example[], limits: BatchLimits): readonly PackedBatch[];
  /**
   * Adds the gradient of one batch's share of the step's loss to `learner.grads`.
   * @param seed draws the dropout masks
   * @param sumsOf of an objective that compares; absent: by a forward pass of its own
   */
  gradients(learner: Learner, batch: PackedBatch, seed: number, sumsOf?: ReferenceSums): Share;
  /**
   * What the batch adds at these nll, of an objective whose loss is not Σ weight·nll.
   * @param reference Σ weight·nll of each example under the reference; of one that does not compare it is not looked at
   */
  judge?(batch: PackedBatch, nll: Float32Array, reference: Float64Array): Share;
}

/** Σ weight·nll / Σ weight over the step, with the weights that the data gives: known before the forward pass. */
const weightedNll: Objective = {
  examplesPerSample: 1,
  batches(examples, { tokensPerBatch, packing }) {
    const scale = 1 / weightSum(examples);
    return fillBins(examples, tokensPerBatch, packing).map((bin) => packBatch(bin, scale));
  },
  gradients(learner, { batch, targets }, seed) {
    const nll = learner.lossAndGradients(batch, targets, seed);
    let loss = 0;
    for (let i = 0; i < nll.length; i++) loss += (nll[i] ?? 0) * (targets.weights[i] ?? 0);
    return { loss };
  },
};
/** Conversations, of which the answers count. */
export const sft: Objective = weightedNll;
/** Text, of which every token counts. */
export const pretrain: Objective = weightedNll;

/** What the recipe's method minimises. To add one: its file, one entry here, its name in the recipe's schema. */
const OBJECTIVES: Readonly<Record<Recipe['train']['method'], (train: Recipe['train']) => Objective>> = {
  sft: () => sft,
  pretrain: () => pretrain,
  dpo: (train) => dpo({ ...train, beta: train.beta ?? train.dpo?.beta ?? DEFAULT_BETA }),
  orpo: (train) => orpo({ beta: train.beta ?? DEFAULT_BETA }),
};
export const objectiveOf = (recipe: Recipe): Objective => OBJECTIVES[recipe.train.method](recipe.train);

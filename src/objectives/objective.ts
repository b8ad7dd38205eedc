// What a step minimises, apart from what is trained (learner.ts) and how parameters follow (src/train/step.ts). An
// objective cuts a step's samples into batches and makes gradients of each: it may look at a forward pass before it
// weighs the tokens of the backward one.
import type { Example } from '../data/example.js';
import { fillBins, type PackedBatch, packBatch, weightSum } from '../data/pack.js';
import type { Recipe } from '../recipe/schema.js';
import { DEFAULT_BETA, dpo } from './dpo.js';
import type { Learner } from './learner.js';

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
export interface Objective {
  /** Examples that make one sample: they lie one after the other, and in one batch. 2: chosen, then rejected. */
  readonly examplesPerSample: 1 | 2;
  /**
   * The batches of one step, in the order they run; what the step divides by is in their weights or their `scale`.
   * @param examples whole samples
   */
  batches(examples: readonly Example[], limits: BatchLimits): readonly PackedBatch[];
  /**
   * Adds the gradient of one batch's share of the step's loss to `learner.grads`.
   * @param seed draws the dropout masks
   */
  gradients(learner: Learner, batch: PackedBatch, seed: number): Share;
  /**
   * Of an objective that compares: what the batch adds at these nll, under the model and under the reference. Absent:
   * the loss is Σ weight·nll.
   */
  judge?(batch: PackedBatch, nll: Float32Array, reference: Float32Array): Share;
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
  dpo: (train) => dpo(train.dpo?.beta ?? DEFAULT_BETA),
};
export const objectiveOf = (recipe: Recipe): Objective => OBJECTIVES[recipe.train.method](recipe.train);

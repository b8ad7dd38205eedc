// What can be trained: an adapter on a frozen base.
import { CheckpointError } from '../base/errors.js';
import type { Adapter } from '../lora/adapter.js';
import { applyAdapter } from '../lora/apply.js';
import { ExpertLoad } from '../model/expert-load.js';
import { lossAndGradients } from '../model/gpt-oss.js';
import type { Batch, ModelAdapter, ModelWeights, Targets } from '../model/types.js';
import type { Learner } from '../objectives/learner.js';
import type { Recipe } from '../recipe/schema.js';
import { LearnerMemory, type MemoryModes } from './memory-use.js';

export interface LearnOptions extends MemoryModes {
  readonly precision: Recipe['train']['precision'];
  /** Folder on whose disk activations may go; it need not be there before the first batch. */
  readonly folder: string;
}
/** A learner and what it needs of memory. */
export interface PlacedLearner extends Learner {
  readonly trainedParameters: number;
  readonly memory: LearnerMemory;
}

/** Base and adapter stay the caller's; `close` closes neither. @throws {CheckpointError} not_trainable */
export function learnAdapter(base: ModelWeights, adapter: Adapter, options: LearnOptions): PlacedLearner {
  const { grads } = adapter;
  if (!grads) throw new CheckpointError('not_trainable', 'the adapter has no room for gradients');
  const applied = applyAdapter(base, adapter);
  const memory = new LearnerMemory(applied.model, applied.adapter, adapter.params, options);
  const load = new ExpertLoad(base.config.num_hidden_layers, base.config.num_local_experts);
  const forward = (
    model: ModelWeights,
    adapted: ModelAdapter | null,
    batch: Batch,
    targets: Targets,
    hits: Uint8Array | null = null,
  ): Float32Array =>
    lossAndGradients(model, adapted, batch, targets, {
      hits,
      precision: options.precision,
      seed: 0,
      grads: null,
      gradients: false,
    }).nll;
  return {
    memory,
    params: adapter.params,
    grads,
    trainedParameters: adapter.entries.reduce((a, e) => a + e.shape.reduce((x, y) => x * y, 1), 0),
    lossAndGradients: (batch, targets, seed, weigh) =>
      lossAndGradients(applied.model, applied.adapter, batch, targets, {
        precision: options.precision,
        seed,
        grads: null,
        gradients: true,
        load,
        ...memory.of(batch.tokens.length, options.folder),
        ...(weigh ? { weigh } : {}),
      }).nll,
    keepLess: () => memory.keepLess(),
    expertImbalance: () => load.take(),
    nll: (batch, targets, hits) => forward(applied.model, applied.adapter, batch, targets, hits),
    reference: (batch, targets) => forward(base, null, batch, targets),
    // The pairs are views of params; what was merged of them is not.
    refresh: () => applied.refresh(),
    close: () => applied.close(),
  };
}

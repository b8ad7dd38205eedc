// What can be trained: an adapter on a frozen base.
import { CheckpointError } from '../base/errors.js';
import type { Adapter } from '../lora/adapter.js';
import { applyAdapter } from '../lora/apply.js';
import { keptActivationBytes, lossAndGradients } from '../model/gpt-oss.js';
import { type Batch, type ModelAdapter, type ModelWeights, placeOf, type Targets } from '../model/types.js';
import type { Place } from '../native/tensor.js';
import type { Learner } from '../objectives/learner.js';
import type { Recipe } from '../recipe/schema.js';
import { momentsPlaceOf, type OffloadMode, offloadRule } from './offload.js';

export interface LearnOptions {
  readonly precision: Recipe['train']['precision'];
  readonly offloadActivations?: OffloadMode | undefined;
  readonly offloadOptimizer?: OffloadMode | undefined;
  /** Folder on whose disk activations may go; it need not be there before the first batch. */
  readonly folder: string;
}
/** A learner and what it needs of memory. */
export interface PlacedLearner extends Learner {
  readonly trainedParameters: number;
  /** Bytes that a batch of this many tokens puts elsewhere: on disk, from a GPU into host memory; 0: none. */
  offloadBytes(tokens: number): number;
  /** Where the moments of AdamW are to lie. */
  readonly momentsPlace: Place;
}

/** Base and adapter stay the caller's; `close` closes neither. @throws {CheckpointError} not_trainable */
export function learnAdapter(base: ModelWeights, adapter: Adapter, options: LearnOptions): PlacedLearner {
  const { grads } = adapter;
  if (!grads) throw new CheckpointError('not_trainable', 'the adapter has no room for gradients');
  const applied = applyAdapter(base, adapter);
  const offloadBytes = offloadRule(options.offloadActivations ?? 'auto', placeOf(base), (tokens) =>
    keptActivationBytes(applied.model, applied.adapter, tokens),
  );
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
    offloadBytes,
    momentsPlace: momentsPlaceOf(options.offloadOptimizer ?? 'auto', adapter.params),
    params: adapter.params,
    grads,
    trainedParameters: adapter.entries.reduce((a, e) => a + e.shape.reduce((x, y) => x * y, 1), 0),
    lossAndGradients: (batch, targets, seed, weigh) =>
      lossAndGradients(applied.model, applied.adapter, batch, targets, {
        precision: options.precision,
        seed,
        grads: null,
        gradients: true,
        offload: offloadBytes(batch.tokens.length) > 0 ? options.folder : null,
        ...(weigh ? { weigh } : {}),
      }).nll,
    nll: (batch, targets, hits) => forward(applied.model, applied.adapter, batch, targets, hits),
    reference: (batch, targets) => forward(base, null, batch, targets),
    // The pairs are views of params; what was merged of them is not.
    refresh: () => applied.refresh(),
    close: () => applied.close(),
  };
}

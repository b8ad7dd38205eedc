// What can be trained: all weights of a new model.
import { keptActivationBytes, lossAndGradients } from '../model/gpt-oss.js';
import type { Trainable } from '../model/trainable.js';
import type { LearnOptions, PlacedLearner } from './adapter-learner.js';
import { momentsPlaceOf, offloadRule } from './offload.js';

/** The model stays the caller's. */
export function learnModel(model: Trainable, options: LearnOptions): PlacedLearner {
  const offloadBytes = offloadRule(options.offloadActivations ?? 'auto', model.params.place, (tokens) =>
    keptActivationBytes(model.model, null, tokens),
  );
  return {
    offloadBytes,
    momentsPlace: momentsPlaceOf(options.offloadOptimizer ?? 'auto', model.params),
    params: model.params,
    grads: model.grads,
    trainedParameters: model.segments.reduce((a, s) => a + s.shape.reduce((x, y) => x * y, 1), 0),
    lossAndGradients: (batch, targets, seed, weigh) =>
      lossAndGradients(model.model, null, batch, targets, {
        precision: options.precision,
        seed,
        grads: model.gradViews,
        gradients: true,
        offload: offloadBytes(batch.tokens.length) > 0 ? options.folder : null,
        ...(weigh ? { weigh } : {}),
      }).nll,
    nll: (batch, targets, hits = null) =>
      lossAndGradients(model.model, null, batch, targets, {
        hits,
        precision: options.precision,
        seed: 0,
        grads: null,
        gradients: false,
      }).nll,
    refresh: () => model.refresh(),
    close() {
      /* nothing is its own */
    },
  };
}

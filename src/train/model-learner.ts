// What can be trained: all weights of a new model.
import { ExpertLoad } from '../model/expert-load.js';
import { lossAndGradients } from '../model/gpt-oss.js';
import type { Trainable } from '../model/trainable.js';
import type { LearnOptions, PlacedLearner } from './adapter-learner.js';
import { LearnerMemory } from './memory-use.js';

/** The model stays the caller's. */
export function learnModel(model: Trainable, options: LearnOptions): PlacedLearner {
  const memory = new LearnerMemory(model.model, null, model.params, options);
  const load = new ExpertLoad(model.model.config.num_hidden_layers, model.model.config.num_local_experts);
  return {
    memory,
    params: model.params,
    grads: model.grads,
    trainedParameters: model.segments.reduce((a, s) => a + s.shape.reduce((x, y) => x * y, 1), 0),
    lossAndGradients: (batch, targets, seed, weigh) =>
      lossAndGradients(model.model, null, batch, targets, {
        precision: options.precision,
        seed,
        grads: model.gradViews,
        gradients: true,
        load,
        ...memory.of(batch.tokens.length, options.folder),
        ...(weigh ? { weigh } : {}),
      }).nll,
    keepLess: () => memory.keepLess(),
    expertImbalance: () => load.take(),
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

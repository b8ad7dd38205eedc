// The two things the loop can train: an adapter on a frozen base, and all weights of a new model.
import { copyFileSync, existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { type Adapter, createAdapter } from '../lora/adapter.js';
import { readPeft, writePeft } from '../lora/peft.js';
import { adapterSpec } from '../lora/spec.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { type ModelConfig, parseConfig } from '../model/config.js';
import { keptActivationBytes, lossAndGradients, OFFLOAD_FROM_BYTES } from '../model/gpt-oss.js';
import { createTrainable } from '../model/trainable.js';
import { deviceShare } from '../native/device.js';
import type { Place, Tensor } from '../native/tensor.js';
import { recipePlace } from '../recipe/place.js';
import type { Recipe } from '../recipe/schema.js';
import type { Savable } from '../runs/checkpoint.js';
import type { Learner } from './learner.js';

export interface TrainedLearner extends Learner, Savable {
  readonly config: ModelConfig;
  readonly trainedParameters: number;
  /** Bytes that a batch of this many tokens puts elsewhere: on disk, from a GPU into host memory; 0: none. */
  offloadBytes(tokens: number): number;
  /** Where the moments of AdamW are to lie. */
  readonly momentsPlace: Place;
}

/** @param run folder on whose disk activations may go; it need not be there yet */
export function createLearner(recipe: Recipe, run: string): TrainedLearner {
  return recipe.train.method === 'sft' ? adapterLearner(recipe, run) : modelLearner(recipe, run);
}

/** What a batch offloads under the recipe's train.offloadActivations. */
function offloadRule(recipe: Recipe, place: Place, kept: (tokens: number) => number): (tokens: number) => number {
  const mode = recipe.train.offloadActivations ?? 'auto',
    most = place === 'cpu' ? OFFLOAD_FROM_BYTES : deviceShare();
  return (tokens) => {
    const bytes = kept(tokens);
    return mode === 'always' || (mode === 'auto' && bytes >= most) ? bytes : 0;
  };
}
function momentsPlace(recipe: Recipe, params: Tensor): Place {
  const mode = recipe.train.offloadOptimizer ?? 'auto';
  return mode === 'always' || (mode === 'auto' && 2 * params.bytes > deviceShare()) ? 'cpu' : params.place;
}

/** The adapter a recipe asks for: a new one, or one to go on from. */
export function recipeAdapter(recipe: Recipe, config: ModelConfig, trainable: boolean, place: Place = 'cpu'): Adapter {
  const { from, dropout } = recipe.adapter;
  if (from) return readPeft(from, config, { trainable, dropout, place });
  return createAdapter(config, adapterSpec(config, recipe.adapter), { seed: recipe.train.seed, trainable, place });
}

function adapterLearner(recipe: Recipe, run: string): TrainedLearner {
  const folder = recipe.model.base ?? '',
    place = recipePlace(recipe);
  // Training reads a few rows of the embedding per batch: on a device its bytes are better spent.
  const base = openCheckpoint(folder, { place, embed: 'cpu' });
  let adapter: Adapter;
  try {
    adapter = recipeAdapter(recipe, base.config, true, place);
  } catch (e) {
    base.close();
    throw e;
  }
  const grads = adapter.grads;
  if (!grads) throw new CheckpointError('not_trainable', 'the adapter has no room for gradients');
  const offloadBytes = offloadRule(recipe, place, (tokens) => keptActivationBytes(base, adapter.model, tokens));
  return {
    offloadBytes,
    momentsPlace: momentsPlace(recipe, adapter.params),
    config: base.config,
    params: adapter.params,
    grads,
    checkpointName: 'adapter',
    spec: adapter.spec,
    trainedParameters: adapter.entries.reduce((a, e) => a + e.shape.reduce((x, y) => x * y, 1), 0),
    lossAndGradients: (batch, targets, seed) =>
      lossAndGradients(base, adapter.model, batch, targets, {
        precision: recipe.train.precision,
        seed,
        grads: null,
        gradients: true,
        offload: offloadBytes(batch.tokens.length) > 0 ? run : null,
      }).nll,
    refresh() {
      /* the pairs are views of params */
    },
    save: (to) => writePeft(adapter, to, { baseModel: basename(folder), about: recipe.about }),
    close() {
      adapter.close();
      base.close();
    },
  };
}

function modelLearner(recipe: Recipe, run: string): TrainedLearner {
  const config = parseConfig(recipe.model.init, 'model.init');
  const place = recipePlace(recipe),
    model = createTrainable(config, { seed: recipe.train.seed, place });
  const tokenizer = recipe.model.tokenizer;
  const offloadBytes = offloadRule(recipe, place, (tokens) => keptActivationBytes(model.model, null, tokens));
  return {
    offloadBytes,
    momentsPlace: momentsPlace(recipe, model.params),
    config,
    params: model.params,
    grads: model.grads,
    trainedParameters: model.segments.reduce((a, s) => a + s.shape.reduce((x, y) => x * y, 1), 0),
    lossAndGradients: (batch, targets, seed) =>
      lossAndGradients(model.model, null, batch, targets, {
        precision: recipe.train.precision,
        seed,
        grads: model.gradViews,
        gradients: true,
        offload: offloadBytes(batch.tokens.length) > 0 ? run : null,
      }).nll,
    refresh: () => model.refresh(),
    async save(to) {
      await model.saveInto(to);
      // The new model is complete only with the tokenizer its rows were made with.
      if (!tokenizer) return;
      const from = tokenizer.endsWith('.json') ? tokenizer : join(tokenizer, 'tokenizer.json');
      if (existsSync(from)) copyFileSync(from, join(to, 'tokenizer.json'));
    },
    close: () => model.close(),
  };
}

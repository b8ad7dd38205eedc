// What a recipe trains, opened: an adapter on its base, or all weights of its new model.

import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { writeFlushed } from '../base/files.js';
import { readInput } from '../base/inputs.js';
import { pulledFrom } from '../hub/manifest.js';
import { type Adapter, createAdapter } from '../lora/adapter.js';
import { readPeft, writePeft } from '../lora/peft.js';
import { type AdapterSpec, adapterSpec, LORA_TARGETS } from '../lora/spec.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { type ModelConfig, parseConfig } from '../model/config.js';
import { createTrainable } from '../model/trainable.js';
import { HOST } from '../native/backends.js';
import type { Device } from '../native/device.js';
import type { Place } from '../native/tensor.js';
import type { DecidedByFrom } from '../recipe/load.js';
import { onHost, onRecipeDevice } from '../recipe/place.js';
import type { Recipe } from '../recipe/schema.js';
import type { Savable } from '../runs/checkpoint.js';
import { type LearnOptions, learnAdapter, type PlacedLearner } from './adapter-learner.js';
import { learnModel } from './model-learner.js';

export interface TrainedLearner extends PlacedLearner, Savable {
  readonly config: ModelConfig;
  /** What it computes on. */
  readonly device: Device;
}

/**
 * @param run folder on whose disk activations may go; it need not be there yet
 * @param device in place of the recipe's
 * @throws {NativeError} what is missing for the device
 */
export function createLearner(recipe: Recipe, run: string, device: string = recipe.device): TrainedLearner {
  const create = recipe.train.method === 'pretrain' ? modelLearner : adapterLearner;
  const there = device === HOST && recipe.device === 'auto' ? onHost(recipe) : recipe;
  return onRecipeDevice(there, (d) => create(recipe, run, d), device);
}

const learnOptions = ({ train }: Recipe, folder: string): LearnOptions => ({ ...train, folder });

/** The adapter a recipe asks for: a new one, or one to go on from. */
function recipeAdapter(recipe: Recipe, config: ModelConfig, place: Place): Adapter {
  const { from, dropout, mergeAware = null, attackTuned } = recipe.adapter;
  if (from) return readPeft(from, config, { trainable: true, dropout, place, mergeAware, attackTuned });
  return createAdapter(config, adapterSpec(config, recipe.adapter), {
    seed: recipe.train.seed,
    trainable: true,
    place,
  });
}

/**
 * A recipe that goes on from an adapter may say again what that is, and nothing else.
 * @param given fields that the recipe itself says
 * @throws {ConfigError} bad_recipe: it says something else
 */
export function checkFrom(recipe: Recipe, given: readonly DecidedByFrom[], { config, spec }: TrainedLearner): void {
  const { from } = recipe.adapter;
  if (from === undefined || !spec) return;
  const asked = adapterSpec(config, recipe.adapter);
  const pairs = ({ layers }: AdapterSpec): readonly string[] =>
    layers.flatMap((targets, layer) => Object.keys(targets).map((t) => `${layer}.${t}`)).sort();
  /** What the adapter has of a number, over all its pairs. */
  const held = (key: 'rank' | 'alpha'): string =>
    [...new Set(spec.layers.flatMap((targets) => Object.values(targets).map((t) => t[key])))].join(', ');
  const agree = (key: 'rank' | 'alpha'): boolean =>
    spec.layers.every((targets, layer) =>
      LORA_TARGETS.every((t) => {
        const [got, wanted] = [targets[t], asked.layers[layer]?.[t]];
        return !got || !wanted || got[key] === wanted[key];
      }),
    );
  const same: Readonly<Record<DecidedByFrom, () => boolean>> = {
    rank: () => agree('rank'),
    alpha: () => agree('alpha'),
    targets: () => pairs(asked).join() === pairs(spec).join(),
    layers: () => pairs(asked).join() === pairs(spec).join(),
    rsLora: () => asked.rsLora === spec.rsLora,
  };
  const wrong = given.filter((k) => !same[k]());
  const [first] = wrong;
  if (first === undefined) return;
  const has = (key: DecidedByFrom): string =>
    key === 'rank' || key === 'alpha'
      ? held(key)
      : key === 'rsLora'
        ? String(spec.rsLora)
        : [...new Set(pairs(spec).map((p) => p.replace(/^\d+\./, '')))].join(', ');
  throw new ConfigError(
    'bad_recipe',
    `the adapter to go on from (${from}) has ` +
      `${wrong.map((k) => `adapter.${k} ${has(k)}, not ${JSON.stringify(recipe.adapter[k])}`).join('; ')}; remove ` +
      `${wrong.map((k) => `adapter.${k}`).join(', ')} to go on with it as it is, or adapter.from for a new adapter`,
    { path: `adapter.${first}` },
  );
}

function adapterLearner(recipe: Recipe, run: string, device: Device): TrainedLearner {
  const folder = recipe.model.base ?? '',
    { place } = device;
  // Training reads a few rows of the embedding per batch: on a device its bytes are better spent.
  const base = openCheckpoint(folder, { place, embed: HOST });
  let adapter: Adapter | undefined, learner: PlacedLearner;
  try {
    adapter = recipeAdapter(recipe, base.config, place);
    learner = learnAdapter(base, adapter, learnOptions(recipe, run));
  } catch (e) {
    adapter?.close();
    base.close();
    throw e;
  }
  const made = adapter;
  return {
    ...learner,
    device,
    config: base.config,
    checkpointName: 'adapter',
    spec: made.spec,
    save: (to) => writePeft(made, to, { baseModel: pulledFrom(folder)?.name ?? basename(folder), about: recipe.about }),
    close() {
      learner.close();
      made.close();
      base.close();
    },
  };
}

function modelLearner(recipe: Recipe, run: string, device: Device): TrainedLearner {
  const config = parseConfig(recipe.model.init, 'model.init');
  const model = createTrainable(config, { seed: recipe.train.seed, place: device.place });
  const tokenizer = recipe.model.tokenizer;
  return {
    ...learnModel(model, learnOptions(recipe, run)),
    device,
    config,
    async save(to) {
      await model.saveInto(to);
      // The new model is complete only with the tokenizer its rows were made with.
      if (!tokenizer) return;
      const from = tokenizer.endsWith('.json') ? tokenizer : join(tokenizer, 'tokenizer.json');
      if (existsSync(from)) writeFlushed(join(to, 'tokenizer.json'), readInput(from, 'tokenizer'));
    },
    close: () => model.close(),
  };
}

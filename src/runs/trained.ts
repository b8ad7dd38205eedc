// From what the user names, a recipe or a run, to the weights that are meant.
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { asReadError } from '../base/system-error.js';
import { referenceOf } from '../hub/cached.js';
import { type LoadedRecipe, loadRecipe, notCached } from '../recipe/load.js';
import type { Recipe } from '../recipe/schema.js';
import { checkpointFolder, checkpointSteps, readRun } from './run-folder.js';

export interface Trained {
  readonly recipe: Recipe;
  /** Checkpoint folder. */
  readonly model: string;
  /** PEFT folder on top; null: the checkpoint as it is. */
  readonly adapter: string | null;
  /** The run it comes from; null: a recipe, whose base is meant. */
  readonly run: string | null;
}

/** @throws {ConfigError} path_not_found */
function isFolder(path: string): boolean {
  const next = 'give a recipe (.yaml) or the folder of a run';
  try {
    return statSync(path).isDirectory();
  } catch (e) {
    const gone = (e as NodeJS.ErrnoException).code === 'ENOENT';
    throw asReadError(e, path, next, (message) => {
      const what = gone ? `${path}: no such recipe or run folder; ${next}` : message;
      return new ConfigError('path_not_found', what, { path });
    });
  }
}

/** @throws {ConfigError} no such path, or a folder that is no run */
export function recipeOf(
  path: string,
  set: readonly string[] = [],
): { readonly loaded: LoadedRecipe; readonly run: string | null } {
  const run = isFolder(path) ? resolve(path) : null;
  if (run && !readRun(run))
    throw new ConfigError('not_a_run', `${path}: holds no run.json; wanted a run folder or a recipe`, { path });
  // What a run trained stands without the rows it was trained on.
  const options = { set, checkPaths: run === null, ofRun: run !== null };
  const loaded = loadRecipe(run ? join(run, 'recipe.yaml') : path, options);
  const { base } = loaded.recipe.model;
  if (run && base && loaded.references.length > 0 && !existsSync(base)) {
    const given = referenceOf(base) ?? base;
    throw new ConfigError('path_not_found', `${path}: model.base is ${given}, which ${notCached(given, base)}`, {
      path,
    });
  }
  return { loaded, run };
}

/**
 * A run: what it trained (its last checkpoint if it did not finish). A recipe: its base, with adapter.from if that is
 * given.
 * @throws {ConfigError} a run without a checkpoint, a recipe that has no weights yet
 */
export function resolveTrained(path: string, set: readonly string[] = []): Trained {
  const {
    loaded: { recipe },
    run,
  } = recipeOf(path, set);
  if (!run) {
    if (!recipe.model.base)
      throw new ConfigError('no_weights', `${path}: trains a new model; name its run folder instead of the recipe`, {
        path,
      });
    return { recipe, model: recipe.model.base, adapter: recipe.adapter.from ?? null, run };
  }
  if (recipe.train.method === 'pretrain') {
    const model = join(run, 'model');
    if (!existsSync(model))
      throw new ConfigError('no_weights', `${path}: has no model/ yet; finish it with temper train --resume`, { path });
    return { recipe, model, adapter: null, run };
  }
  const last = checkpointSteps(run).at(-1);
  const adapter = [
    join(run, 'adapter'),
    ...(last === undefined ? [] : [join(checkpointFolder(run, last), 'adapter')]),
  ].find((p) => existsSync(p));
  if (!adapter)
    throw new ConfigError(
      'no_weights',
      `${path}: has no adapter and no checkpoint yet; go on with temper train --resume`,
      { path },
    );
  return { recipe, model: recipe.model.base ?? '', adapter, run };
}

/** The run folder an export lies in, or null. */
export function runAround(folder: string): string | null {
  for (let at = resolve(folder); ; at = dirname(at)) {
    if (readRun(at)) return at;
    if (dirname(at) === at) return null;
  }
}

// The hf:// references of a recipe: brought into the cache before anything else, at the commits that a run has pinned.
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readInputText } from '../base/inputs.js';
import { type PullHooks, pullReferences } from '../hub/pull.js';
import { HF, isReference } from '../hub/reference.js';

export interface RecipeToPull {
  readonly set?: readonly string[] | undefined;
  /** A run that goes on: its commits are taken, whatever a branch is now. */
  readonly run?: string | undefined;
  /** model.base is not needed: what a plan is made for has its shape. */
  readonly withoutBase?: boolean;
}

/** Whether the text of a recipe can name what is on the hub; YAML may spell it with escapes. */
const mayRefer = (text: string): boolean => text.includes(HF) || text.includes('\\');

/**
 * @param path a recipe, or a run folder, whose recipe names commits
 * @returns commits by reference; undefined: the recipe has no reference, or cannot be read, which others will say
 * @throws as pullReferences
 */
export async function pullForRecipe(
  path: string,
  { set, run, withoutBase = false }: RecipeToPull = {},
  hooks: PullHooks = {},
): Promise<Readonly<Record<string, string>> | undefined> {
  hooks.signal?.throwIfAborted();
  let references: readonly string[];
  try {
    const folder = existsSync(path) && statSync(path).isDirectory();
    const file = folder ? join(path, 'recipe.yaml') : path;
    const text = readInputText(file, 'recipe');
    if (![text, ...(set ?? [])].some(mayRefer)) return undefined;
    // Loaded where it is needed: it takes longer than many a command that is given a recipe.
    const { parseRecipe } = await import('../recipe/load.js');
    references = parseRecipe(text, file, { checkPaths: false, ofRun: folder, ...(set ? { set } : {}) })
      .references.filter(({ field }) => !withoutBase || field !== 'model.base')
      .map(({ given }) => given);
  } catch {
    return undefined;
  }
  if (references.length === 0) return undefined;
  const { readRun } = await import('./run-folder.js');
  const known = (run !== undefined && readRun(resolve(run))?.hub) || {};
  const pins = Object.fromEntries(Object.entries(known).filter(([given]) => isReference(given)));
  const found = await pullReferences({ references, pins }, hooks);
  return Object.fromEntries(Object.entries(found).map(([given, { commit }]) => [given, commit]));
}

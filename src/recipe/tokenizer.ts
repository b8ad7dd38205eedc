// The tokenizer that a recipe's rows are made with.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';
import type { Recipe } from './schema.js';

/** Folder or file; null: the recipe has none, as rows of tokens need none. */
export const tokenizerFolder = (recipe: Recipe): string | null => {
  const folder = recipe.model.tokenizer ?? recipe.model.base;
  return folder && existsSync(folder.endsWith('.json') ? folder : join(folder, 'tokenizer.json')) ? folder : null;
};
/** The tokenizer.json itself. */
export function tokenizerFile(recipe: Recipe): string | null {
  const folder = tokenizerFolder(recipe);
  return folder === null || folder.endsWith('.json') ? folder : join(folder, 'tokenizer.json');
}
/** A tokenizer that is read when it is first asked for, and closed with the rest. */
export function lazyTokenizer(
  recipe: Recipe,
  vocabSize: number,
): { readonly get: (() => Tokenizer) | null; close(): void } {
  const folder = tokenizerFolder(recipe);
  let loaded: Tokenizer | undefined;
  return {
    get: folder ? (): Tokenizer => (loaded ??= loadTokenizer(folder, { vocabSize })) : null,
    close: () => loaded?.close(),
  };
}

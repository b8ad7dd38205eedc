// The questions of a recipe's held-out rows, read as its loss reads them.

import type { Prompt } from '../data/example.js';
import { loadPrompts, rowSettings } from '../data/load.js';
import { readConfig } from '../model/config.js';
import { heldOutFiles } from '../recipe/data-files.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import { resolveTrained } from '../runs/trained.js';

export interface PromptsRequest {
  readonly path: string;
  readonly set?: readonly string[];
}
export interface HeldOutPrompts {
  readonly prompts: readonly Prompt[];
  /** Rows longer than the recipe reads (data.maxTokens, the model's positions): dropped or cut, they have no answer. */
  readonly tooLong: number;
}

/** @throws {DataError} a bad row · the signal's reason */
export async function heldOutPrompts(request: PromptsRequest, signal?: AbortSignal): Promise<HeldOutPrompts> {
  const { recipe, model } = resolveTrained(request.path, request.set);
  const { vocab_size: vocabSize, max_position_embeddings: positions } = readConfig(model);
  const tokenizer = lazyTokenizer(recipe, vocabSize);
  let tooLong = 0;
  try {
    const context = { tokenizer: tokenizer.get, vocabSize, ...rowSettings(recipe.data), positions };
    const prompts = await loadPrompts(heldOutFiles(recipe.data), signal, context, () => {
      tooLong++;
    });
    return { prompts, tooLong };
  } finally {
    tokenizer.close();
  }
}

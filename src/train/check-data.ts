// The dataset check of a file or of everything a recipe names.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkFile, type FileCheck } from '../data/check.js';
import { FLAG_SETTINGS } from '../data/format.js';
import { type DataFile, type LoadContext, type RowSettings, rowSettings } from '../data/load.js';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';
import { readConfig } from '../model/config.js';
import { loadRecipe } from '../recipe/load.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';

export interface CheckDataOptions {
  readonly format: string;
  readonly tokenizer?: string;
  readonly maxTokens: number;
  readonly onLong?: RowSettings['onLong'];
  readonly ignore?: readonly string[];
  readonly markup?: RowSettings['markup'];
  readonly samples: number;
  readonly signal?: AbortSignal;
}

export interface CheckDataRequest extends Omit<CheckDataOptions, 'signal'> {
  /** A JSONL file, or a recipe (.yaml, .yml). */
  readonly path: string;
}

export async function checkFiles(options: CheckDataRequest, stop?: AbortSignal): Promise<FileCheck[]> {
  const { path } = options;
  const signal = stop ? { signal: stop } : {};
  let files: readonly DataFile[];
  let context: LoadContext;
  let close = (): void => {};
  if (/\.ya?ml$/i.test(path)) {
    const { recipe } = loadRecipe(path);
    const config = recipe.model.init ?? readConfig(recipe.model.base ?? '');
    const tokenizer = lazyTokenizer(recipe, config.vocab_size);
    close = () => tokenizer.close();
    files = [...recipe.data.train, ...recipe.data.eval];
    context = {
      tokenizer: tokenizer.get,
      vocabSize: config.vocab_size,
      ...rowSettings(recipe.data),
      positions: config.max_position_embeddings,
      ...signal,
    };
  } else {
    const at = options.tokenizer;
    let loaded: Tokenizer | undefined;
    const get = at === undefined ? null : (): Tokenizer => (loaded ??= loadTokenizer(at));
    close = () => loaded?.close();
    files = [{ path, format: options.format }];
    context = {
      tokenizer: get,
      vocabSize: at === undefined ? 2 ** 31 : (get?.().vocabSize ?? 0),
      positions:
        at !== undefined && existsSync(join(at, 'config.json')) ? readConfig(at).max_position_embeddings : undefined,
      maxTokens: options.maxTokens,
      onLong: options.onLong,
      ignore: options.ignore,
      markup: options.markup,
      settings: FLAG_SETTINGS,
      loss: { analysis: 1, commentary: 1, final: 1 },
      ...signal,
    };
  }
  try {
    const out: FileCheck[] = [];
    for (const file of files) out.push(await checkFile(file, context, { samples: options.samples }));
    return out;
  } finally {
    close();
  }
}

// The dataset check of a file, or two, or of everything a recipe names.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { checkFile, type FileCheck } from '../data/check.js';
import { ExampleStore } from '../data/example-store.js';
import { FLAG_SETTINGS } from '../data/format.js';
import { type DataFile, type LoadContext, type RowSettings, rowSettings, samplesInto } from '../data/load.js';
import { overlapOf } from '../data/overlap.js';
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
  /** Held-out rows beside a file: checked as it is, and for rows that stand in both. A recipe names its own. */
  readonly heldOut?: string;
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
  let heldOut: readonly DataFile[];
  let context: LoadContext;
  let close = (): void => {};
  if (/\.ya?ml$/i.test(path)) {
    if (options.heldOut !== undefined)
      throw new ConfigError(
        'bad_option',
        `${path}: a recipe names its held-out rows itself, as data.eval; leave --eval out`,
        { path, heldOut: options.heldOut },
      );
    const { recipe } = loadRecipe(path);
    const config = recipe.model.init ?? readConfig(recipe.model.base ?? '');
    const tokenizer = lazyTokenizer(recipe, config.vocab_size);
    close = () => tokenizer.close();
    files = recipe.data.train;
    heldOut = recipe.data.eval;
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
    heldOut = options.heldOut === undefined ? [] : [{ path: options.heldOut, format: options.format }];
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
    return await checkAll(files, heldOut, context, options.samples);
  } finally {
    close();
  }
}

/** As training keeps them: only what has a token to train is compared. Without held-out rows nothing is kept. */
async function checkAll(
  files: readonly DataFile[],
  heldOut: readonly DataFile[],
  context: LoadContext,
  samples: number,
): Promise<FileCheck[]> {
  const trained = new ExampleStore();
  const out: FileCheck[] = [];
  for (const file of files)
    out.push(
      await checkFile(file, context, { samples, ...(heldOut.length > 0 && { onExample: samplesInto(trained, file) }) }),
    );
  for (const file of heldOut) {
    const held = new ExampleStore();
    const check = await checkFile(file, context, { samples, onExample: samplesInto(held, file) });
    out.push({ ...check, overlap: overlapOf(trained, held) });
  }
  return out;
}

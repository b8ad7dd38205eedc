// The dataset check of files or of everything a recipe names.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { checkOutputs } from '../base/outputs.js';
import { checkFile, type FileCheck } from '../data/check.js';
import type { DataFile, LoadContext, RowSettings } from '../data/examples.js';
import { type RowHooks, rowSettings, streamExamples } from '../data/examples.js';
import { FLAG_SETTINGS } from '../data/format.js';
import { type Leakage, LeakSearch } from '../data/leakage.js';
import type { PlacedRow } from '../data/rows.js';
import { rowHash } from '../data/seen.js';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';
import { readConfig } from '../model/config.js';
import { heldOutFiles, trainFiles } from '../recipe/data-files.js';
import { loadRecipe } from '../recipe/load.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import { checkPage } from './check-page.js';

export interface CheckDataOptions {
  /** Row format of files; default auto. */
  readonly format?: string;
  readonly tokenizer?: string;
  readonly maxTokens: number;
  readonly onLong?: RowSettings['onLong'];
  readonly ignore?: readonly string[];
  readonly markup?: RowSettings['markup'];
  readonly samples: number;
  /** Held-out rows beside files: checked as they are, and for rows that stand in both. A recipe names its own. */
  readonly heldOut?: string | readonly string[];
  /** Most rows of each file. */
  readonly limit?: number;
  /** Also write what was found as a page. */
  readonly html?: string;
  readonly onProgress?: (rows: number) => void;
  readonly signal?: AbortSignal;
}

export interface CheckDataRequest extends Omit<CheckDataOptions, 'signal' | 'onProgress'> {
  /** Files, patterns or folders of rows, or one recipe (.yaml, .yml). */
  readonly paths: readonly string[];
}

interface Wanted {
  readonly train: readonly DataFile[];
  readonly heldOut: readonly DataFile[];
  readonly context: LoadContext;
  close(): void;
}

function ofRecipe(path: string, signal: { readonly signal?: AbortSignal }): Wanted {
  const { recipe } = loadRecipe(path);
  const config = recipe.model.init ?? readConfig(recipe.model.base ?? '');
  const tokenizer = lazyTokenizer(recipe, config.vocab_size);
  return {
    train: trainFiles(recipe.data),
    heldOut: heldOutFiles(recipe.data),
    context: {
      tokenizer: tokenizer.get,
      vocabSize: config.vocab_size,
      ...rowSettings(recipe.data),
      positions: config.max_position_embeddings,
      ...signal,
    },
    close: () => tokenizer.close(),
  };
}

function ofFiles(options: CheckDataRequest, signal: { readonly signal?: AbortSignal }): Wanted {
  const at = options.tokenizer;
  let loaded: Tokenizer | undefined;
  const get = at === undefined ? null : (): Tokenizer => (loaded ??= loadTokenizer(at));
  const file = (path: string): DataFile => ({
    path,
    format: options.format ?? 'auto',
    ...(options.limit === undefined ? {} : { limit: options.limit }),
  });
  return {
    train: options.paths.map(file),
    heldOut: [options.heldOut ?? []].flat().map(file),
    context: {
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
    },
    close: () => loaded?.close(),
  };
}

/** What is quick needs no progress. */
const SAID_AFTER_MS = 2000;

/** @param remembered held-out rows that are held at a time; where there are more, all rows are read again */
export async function checkFiles(
  options: CheckDataRequest,
  { signal, emit }: { readonly signal?: AbortSignal; readonly emit?: (event: { readonly rows: number }) => void } = {},
  remembered?: number,
): Promise<FileCheck[]> {
  const [first = '', ...more] = options.paths;
  const isRecipe = more.length === 0 && /\.ya?ml$/i.test(first);
  if (isRecipe && options.heldOut !== undefined)
    throw new ConfigError(
      'bad_option',
      `${first}: a recipe names its held-out rows itself, as data.eval; leave --eval out`,
      { path: first, heldOut: options.heldOut },
    );
  checkOutputs({ '--html': options.html }, { files: [...options.paths, ...[options.heldOut ?? []].flat()] });
  const wanted = isRecipe
    ? ofRecipe(resolve(first), signal ? { signal } : {})
    : ofFiles(options, signal ? { signal } : {});
  const began = performance.now();
  let done = 0;
  const progress = (): ((rows: number) => void) => {
    const before = done;
    return (rows) => {
      done = before + rows;
      if (performance.now() - began > SAID_AFTER_MS) emit?.({ rows: done });
    };
  };
  const { train, heldOut, context } = wanted;
  try {
    // Held-out rows first: those to train on are compared with them as they go by.
    const search = heldOut.length > 0 ? new LeakSearch(await rowHash(true), heldOut.length, remembered) : null;
    const check = (file: DataFile, onRow: RowHooks['onRow']): Promise<FileCheck> =>
      checkFile(file, context, { samples: options.samples, onProgress: progress(), ...(onRow ? { onRow } : {}) });
    const [outs, ins]: [FileCheck[], FileCheck[]] = [[], []];
    for (const [i, file] of heldOut.entries()) outs.push(await check(file, (row) => search?.heldOut(i, row)));
    for (const file of train) ins.push(await check(file, search ? (row) => search.trained(row) : undefined));
    while (search?.more()) {
      for (const [i, file] of heldOut.entries())
        await rowsAgain(file, context, progress(), (r) => search.heldOut(i, r));
      for (const file of train) await rowsAgain(file, context, progress(), (row) => search.trained(row));
    }
    const files = [...ins, ...outs.map((out, i) => withLeakage(out, (search as LeakSearch).result(i)))];
    if (options.html !== undefined) writeFileAtomic(options.html, checkPage(files));
    return files;
  } finally {
    wanted.close();
  }
}

/** Good rows of a file that was checked before. */
async function rowsAgain(
  file: DataFile,
  context: LoadContext,
  onProgress: (rows: number) => void,
  onRow: (row: PlacedRow) => void,
): Promise<void> {
  let rows = 0;
  const stream = streamExamples(file, context, {
    withoutTokens: context.tokenizer === null,
    onBad: () => {},
    onRow: (row) => {
      onRow(row);
      if (++rows % 4096 === 0) onProgress(rows);
    },
  });
  while (!(await stream.next()).done);
}

function withLeakage(out: FileCheck, leakage: Leakage): FileCheck {
  const { same, exact: count, rows: of } = leakage;
  return { ...out, leakage, overlap: same && { count, of, first: same } };
}

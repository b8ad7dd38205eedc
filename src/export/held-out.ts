// Loss on held-out rows of several models, each on the same rows: what a merge kept of what training gained.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { CheckpointError } from '../base/errors.js';
import { samplesAt } from '../data/example.js';
import { formatOf } from '../data/examples.js';
import { dataFiles } from '../data/files.js';
import { type DataFile, type LoadContext, loadDataset, rowSettings } from '../data/load.js';
import { type PackedBatch, packBatch, packLengths } from '../data/pack.js';
import { AUTO } from '../data/recognise.js';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';
import { lossAndGradients } from '../model/gpt-oss.js';
import type { ModelAdapter, ModelWeights } from '../model/types.js';
import { type Objective, objectiveOf, sft } from '../objectives/objective.js';
import { answerSums } from '../objectives/pairs.js';
import { heldOutFiles } from '../recipe/data-files.js';
import type { Recipe } from '../recipe/schema.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import type { ExportSource } from './format.js';

/** Where no recipe says how much of a row is read, and how many tokens are one batch. */
const DEFAULT_TOKENS = 2048;

export interface HeldOut {
  readonly batches: readonly PackedBatch[];
  readonly tokens: number;
  readonly objective: Objective;
  readonly precision: 'f32' | 'bf16';
  /** Where they are from, for people. */
  readonly from: string;
}

/** How rows are read where there is no run to say. */
const PLAIN: Omit<LoadContext, 'tokenizer' | 'vocabSize'> = {
  maxTokens: DEFAULT_TOKENS,
  loss: { analysis: 1, commentary: 1, final: 1 },
  onLong: 'drop',
};

/** Files that the path names are there. */
function isThere(path: string): boolean {
  try {
    return dataFiles(path).every((file) => existsSync(file));
  } catch {
    return false;
  }
}

/** That of the run where the rows are of its kind, pairs or not. */
async function objectiveFor(recipe: Recipe | null, rows: string | undefined, signal?: AbortSignal): Promise<Objective> {
  const own = recipe ? objectiveOf(recipe) : sft;
  if (rows === undefined) return own;
  const { format } = await formatOf({ path: rows, format: AUTO }, signal);
  return own.examplesPerSample === (format.examplesPerSample ?? 1) ? own : sft;
}

/**
 * Rows that the run holds out (data.eval, data.split), or those of `rows`, whose format is told by the first ones, up
 * to `maxTokens` tokens in whole batches.
 * @returns null: there are none, or none are wanted
 * @throws {DataError} `rows` cannot be read, or are of no format
 */
export async function heldOutRows(
  source: ExportSource,
  rows: string | undefined,
  maxTokens: number,
  signal?: AbortSignal,
): Promise<HeldOut | null> {
  if (maxTokens === 0) return null;
  const { origin, base } = source;
  const recipe = origin.kind === 'run' ? origin.recipe : null;
  const files: readonly DataFile[] =
    rows === undefined ? (recipe ? heldOutFiles(recipe.data) : []) : [{ path: rows, format: AUTO }];
  // What was trained stands without its rows: then there is nothing to measure with.
  if (files.length === 0 || (rows === undefined && !files.every((f) => isThere(f.path)))) return null;
  const objective = await objectiveFor(recipe, rows, signal);
  const per = objective.examplesPerSample;
  const vocabSize = base.config.vocab_size;
  const own = recipe ? lazyTokenizer(recipe, vocabSize) : folderTokenizer(base.dir, vocabSize);
  try {
    const { examples } = await loadDataset(files, {
      tokenizer: own.get,
      vocabSize,
      ...(recipe ? rowSettings(recipe.data) : PLAIN),
      positions: base.config.max_position_embeddings,
      examplesPerSample: per,
      ...(signal ? { signal } : {}),
    });
    const batches: PackedBatch[] = [];
    let tokens = 0;
    const atOnce = Math.min(recipe?.train.tokensPerBatch ?? recipe?.data.maxTokens ?? DEFAULT_TOKENS, maxTokens);
    for (const bin of packLengths(examples.inputLengths(per), atOnce, recipe?.data.packing ?? true)) {
      const packed = packBatch(samplesAt(examples, bin, per));
      if (batches.length > 0 && tokens + packed.batch.tokens.length > maxTokens) break;
      batches.push(packed);
      tokens += packed.batch.tokens.length;
    }
    const precision = recipe?.train.precision ?? 'f32';
    return batches.length === 0
      ? null
      : { batches, tokens, objective, precision, from: files.map((f) => f.path).join(', ') };
  } finally {
    own.close();
  }
}

function folderTokenizer(folder: string, vocabSize: number): { readonly get: (() => Tokenizer) | null; close(): void } {
  let loaded: Tokenizer | undefined;
  const there = existsSync(join(folder, 'tokenizer.json'));
  return {
    get: there ? (): Tokenizer => (loaded ??= loadTokenizer(folder, { vocabSize })) : null,
    close: () => loaded?.close(),
  };
}

/** nll of every target, batch by batch. */
export async function nllOf(
  model: ModelWeights,
  adapter: ModelAdapter | null,
  { batches, precision }: HeldOut,
  onBatch: (done: number) => void,
  signal?: AbortSignal,
): Promise<readonly Float32Array[]> {
  const out: Float32Array[] = [];
  for (const { batch, targets } of batches) {
    await setImmediate(); // lets messages in; native calls block this thread
    signal?.throwIfAborted();
    out.push(
      lossAndGradients(model, adapter, batch, targets, { precision, seed: 0, grads: null, gradients: false }).nll,
    );
    onBatch(out.length);
  }
  return out;
}

/** What training minimised, of these nll; of an objective that compares, beside the base's. */
export function lossOf(
  { batches, objective }: HeldOut,
  nll: readonly Float32Array[],
  base: readonly Float32Array[],
): number {
  let [sum, weights] = [0, 0];
  batches.forEach((packed, b) => {
    const values = nll[b] ?? new Float32Array();
    if (values.some((x) => !Number.isFinite(x)))
      throw new CheckpointError('bad_loss', 'the loss of held-out rows is not finite: the weights are broken');
    if (objective.judge) {
      sum += objective.judge(packed, values, answerSums(packed, base[b] ?? values)).loss;
      weights += packed.examples.length / 2;
      return;
    }
    values.forEach((x, i) => {
      const w = packed.targets.weights[i] ?? 0;
      sum += w * x;
      weights += w;
    });
  });
  return sum / weights;
}

// Held-out loss, in all and per channel, on the thread it is called on (worker.ts puts it off the main one).

import { setImmediate } from 'node:timers/promises';
import { sha256File } from '../base/digest.js';
import { CheckpointError, ConfigError, IntegrityError } from '../base/errors.js';
import { CHANNELS, type ChannelName, samplesAt } from '../data/example.js';
import { type FileSummary, loadDataset, rowSettings } from '../data/load.js';
import { type PackedBatch, packBatch, packLengths } from '../data/pack.js';
import { applyAdapter } from '../lora/apply.js';
import { readPeft } from '../lora/peft.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { lossAndGradients } from '../model/gpt-oss.js';
import type { ModelAdapter, ModelWeights } from '../model/types.js';
import { HOST } from '../native/backends.js';
import type { Device } from '../native/device.js';
import { type Objective, objectiveOf } from '../objectives/objective.js';
import { answerSums, exampleOfTargets } from '../objectives/pairs.js';
import { heldOutFiles } from '../recipe/data-files.js';
import { onRecipeDevice } from '../recipe/place.js';
import type { Recipe } from '../recipe/schema.js';
import { lazyTokenizer, tokenizerFile } from '../recipe/tokenizer.js';
import { checkAdapterBase } from '../runs/adapter-base.js';
import { readRun } from '../runs/run-folder.js';
import { resolveTrained } from '../runs/trained.js';

export interface EvalRequest {
  readonly path: string;
  readonly set?: readonly string[];
  /** PEFT folder in place of the run's or recipe's own. */
  readonly adapter?: string;
}
export interface EvalLoss {
  /** Σ weight·nll / Σ weight over all eval files, nats; of pairs, over the chosen answers. */
  readonly loss: number;
  /** Mean nll of the trained tokens of each channel, unweighted, nats. */
  readonly channels: Readonly<Partial<Record<ChannelName, { readonly loss: number; readonly tokens: number }>>>;
  /** Tokens of the rows, and those of them that the loss is about: their weight is above 0. */
  readonly tokens: number;
  readonly weightedTokens: number;
  /**
   * Methods on pairs: loss of the pairs, share of those preferred as wanted, mean margin and rewards of both answers,
   * as in metrics.jsonl; null for other methods.
   */
  readonly preference: {
    readonly pairs: number;
    readonly loss: number;
    readonly accuracy: number;
    readonly margin: number;
    readonly rewardChosen: number;
    readonly rewardRejected: number;
  } | null;
  readonly files: readonly FileSummary[];
  readonly model: string;
  readonly adapter: string | null;
  readonly device: Device;
}

/** Batches so far, and in all. */
export interface EvalProgress {
  readonly done: number;
  readonly total: number;
}

/** Sums over the batches. */
class Tally {
  readonly #channels = CHANNELS.map(() => ({ nll: 0, tokens: 0 }));
  #weighted = 0;
  #weights = 0;
  #tokens = 0;
  #counted = 0;
  #pairs = 0;
  readonly #judged = { loss: 0, accuracy: 0, margin: 0, rewardChosen: 0, rewardRejected: 0 };
  constructor(readonly objective: Objective) {}

  /** @param reference nll under the base alone, asked for where the objective compares */
  add(packed: PackedBatch, nll: Float32Array, reference: () => Float32Array): void {
    const { batch, targets, channels } = packed;
    const { judge, examplesPerSample, compares } = this.objective;
    // Of a pair the chosen answer alone is what the model should say.
    const of = examplesPerSample === 2 ? exampleOfTargets(batch.starts, targets.rows) : null;
    for (let i = 0; i < nll.length; i++) {
      if (of && (of[i] ?? 0) % 2 === 1) continue;
      const value = nll[i] ?? 0,
        w = targets.weights[i] ?? 0;
      this.#weighted += w * value;
      this.#weights += w;
      this.#counted++;
      const s = this.#channels[channels[i] ?? 0];
      if (s) {
        s.nll += value;
        s.tokens++;
      }
    }
    this.#tokens += batch.tokens.length;
    if (!judge) return;
    const { loss, figures } = judge(packed, nll, compares ? answerSums(packed, reference()) : new Float64Array());
    this.#pairs += packed.examples.length / 2;
    const judged = this.#judged;
    judged.loss += loss;
    for (const name of ['accuracy', 'margin', 'rewardChosen', 'rewardRejected'] as const)
      judged[name] += figures?.[name] ?? 0;
  }

  result(): Pick<EvalLoss, 'loss' | 'channels' | 'tokens' | 'weightedTokens' | 'preference'> {
    const channels = Object.fromEntries(
      CHANNELS.map((name, i) => [name, this.#channels[i] ?? { nll: 0, tokens: 0 }] as const)
        .filter(([, s]) => s.tokens > 0)
        .map(([name, s]) => [name, { loss: s.nll / s.tokens, tokens: s.tokens }]),
    );
    const n = this.#pairs,
      { loss, accuracy, margin, rewardChosen, rewardRejected } = this.#judged;
    return {
      loss: this.#weighted / this.#weights,
      channels,
      tokens: this.#tokens,
      weightedTokens: this.#counted,
      preference:
        n > 0
          ? {
              pairs: n,
              loss: loss / n,
              accuracy: accuracy / n,
              margin: margin / n,
              rewardChosen: rewardChosen / n,
              rewardRejected: rewardRejected / n,
            }
          : null,
    };
  }
}

/** @throws {IntegrityError} base_changed: rows would become other tokens than those that the run was trained on */
async function checkRunTokenizer(run: string, recipe: Recipe, signal?: AbortSignal): Promise<void> {
  const wanted = readRun(run)?.digests.tokenizer,
    file = tokenizerFile(recipe);
  if (!wanted || !file) return;
  const got = await sha256File(file, signal ? { signal } : {});
  if (got !== wanted)
    throw new IntegrityError(
      'base_changed',
      `${file}: digest is ${got.slice(0, 12)}, the run was trained with ${wanted.slice(0, 12)}: ` +
        'the tokenizer changed ' +
        'since; bring that one back',
      { file, got, wanted },
    );
}

/** @throws {CheckpointError} bad_loss: no figure may come of weights that give none */
function requireFinite(nll: Float32Array, { examples }: PackedBatch, path: string): void {
  const bad = nll.find((x) => !Number.isFinite(x));
  if (bad === undefined) return;
  const { file, line } = examples[0]?.source ?? { file: '', line: 0 };
  throw new CheckpointError(
    'bad_loss',
    `${path}: the loss of held-out rows (${file}:${line}${examples.length > 1 ? ' and others' : ''}) is ${bad}: the ` +
      'weights or the adapter are broken; take an earlier checkpoint, or train again with a lower learning rate',
    { file, line },
  );
}

/** @throws {ConfigError} the recipe has no data.eval · {CheckpointError} bad_loss · the signal's reason */
export async function evaluateLoss(
  request: EvalRequest,
  hooks: { readonly onProgress?: (progress: EvalProgress) => void; readonly signal?: AbortSignal } = {},
): Promise<EvalLoss> {
  const found = resolveTrained(request.path, request.set);
  const { recipe, model } = found;
  const adapterAt = request.adapter ?? found.adapter;
  const files = heldOutFiles(recipe.data);
  if (files.length === 0)
    throw new ConfigError(
      'no_eval_data',
      `${request.path}: the recipe names no held-out rows; give data.eval or data.split`,
      {
        path: request.path,
      },
    );
  const { base, adapter, device } = onRecipeDevice(recipe, (on) => {
    const { place } = on,
      opened = openCheckpoint(model, { place, embed: HOST });
    try {
      return { base: opened, adapter: adapterAt ? readPeft(adapterAt, opened.config, { place }) : null, device: on };
    } catch (e) {
      opened.close();
      throw e;
    }
  });
  try {
    const { config } = base;
    if (adapterAt) await checkAdapterBase(adapterAt, model, hooks.signal);
    if (found.run) await checkRunTokenizer(found.run, recipe, hooks.signal);
    const tokenizer = lazyTokenizer(recipe, config.vocab_size);
    const objective = objectiveOf(recipe),
      per = objective.examplesPerSample;
    try {
      const data = await loadDataset(files, {
        tokenizer: tokenizer.get,
        vocabSize: config.vocab_size,
        ...rowSettings(recipe.data),
        positions: config.max_position_embeddings,
        examplesPerSample: per,
        ...(hooks.signal ? { signal: hooks.signal } : {}),
      });
      using applied = applyAdapter(base, adapter);
      const nllOf = (packed: PackedBatch, model: ModelWeights, added: ModelAdapter | null): Float32Array =>
        lossAndGradients(model, added, packed.batch, packed.targets, {
          precision: recipe.train.precision,
          seed: 0,
          grads: null,
          gradients: false,
        }).nll;
      const tally = new Tally(objective);
      const bins = packLengths(
        data.examples.inputLengths(per),
        recipe.train.tokensPerBatch ?? recipe.data.maxTokens,
        recipe.data.packing,
      );
      for (const [b, bin] of bins.entries()) {
        await setImmediate(); // lets messages in; native calls block this thread
        hooks.signal?.throwIfAborted();
        const packed = packBatch(samplesAt(data.examples, bin, per));
        const nll = nllOf(packed, applied.model, applied.adapter);
        requireFinite(nll, packed, request.path);
        tally.add(packed, nll, () => (adapter ? nllOf(packed, base, null) : nll));
        hooks.onProgress?.({ done: b + 1, total: bins.length });
      }
      return { ...tally.result(), files: data.files, model, adapter: adapterAt, device };
    } finally {
      adapter?.close();
      tokenizer.close();
    }
  } finally {
    base.close();
  }
}

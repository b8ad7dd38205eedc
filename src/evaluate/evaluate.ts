// Held-out loss, in all and per channel, and exact match of generated answers. Generation is passed in.

import { ConfigError } from '../base/errors.js';
import { CHANNELS, type ChannelName, type Prompt } from '../data/example.js';
import { type FileSummary, loadDataset } from '../data/load.js';
import { fillBins, packBatch } from '../data/pack.js';
import type { Message } from '../harmony/types.js';
import { readPeft } from '../lora/peft.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { lossAndGradients } from '../model/gpt-oss.js';
import { recipePlace } from '../recipe/place.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import { resolveTrained } from '../runs/trained.js';

export interface EvalRequest {
  readonly path: string;
  readonly set?: readonly string[] /** PEFT folder in place of the run's or recipe's own. */;
  readonly adapter?: string;
}
export interface EvalLoss {
  /** Σ weight·nll / Σ weight over all eval files, nats. */
  readonly loss: number;
  /** Mean nll of the trained tokens of each channel, unweighted, nats. */
  readonly channels: Readonly<Partial<Record<ChannelName, { readonly loss: number; readonly tokens: number }>>>;
  readonly tokens: number;
  readonly files: readonly FileSummary[];
  readonly model: string;
  readonly adapter: string | null;
}

/** @throws {ConfigError} the recipe has no data.eval */
export async function evaluateLoss(
  request: EvalRequest,
  hooks: { readonly onProgress?: (done: number, total: number) => void; readonly stopped?: () => boolean } = {},
): Promise<EvalLoss> {
  const found = resolveTrained(request.path, request.set);
  const { recipe, model } = found;
  const adapterAt = request.adapter ?? found.adapter;
  if (recipe.data.eval.length === 0)
    throw new ConfigError('no_eval_data', `${request.path}: the recipe names no held-out rows; give data.eval`, {
      path: request.path,
    });
  const place = recipePlace(recipe),
    base = openCheckpoint(model, { place, embed: 'cpu' });
  try {
    const { config } = base;
    const adapter = adapterAt ? readPeft(adapterAt, config, { place }) : null;
    const tokenizer = lazyTokenizer(recipe, config.vocab_size);
    try {
      const data = await loadDataset(recipe.data.eval, {
        tokenizer: tokenizer.get,
        vocabSize: config.vocab_size,
        maxTokens: recipe.data.maxTokens,
        loss: recipe.data.loss,
      });
      const sums = CHANNELS.map(() => ({ nll: 0, tokens: 0 }));
      let weighted = 0,
        weights = 0,
        tokens = 0;
      const bins = fillBins(data.examples, recipe.train.tokensPerBatch ?? recipe.data.maxTokens, recipe.data.packing);
      for (const [b, bin] of bins.entries()) {
        await new Promise((next) => setImmediate(next));
        if (hooks.stopped?.()) throw new DOMException('interrupted', 'AbortError');
        const { batch, targets, channels } = packBatch(bin);
        const { nll } = lossAndGradients(base, adapter?.model ?? null, batch, targets, {
          precision: recipe.train.precision,
          seed: 0,
          grads: null,
          gradients: false,
        });
        for (let i = 0; i < nll.length; i++) {
          const value = nll[i] ?? 0,
            w = targets.weights[i] ?? 0;
          weighted += w * value;
          weights += w;
          const s = sums[channels[i] ?? 0];
          if (s) {
            s.nll += value;
            s.tokens++;
          }
        }
        tokens += batch.tokens.length;
        hooks.onProgress?.(b + 1, bins.length);
      }
      const channels = Object.fromEntries(
        CHANNELS.map((name, i) => [name, sums[i] ?? { nll: 0, tokens: 0 }] as const)
          .filter(([, s]) => s.tokens > 0)
          .map(([name, s]) => [name, { loss: s.nll / s.tokens, tokens: s.tokens }]),
      );
      return { loss: weighted / weights, channels, tokens, files: data.files, model, adapter: adapterAt };
    } finally {
      adapter?.close();
      tokenizer.close();
    }
  } finally {
    base.close();
  }
}

/** Answers a conversation with the text of its final channel; null when the model gave none. */
export type GenerateFinal = (messages: readonly Message[], signal?: AbortSignal) => Promise<string | null>;
export interface ExactMatch {
  readonly rows: number;
  readonly matches: number;
  readonly rate: number;
  readonly misses: readonly { readonly line: number; readonly expected: string; readonly got: string | null }[];
}

/**
 * Share of prompts whose generated final is the expected text, character for character but for white space around it.
 */
export async function exactMatch(
  prompts: readonly Prompt[],
  generate: GenerateFinal,
  options: {
    readonly concurrency?: number;
    readonly signal?: AbortSignal;
    readonly onProgress?: (done: number, matches: number) => void;
    readonly maxMisses?: number;
  } = {},
): Promise<ExactMatch> {
  const { concurrency = 8, signal, onProgress, maxMisses = 20 } = options;
  const misses: { line: number; expected: string; got: string | null }[] = [];
  let next = 0,
    done = 0,
    matches = 0;
  const work = async (): Promise<void> => {
    for (;;) {
      const prompt = prompts[next++];
      if (!prompt) return;
      signal?.throwIfAborted();
      const got = await generate(prompt.messages, signal);
      done++;
      if (got !== null && got.trim() === prompt.expected.trim()) matches++;
      else misses.push({ line: prompt.source.line, expected: prompt.expected, got });
      onProgress?.(done, matches);
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, prompts.length) }, work));
  misses.sort((a, b) => a.line - b.line);
  return {
    rows: prompts.length,
    matches,
    rate: prompts.length ? matches / prompts.length : Number.NaN,
    misses: misses.slice(0, maxMisses),
  };
}

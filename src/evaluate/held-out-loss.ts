// Held-out loss, in all and per channel, on the thread it is called on (worker.ts puts it off the main one).

import { setImmediate } from 'node:timers/promises';
import { ConfigError } from '../base/errors.js';
import { CHANNELS, type ChannelName, type Example } from '../data/example.js';
import { type FileSummary, loadDataset } from '../data/load.js';
import { packBatch, packLengths } from '../data/pack.js';
import { readPeft } from '../lora/peft.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { lossAndGradients } from '../model/gpt-oss.js';
import { HOST } from '../native/backends.js';
import type { Device } from '../native/device.js';
import { onRecipeDevice } from '../recipe/place.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import { resolveTrained } from '../runs/trained.js';

export interface EvalRequest {
  readonly path: string;
  readonly set?: readonly string[];
  /** PEFT folder in place of the run's or recipe's own. */
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
  readonly device: Device;
}

/** Batches so far, and in all. */
export interface EvalProgress {
  readonly done: number;
  readonly total: number;
}

/** @throws {ConfigError} the recipe has no data.eval · the signal's reason */
export async function evaluateLoss(
  request: EvalRequest,
  hooks: { readonly onProgress?: (progress: EvalProgress) => void; readonly signal?: AbortSignal } = {},
): Promise<EvalLoss> {
  const found = resolveTrained(request.path, request.set);
  const { recipe, model } = found;
  const adapterAt = request.adapter ?? found.adapter;
  if (recipe.data.eval.length === 0)
    throw new ConfigError('no_eval_data', `${request.path}: the recipe names no held-out rows; give data.eval`, {
      path: request.path,
    });
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
    const tokenizer = lazyTokenizer(recipe, config.vocab_size);
    try {
      const data = await loadDataset(recipe.data.eval, {
        tokenizer: tokenizer.get,
        vocabSize: config.vocab_size,
        maxTokens: recipe.data.maxTokens,
        loss: recipe.data.loss,
        ...(hooks.signal ? { signal: hooks.signal } : {}),
      });
      const sums = CHANNELS.map(() => ({ nll: 0, tokens: 0 }));
      let weighted = 0,
        weights = 0,
        tokens = 0;
      const bins = packLengths(
        data.examples.inputLengths(),
        recipe.train.tokensPerBatch ?? recipe.data.maxTokens,
        recipe.data.packing,
      );
      for (const [b, bin] of bins.entries()) {
        await setImmediate(); // lets messages in; native calls block this thread
        hooks.signal?.throwIfAborted();
        const { batch, targets, channels } = packBatch(bin.map((i) => data.examples.at(i) as Example));
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
        hooks.onProgress?.({ done: b + 1, total: bins.length });
      }
      const channels = Object.fromEntries(
        CHANNELS.map((name, i) => [name, sums[i] ?? { nll: 0, tokens: 0 }] as const)
          .filter(([, s]) => s.tokens > 0)
          .map(([name, s]) => [name, { loss: s.nll / s.tokens, tokens: s.tokens }]),
      );
      return { loss: weighted / weights, channels, tokens, files: data.files, model, adapter: adapterAt, device };
    } finally {
      adapter?.close();
      tokenizer.close();
    }
  } finally {
    base.close();
  }
}

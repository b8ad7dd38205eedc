// What one engine holds: checkpoint and tokenizer; opened together and closed together.

import { ConfigError } from '../base/errors.js';
import { stopTokens } from '../harmony/render.js';
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';
import { type Checkpoint, openCheckpoint } from '../model/checkpoint.js';
import { endTokens } from '../model/generation-config.js';
import { type CacheDigests, cacheDigests, cachedDense, quantizeDense } from '../model/q8.js';
import type { ModelWeights } from '../model/types.js';
import { HOST, type Place } from '../native/backends.js';
import type { EngineOptions } from './protocol.js';

export interface LoadedModel {
  readonly model: ModelWeights;
  readonly tokenizer: Tokenizer;
  /** Ids that end a turn. */
  readonly ends: ReadonlySet<number>;
  close(): void;
}

/**
 * A smaller model that guesses for another.
 * @throws {ConfigError} draft_vocabulary · {CheckpointError} what a file is refused for
 */
export function loadDraft(folder: string, { model, tokenizer }: LoadedModel, place: Place): Checkpoint {
  const draft = openCheckpoint(folder, { place, readAhead: true });
  try {
    const { vocab_size: wanted } = model.config,
      { vocab_size: got } = draft.config;
    const own = loadTokenizer(folder, { vocabSize: got }),
      { digest } = own;
    own.close();
    if (got !== wanted || digest !== tokenizer.digest)
      throw new ConfigError(
        'draft_vocabulary',
        `${folder}: guesses in a vocabulary of ${got} tokens (tokenizer ${digest.slice(0, 12)}), the model has ` +
          `${wanted} (${tokenizer.digest.slice(0, 12)}); wanted a checkpoint with the same tokenizer`,
        { folder },
      );
    return draft;
  } catch (e) {
    draft.close();
    throw e;
  }
}

/** Digests that a cache of 8-bit weights is held to; null: none is wanted. */
export const cacheFor = async (
  { model, denseDtype, denseCache }: Pick<EngineOptions, 'model' | 'denseDtype' | 'denseCache'>,
  signal?: AbortSignal,
): Promise<CacheDigests | null> => (denseDtype === 'q8' && denseCache ? cacheDigests(model, signal) : null);

/**
 * @param place where it computes; the device is open
 * @param digests as cacheFor says: 8-bit weights are kept beside the model
 * @throws {CheckpointError} what a file is refused for; nothing stays open then
 */
export function loadModel(
  options: Pick<EngineOptions, 'model' | 'denseDtype'>,
  place: Place = HOST,
  digests: CacheDigests | null = null,
): LoadedModel {
  const closers: (() => void)[] = [];
  const close = (): void => {
    for (const c of closers.splice(0).reverse()) c();
  };
  try {
    const checkpoint = openCheckpoint(options.model, { place, readAhead: true });
    closers.push(() => checkpoint.close());
    const model =
      options.denseDtype !== 'q8' ? checkpoint : digests ? cachedDense(checkpoint, digests) : quantizeDense(checkpoint);
    closers.push(() => model.close());
    const tokenizer = loadTokenizer(options.model, { vocabSize: model.config.vocab_size });
    closers.push(() => tokenizer.close());
    const ends = new Set([...stopTokens(tokenizer), ...endTokens(options.model, model.config)]);
    return { model, tokenizer, ends, close };
  } catch (e) {
    close();
    throw e;
  }
}

// What one engine holds: checkpoint and tokenizer; opened together and closed together.
import { loadTokenizer } from '../harmony/tokenizer.js';
import type { Tokenizer } from '../harmony/types.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { cachedDense, quantizeDense } from '../model/q8.js';
import type { ModelWeights } from '../model/types.js';
import { HOST, type Place } from '../native/backends.js';
import type { EngineOptions } from './protocol.js';

export interface LoadedModel {
  readonly model: ModelWeights;
  readonly tokenizer: Tokenizer;
  close(): void;
}

/**
 * @param place where it computes; the device is open
 * @throws {CheckpointError} what a file is refused for; nothing stays open then
 */
export function loadModel(
  options: Pick<EngineOptions, 'model' | 'denseDtype' | 'denseCache'>,
  place: Place = HOST,
): LoadedModel {
  const closers: (() => void)[] = [];
  const close = (): void => {
    for (const c of closers.splice(0).reverse()) c();
  };
  try {
    const checkpoint = openCheckpoint(options.model, { place });
    closers.push(() => checkpoint.close());
    const model =
      options.denseDtype !== 'q8'
        ? checkpoint
        : options.denseCache
          ? cachedDense(checkpoint)
          : quantizeDense(checkpoint);
    closers.push(() => model.close());
    const tokenizer = loadTokenizer(options.model, { vocabSize: model.config.vocab_size });
    closers.push(() => tokenizer.close());
    return { model, tokenizer, close };
  } catch (e) {
    close();
    throw e;
  }
}

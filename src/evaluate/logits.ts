// `temper logits` on the thread it is called on (worker.ts puts it off the main one).
import { DataError } from '../base/errors.js';
import { checkOutputs } from '../base/outputs.js';
import { applyAdapter } from '../lora/apply.js';
import { readPeft } from '../lora/peft.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { type LogitsSummary, readTokens, writeLogits } from '../model/logits-file.js';
import { setThreads } from '../native/tensor.js';
import { checkAdapterBase } from '../runs/adapter-base.js';

export interface LogitsRequest {
  /** Checkpoint folder. */
  readonly model: string;
  /** PEFT folder. */
  readonly adapter?: string;
  /** JSON file of token sequences. */
  readonly tokens: string;
  /** Safetensors file that is written. */
  readonly out: string;
  readonly precision: 'f32' | 'bf16';
  readonly threads?: number;
}

/** @throws {DataError} bad_tokens · {CheckpointError} as openCheckpoint and readPeft · the signal's reason */
export async function logitsOf(
  request: LogitsRequest,
  hooks: {
    readonly signal?: AbortSignal;
    readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
  } = {},
): Promise<LogitsSummary> {
  checkOutputs({ '--out': request.out }, { files: [request.tokens], folders: [request.model, request.adapter] });
  if (request.threads) setThreads(request.threads);
  using model = openCheckpoint(request.model);
  const sequences = readTokens(request.tokens, model.config.vocab_size);
  const limit = model.config.max_position_embeddings,
    far = sequences.findIndex(({ tokens }) => tokens.length > limit);
  if (far >= 0)
    throw new DataError(
      'bad_tokens',
      `${request.tokens}: sequence ${far} has ${sequences[far]?.tokens.length} tokens, the ` +
        `model knows ${limit} positions; ` +
        'shorten it',
      { file: request.tokens, sequence: far, limit },
    );
  const adapter = request.adapter === undefined ? null : readPeft(request.adapter, model.config);
  try {
    if (request.adapter !== undefined) await checkAdapterBase(request.adapter, request.model, hooks.signal);
    using applied = applyAdapter(model, adapter);
    return writeLogits(applied.model, applied.adapter, sequences, request.out, {
      precision: request.precision,
      ...(hooks.signal ? { signal: hooks.signal } : {}),
      onProgress: (done) => hooks.onProgress?.({ done, total: sequences.length }),
    });
  } finally {
    adapter?.close();
  }
}

// `temper logits`: logits of given token sequences, for comparison with other implementations. design.md section 5 has
// the file formats.
import { z } from 'zod';
import { DataError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import { type WriteEntry, writeSafetensors } from '../native/safetensors.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { forwardHidden, logits } from './gpt-oss.js';
import type { ModelAdapter, ModelWeights } from './types.js';

const Row = z.int().min(0);
const TokensFile = z.strictObject({
  tokens: z.array(z.array(Row).min(1)).min(1).describe('sequences of token ids'),
  positions: z
    .union([z.array(Row).min(1), z.array(z.array(Row).min(1))])
    .optional()
    .describe('rows wanted: one list for all sequences, or one list per sequence'),
});
export interface TokenSequence {
  readonly tokens: Int32Array;
  readonly rows: Int32Array | null;
}

/**
 * @throws {DataError} bad_tokens: not JSON, not of the format, an id outside the vocabulary, a position outside its
 * sequence
 */
export function readTokens(path: string, vocabSize: number): readonly TokenSequence[] {
  const bad = (what: string): DataError =>
    new DataError('bad_tokens', `${path}: ${what}; wanted {"tokens": [[ids], …], "positions": [rows]?}`, {
      file: path,
    });
  const value = readJsonFile(path, 'tokens', {
    next: 'give a file with {"tokens": [[ids], …], "positions": [rows]?}',
    missing: (message) => new DataError('bad_tokens', message, { file: path }),
    bad,
  });
  const parsed = TokensFile.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw bad(`${issue?.path.join('.') || 'file'}: ${issue?.message ?? 'invalid'}`);
  }
  const { tokens, positions } = parsed.data;
  const perSequence = (positions ?? []).some(Array.isArray);
  if (perSequence && positions?.length !== tokens.length)
    throw bad(`positions has ${positions?.length ?? 0} lists for ${tokens.length} sequences`);
  return tokens.map((ids, i) => {
    const high = ids.find((id) => id >= vocabSize);
    if (high !== undefined) throw bad(`tokens.${i}: id ${high} is outside the vocabulary of ${vocabSize}`);
    const rows = !positions ? null : ((perSequence ? positions[i] : positions) as number[]);
    const far = rows?.find((r) => r >= ids.length);
    if (far !== undefined) throw bad(`positions: row ${far} is outside sequence ${i} of ${ids.length} tokens`);
    return { tokens: Int32Array.from(ids), rows: rows && Int32Array.from(rows) };
  });
}

export interface LogitsSummary {
  readonly sequences: number;
  readonly rows: number;
  readonly bytes: number;
}

/** Rows of logits made at a time: V·64·4 bytes of workspace. */
const ROWS = 64;

/**
 * Runs the sequences, each alone, and writes f32 tensors logits.0, logits.1, …, [rows, V]. The file appears whole or
 * not at all.
 * @throws {DOMException} AbortError
 */
export function writeLogits(
  model: ModelWeights,
  adapter: ModelAdapter | null,
  sequences: readonly TokenSequence[],
  out: string,
  options: {
    readonly precision: 'f32' | 'bf16';
    readonly signal?: AbortSignal;
    readonly onProgress?: (sequences: number) => void;
  },
): LogitsSummary {
  const V = model.config.vocab_size;
  let rows = 0;
  const entries = sequences.map(({ tokens, rows: wanted }, i): WriteEntry => {
    const n = wanted?.length ?? tokens.length;
    rows += n;
    return {
      name: `logits.${i}`,
      dtype: 'F32',
      shape: [n, V],
      data: function* (): Generator<Tensor> {
        options.signal?.throwIfAborted();
        using s = new Scope('activations');
        const positions = Int32Array.from(tokens, (_, j) => j);
        const hidden = forwardHidden(
          s,
          model,
          adapter,
          { tokens, positions, starts: Int32Array.of(0, tokens.length) },
          { precision: options.precision, rows: wanted, ...(options.signal ? { signal: options.signal } : {}) },
        );
        for (let from = 0; from < n; from += ROWS) {
          options.signal?.throwIfAborted();
          using c = new Scope('activations');
          yield logits(c, model, hidden.slice(c, from, Math.min(n, from + ROWS)), options.precision);
        }
        options.onProgress?.(i + 1);
      },
    };
  });
  const bytes = writeSafetensors(out, entries, { precision: options.precision }, options.signal);
  return { sequences: sequences.length, rows, bytes };
}

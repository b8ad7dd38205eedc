// What every dataset row becomes: tokens, and for each the weight of predicting it. The trainer knows nothing else of
// data.
import type { Message } from '../harmony/types.js';

/** Channels a token may be counted under; a token of no channel (headers, other roles, raw tokens) is `none`. */
export const CHANNELS = ['none', 'analysis', 'commentary', 'final'] as const;
export type ChannelName = (typeof CHANNELS)[number];

/** weights[i] is the loss weight of predicting tokens[i] from tokens[0…i−1]; weights[0] is never used. Same length. */
export interface Example {
  readonly tokens: Int32Array;
  readonly weights: Float32Array;
  /** Place in CHANNELS of each token, for reports; absent: all `none`. */
  readonly channels?: Uint8Array;
  /** For error messages: file, and line of a text file or row of a table (from 1). */
  readonly source: { readonly file: string; readonly line: number };
  /** Its number in the dataset, where it was taken out as part of a sample. */
  readonly index?: number;
}

/** Examples by number, however they are kept; an array of them is one too. */
export interface Examples extends Iterable<Example> {
  readonly length: number;
  at(i: number): Example | undefined;
}

/** The examples of samples by number, `per` to a sample, in order. */
export const samplesAt = (examples: Examples, samples: readonly number[], per: number): Example[] =>
  samples.flatMap((i) =>
    Array.from({ length: per }, (_, k) => ({ ...(examples.at(per * i + k) as Example), index: per * i + k })),
  );

/**
 * Inputs an example needs: up to the token before its last trained one. What comes after changes no trained prediction.
 */
export function inputLength(example: Example): number {
  for (let i = example.weights.length - 1; i > 0; i--) if ((example.weights[i] ?? 0) > 0) return i;
  return 0;
}

/**
 * A question with a known answer, for exact match: the conversation up to it, and the final text that should follow.
 */
export interface Prompt {
  readonly messages: readonly Message[];
  readonly expected: string;
  readonly source: { readonly file: string; readonly line: number };
}

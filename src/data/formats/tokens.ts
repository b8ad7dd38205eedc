// Rows already tokenised: {"tokens": […], "weights": […]?}. Needs no tokenizer.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import type { Format, RowExample } from '../format.js';

/**
 * A list of numbers, checked in one loop: zod's own check of each entry takes most of the time of reading a long file.
 */
const numbers = (least: number, wanted: string, ok: (x: number) => boolean) =>
  z.unknown().transform((value, context): readonly number[] => {
    const issue = (path: number[], message: string): readonly number[] => {
      context.addIssue({ code: 'custom', path, message });
      return z.NEVER;
    };
    if (!Array.isArray(value) || value.length < least) return issue([], `wanted a list of at least ${least} numbers`);
    const bad = value.findIndex((x) => typeof x !== 'number' || !ok(x));
    return bad < 0 ? (value as number[]) : issue([bad], `got ${JSON.stringify(value[bad])}, wanted ${wanted}`);
  });

export const tokensRow = z.strictObject({
  tokens: numbers(2, 'a token id', (x) => Number.isInteger(x) && x >= 0 && x < 2 ** 31).describe('token ids'),
  weights: numbers(0, 'a weight from 0 to 1e6', (x) => x >= 0 && x <= 1e6)
    .optional()
    .describe('loss weight of predicting each token; absent: 1'),
});

export type TokensRow = z.infer<typeof tokensRow>;

/** @throws {DataError} weights_length */
export function tokensExample(row: TokensRow): RowExample {
  if (row.weights && row.weights.length !== row.tokens.length)
    throw new DataError(
      'weights_length',
      `weights has ${row.weights.length} entries, tokens ${row.tokens.length}; give one weight per token`,
    );
  const weights = row.weights ? Float32Array.from(row.weights) : new Float32Array(row.tokens.length).fill(1);
  return { tokens: Int32Array.from(row.tokens), weights };
}

export const tokens: Format<TokensRow> = {
  name: 'tokens',
  row: tokensRow,
  recognise: (r) => (Array.isArray(r.tokens) ? 'tokens' : null),
  toExamples: (row) => [tokensExample(row)],
};

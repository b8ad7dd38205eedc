// Rows already tokenised: {"tokens": […], "weights": […]?}. Needs no tokenizer.
import { z } from 'zod';
import { DataError } from '../../base/errors.js';
import type { Format } from '../format.js';

const Row = z.strictObject({
  tokens: z
    .array(
      z
        .int()
        .min(0)
        .max(2 ** 31 - 1),
    )
    .min(2)
    .describe('token ids'),
  weights: z
    .array(z.number().min(0).max(1e6))
    .optional()
    .describe('weights[i]: loss weight of predicting tokens[i]; absent: 1'),
});

export const tokens: Format<z.infer<typeof Row>> = {
  name: 'tokens',
  row: Row,
  toExamples(row) {
    if (row.weights && row.weights.length !== row.tokens.length)
      throw new DataError(
        'weights_length',
        `weights has ${row.weights.length} entries, tokens ${row.tokens.length}; give one weight per token`,
      );
    const weights = row.weights ? Float32Array.from(row.weights) : new Float32Array(row.tokens.length).fill(1);
    return [{ tokens: Int32Array.from(row.tokens), weights }];
  },
};

// What /v1/completions answers, whole and in pieces alike.
import { z } from 'zod';
import { ownOfMany, UsageShape } from './wire-shared.js';

export const CompletionShape = z
  .object({
    id: z.string(),
    object: z.literal('text_completion'),
    created: z.int(),
    model: z.string(),
    choices: z.array(
      z.object({
        index: z.int(),
        text: z.string(),
        logprobs: z
          .object({
            tokens: z.array(z.string()),
            token_logprobs: z.array(z.number().nullable()).describe('null: the first token of a prompt'),
            top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
            text_offset: z.array(z.int()),
          })
          .nullable(),
        finish_reason: z.enum(['stop', 'length', 'content_filter']).nullable().describe('null: it goes on'),
      }),
    ),
    usage: UsageShape.optional(),
    ...ownOfMany,
  })
  .meta({ id: 'Completion' });

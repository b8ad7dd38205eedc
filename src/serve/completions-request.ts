// The body of POST /v1/completions.
import { z } from 'zod';
import { MAX_TOP_LOGPROBS } from '../infer/protocol.js';
import { badRequest } from './api-error.js';
import type { Generation } from './generation.js';
import { flag, parseBody, samplingFields, samplingOf, steeringFields, steeringOf } from './request-fields.js';

const text = z.string();
const tokens = z
  .array(
    z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  )
  .min(1);
export const CompletionBody = z.strictObject({
  model: z.string(),
  prompt: z
    .union([text, tokens, z.array(text), z.array(tokens)])
    .nullish()
    .describe('one text or one list of tokens; none: as a document begins'),
  max_tokens: z.int().min(1).nullish().describe('default 16'),
  ...samplingFields,
  stop: steeringFields.stop,
  logit_bias: steeringFields.logit_bias,
  logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).nullish().describe('so many others beside each token'),
  stream: flag,
  stream_options: z.strictObject({ include_usage: flag, include_obfuscation: flag }).nullish(),
});
const UNSUPPORTED = {
  nothing: {
    n: [1],
    best_of: [1],
    echo: [false],
    suffix: [''],
    presence_penalty: [0],
    frequency_penalty: [0],
  },
  readPast: ['user'],
};
/** OpenAI's own default: a text has no end that a model would have to find. */
const DEFAULT_TOKENS = 16;
export interface CompletionRequest extends Generation {
  readonly stream: boolean;
  readonly streamUsage: boolean;
}
/** @throws {ApiError} 400 */
export function readCompletionRequest(json: unknown): CompletionRequest {
  const body = parseBody(json, CompletionBody, UNSUPPORTED);
  const given = body.prompt ?? '';
  const isList = typeof given !== 'string' && typeof given[0] !== 'number';
  if (isList && given.length !== 1)
    throw badRequest('unsupported_parameter', 'prompt: one at a time can be gone on with here', 'prompt');
  const prompt = (isList ? given[0] : given) as string | readonly number[];
  return {
    model: body.model,
    stream: body.stream === true,
    streamUsage: body.stream_options?.include_usage === true,
    request: {
      messages: [],
      prompt: typeof prompt === 'string' ? prompt : Int32Array.from(prompt),
      maxTokens: body.max_tokens ?? DEFAULT_TOKENS,
      sampling: samplingOf(body),
      ...steeringOf({ stop: body.stop, logit_bias: body.logit_bias }),
      ...(typeof body.logprobs === 'number' ? { topLogprobs: body.logprobs } : {}),
    },
  };
}

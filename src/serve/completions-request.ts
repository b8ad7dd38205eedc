// The body of POST /v1/completions.
import { z } from 'zod';
import { MAX_TOP_LOGPROBS } from '../infer/protocol.js';
import { badRequest } from './api-error.js';
import type { Generation } from './generation.js';
import {
  flag,
  parseBody,
  samplingFields,
  samplingOf,
  steeringFields,
  steeringOf,
  type Unsupported,
} from './request-fields.js';

const text = z.string();
const tokens = z
  .array(
    z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  )
  .min(1);
/** Answers to one request, those among them that best_of leaves out. */
const MOST_CHOICES = 128;
const choices = z.int().min(1).max(MOST_CHOICES).nullish();
export const CompletionBody = z.strictObject({
  model: z.string(),
  prompt: z
    .union([text, tokens, z.array(text).min(1), z.array(tokens).min(1)])
    .nullish()
    .describe('texts, or lists of tokens; none: as a document begins'),
  max_tokens: z.int().min(0).nullish().describe('default 16; 0 with echo alone'),
  n: choices.describe('answers to each prompt'),
  best_of: choices.describe('so many are made of each, those of the highest mean log-probability are given'),
  echo: flag.describe('the prompt comes before what is written'),
  ...samplingFields,
  stop: steeringFields.stop,
  logit_bias: steeringFields.logit_bias,
  presence_penalty: steeringFields.presence_penalty,
  frequency_penalty: steeringFields.frequency_penalty,
  repetition_stop: steeringFields.repetition_stop,
  logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).nullish().describe('so many others beside each token'),
  stream: flag,
  stream_options: z.strictObject({ include_usage: flag, include_obfuscation: flag }).nullish(),
});
export const UNSUPPORTED: Unsupported = { nothing: { suffix: [''] }, readPast: ['user'] };
/** OpenAI's own default: a text has no end that a model would have to find. */
const DEFAULT_TOKENS = 16;

export type Prompt = string | Int32Array;
export interface CompletionRequest {
  readonly model: string;
  readonly stream: boolean;
  readonly streamUsage: boolean;
  readonly prompts: readonly Prompt[];
  /** Answers to each prompt that are given, and that are made. */
  readonly n: number;
  readonly bestOf: number;
  readonly echo: boolean;
  /** Tokens of an answer; 0: the prompt alone is given back. */
  readonly maxTokens: number;
  /** Others beside each token; null: no log-probabilities. */
  readonly logprobs: number | null;
  /** What is asked of each. */
  readonly request: Omit<Generation['request'], 'prompt'>;
}
export const generationOf = ({ model, request }: CompletionRequest, prompt: Prompt): Generation => ({
  model,
  request: { ...request, prompt },
});

function promptsOf(given: string | readonly (string | number | readonly number[])[]): readonly Prompt[] {
  if (typeof given === 'string') return [given];
  if (typeof given[0] === 'number') return [Int32Array.from(given as readonly number[])];
  return (given as readonly (string | readonly number[])[]).map((p) =>
    typeof p === 'string' ? p : Int32Array.from(p),
  );
}

/** @throws {ApiError} 400 */
export function readCompletionRequest(json: unknown): CompletionRequest {
  const body = parseBody(json, CompletionBody, UNSUPPORTED);
  const prompts = promptsOf(body.prompt ?? '');
  const refuse = (field: string, why: string): Error => badRequest('invalid_value', `${field}: ${why}`, field);
  const { n: asked, best_of, stream, logprobs: others } = body;
  const [n, echo, maxTokens] = [asked ?? 1, body.echo === true, body.max_tokens ?? DEFAULT_TOKENS];
  const [bestOf, logprobs] = [best_of ?? n, others ?? null];
  if (bestOf < n) throw refuse('best_of', `wanted at least n, ${n}`);
  if (bestOf > n && stream) throw refuse('best_of', 'which answers are the best is known at the end; leave stream out');
  if (prompts.length * bestOf > MOST_CHOICES)
    throw refuse(bestOf > 1 ? 'n' : 'prompt', `${prompts.length * bestOf} answers, at most ${MOST_CHOICES} a request`);
  if (maxTokens === 0 && !echo) throw refuse('max_tokens', 'wanted at least 1 where the prompt is not given back');
  return {
    model: body.model,
    stream: stream === true,
    streamUsage: body.stream_options?.include_usage === true,
    prompts,
    n,
    bestOf,
    echo,
    maxTokens,
    logprobs,
    request: {
      messages: [],
      maxTokens: Math.max(1, maxTokens),
      sampling: samplingOf(body),
      ...steeringOf({ ...body, logprobs: null, top_logprobs: null }),
      ...(logprobs !== null || bestOf > n ? { topLogprobs: logprobs ?? 0 } : {}),
    },
  };
}

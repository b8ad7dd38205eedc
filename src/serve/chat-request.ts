// The body of POST /v1/chat/completions. A field that would change the answer and is not built is refused by name; what
// changes nothing is read past, and stands below.
import { z } from 'zod';
import { toConversation } from '../harmony/chat.js';
import { chatRow } from '../harmony/chat-row.js';
import type { GenerateRequest } from '../infer/protocol.js';
import { badRequest } from './api-error.js';

const flag = z.boolean().nullish();
/** Accepted where they ask for nothing. */
const NOTHING: Readonly<Record<string, readonly unknown[]>> = {
  n: [1],
  logprobs: [false],
  top_logprobs: [0],
  presence_penalty: [0],
  frequency_penalty: [0],
  store: [false],
  modalities: [['text']],
  service_tier: ['auto', 'default'],
  stop: [[], ''],
  logit_bias: [{}],
  functions: [[]],
  function_call: ['none', 'auto'],
  audio: [],
  prediction: [],
  web_search_options: [],
  verbosity: ['medium'],
};
/** They say who asks, and change nothing. */
const READ_PAST = ['user', 'metadata', 'safety_identifier', 'prompt_cache_key', 'prompt_cache_retention'] as const;

const ChatBody = chatRow.extend({
  model: z.string(),
  max_completion_tokens: z.int().min(1).nullish(),
  max_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(0).nullish(),
  min_p: z.number().min(0).lt(1).nullish(),
  seed: z.int().nullish(),
  stream: flag,
  stream_options: z.strictObject({ include_usage: flag, include_obfuscation: flag }).nullish(),
  tool_choice: z.enum(['auto', 'none']).nullish(),
});

export interface ChatRequest {
  readonly model: string;
  readonly stream: boolean;
  /** A last chunk tells the tokens of the whole. */
  readonly streamUsage: boolean;
  readonly generate: GenerateRequest;
}

const isNothing = (name: string, value: unknown): boolean =>
  value === null || (NOTHING[name] ?? []).some((v) => JSON.stringify(v) === JSON.stringify(value));

/** Fields of the API that ask for what is not built. */
function checkUnsupported(body: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const rest: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(body)) {
    if ((READ_PAST as readonly string[]).includes(name)) continue;
    if (!Object.hasOwn(NOTHING, name)) {
      rest[name] = value;
      continue;
    }
    if (!isNothing(name, value))
      throw badRequest('unsupported_parameter', `${name}: this server does not do that yet; leave it out`, name);
  }
  const format = body.response_format as { readonly type?: unknown } | null | undefined;
  if (format && typeof format === 'object' && format.type !== 'text')
    throw badRequest(
      'unsupported_parameter',
      'response_format: this server holds no answer to a schema yet; ask for text',
      'response_format',
    );
  const choice = body.tool_choice;
  if (choice !== null && choice !== undefined && choice !== 'auto' && choice !== 'none')
    throw badRequest(
      'unsupported_parameter',
      'tool_choice: this server forces no call yet; auto and none can be had',
      'tool_choice',
    );
  if (body.parallel_tool_calls === true)
    throw badRequest(
      'unsupported_parameter',
      'parallel_tool_calls: a turn ends with its first call here; leave it out',
      'parallel_tool_calls',
    );
  return rest;
}

/**
 * @param json    of the body, as parseJson makes it
 * @param tokens  most tokens of an answer where the request does not say
 * @param seedOf  a seed where it does not say
 * @throws {ApiError} 400 · {DataError} what makes no conversation
 */
export function readChatRequest(json: unknown, tokens: number, seedOf: () => number): ChatRequest {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw badRequest('invalid_json', 'the body is no JSON object');
  const parsed = ChatBody.safeParse(checkUnsupported(json as Record<string, unknown>));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const unknown = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
    const path = [...(issue?.path ?? []), ...(unknown === undefined ? [] : [unknown])].join('.');
    throw badRequest(
      unknown === undefined ? 'invalid_value' : 'unknown_parameter',
      `${path}: ${unknown === undefined ? issue?.message : 'not known'}`,
      path,
    );
  }
  const { model, stream, stream_options, tool_choice, tools, ...body } = parsed.data;
  const { max_completion_tokens, max_tokens, temperature, top_p, top_k, min_p, seed, ...row } = body;
  const { messages } = toConversation({ ...row, tools: tool_choice === 'none' ? [] : tools });
  return {
    model,
    stream: stream === true,
    streamUsage: stream_options?.include_usage === true,
    generate: {
      messages,
      maxTokens: max_completion_tokens ?? max_tokens ?? tokens,
      sampling: {
        temperature: temperature ?? 1,
        topP: top_p ?? 1,
        topK: top_k ?? 0,
        minP: min_p ?? 0,
        // Any integer is a seed to the API; here it is one of 53 bits.
        seed: seed === null || seed === undefined ? seedOf() : Math.abs(seed),
      },
    },
  };
}

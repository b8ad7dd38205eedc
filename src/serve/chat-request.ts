// The body of POST /v1/chat/completions. A field that would change the answer and is not built is refused by name; what
// changes nothing is read past, and stands below.
import { z } from 'zod';
import { toConversation } from '../harmony/chat.js';
import { chatRow } from '../harmony/chat-row.js';
import { badRequest } from './api-error.js';
import type { Generation } from './generation.js';
import { flag, parseBody, samplingFields, samplingOf } from './request-fields.js';

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

export const ChatBody = chatRow.extend({
  model: z.string(),
  max_completion_tokens: z.int().min(1).nullish(),
  max_tokens: z.int().min(1).nullish(),
  ...samplingFields,
  stream: flag,
  stream_options: z.strictObject({ include_usage: flag, include_obfuscation: flag }).nullish(),
  tool_choice: z.enum(['auto', 'none']).nullish(),
});

export interface ChatRequest extends Generation {
  readonly stream: boolean;
  /** A last chunk tells the tokens of the whole. */
  readonly streamUsage: boolean;
}

/** Values that ask for what is not built. */
function checkValues(body: Readonly<Record<string, unknown>>): void {
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
}

/**
 * @param json   of the body, as parseJson makes it
 * @param tokens most tokens of an answer where the request does not say
 * @throws {ApiError} 400 · {DataError} what makes no conversation
 */
export function readChatRequest(json: unknown, tokens: number): ChatRequest {
  if (typeof json === 'object' && json !== null) checkValues(json as Record<string, unknown>);
  const body = parseBody(json, ChatBody, { nothing: NOTHING, readPast: READ_PAST });
  const { model, stream, stream_options, tool_choice, tools, max_completion_tokens, max_tokens, ...rest } = body;
  const { temperature, top_p, top_k, min_p, seed, ...row } = rest;
  const { messages } = toConversation({ ...row, tools: tool_choice === 'none' ? [] : tools });
  return {
    model,
    stream: stream === true,
    streamUsage: stream_options?.include_usage === true,
    request: {
      messages,
      maxTokens: max_completion_tokens ?? max_tokens ?? tokens,
      sampling: samplingOf({ temperature, top_p, top_k, min_p, seed }),
    },
  };
}

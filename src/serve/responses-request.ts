// The body of POST /v1/responses.
import { z } from 'zod';
import { toConversation } from '../harmony/chat.js';
import type { ChatMessage, ChatRow } from '../harmony/chat-row.js';
import type { Effort } from '../harmony/types.js';
import { MAX_TOP_LOGPROBS } from '../infer/protocol.js';
import { badRequest } from './api-error.js';
import type { Generation } from './generation.js';
import {
  effortField,
  effortOf,
  flag,
  jsonObject,
  metadataField,
  parseBody,
  samplingFields,
  samplingOf,
  type Unsupported,
} from './request-fields.js';
import { type InputItem, type ReferenceItem, requestItem } from './responses-items.js';
import { type Asked, allowedOf, wishOf } from './wish.js';

const functionTool = z.strictObject({
  type: z.literal('function', { error: 'only functions can be called here' }),
  name: z.string(),
  description: z.string().nullish(),
  parameters: jsonObject.nullish(),
  strict: flag,
});
const format = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    name: z.string(),
    description: z.string().nullish(),
    schema: jsonObject,
    strict: flag,
  }),
]);
/** What is told beside the answer where it is asked for. */
export const INCLUDABLE = [
  'reasoning.encrypted_content',
  'message.output_text.logprobs',
  // Of items that there are none of here.
  'file_search_call.results',
  'web_search_call.results',
  'web_search_call.action.sources',
  'code_interpreter_call.outputs',
  'computer_call_output.output.image_url',
  'message.input_image.image_url',
] as const;
export const ResponsesBody = z.strictObject({
  model: z.string(),
  input: z.union([z.string(), z.array(requestItem)]),
  instructions: z.string().nullish(),
  previous_response_id: z.string().nullish(),
  store: flag.describe('default true'),
  max_output_tokens: z.int().min(1).nullish(),
  ...samplingFields,
  reasoning: z
    .strictObject({
      effort: effortField,
      summary: z.enum(['auto', 'concise', 'detailed']).nullish().describe('there are none; read past'),
      generate_summary: z.enum(['auto', 'concise', 'detailed']).nullish(),
    })
    .nullish(),
  tools: z.array(functionTool).nullish(),
  tool_choice: z
    .union([
      z.enum(['auto', 'none', 'required']),
      z.strictObject({ type: z.literal('function'), name: z.string() }),
      z.strictObject({
        type: z.literal('allowed_tools'),
        mode: z.enum(['auto', 'required']),
        tools: z.array(z.strictObject({ type: z.literal('function'), name: z.string() })).min(1),
      }),
    ])
    .nullish(),
  parallel_tool_calls: flag.describe('a turn ends with its first call; read past'),
  text: z
    .strictObject({
      format: format.nullish(),
      verbosity: z.literal('medium').nullish(),
    })
    .nullish(),
  include: z.array(z.enum(INCLUDABLE)).nullish(),
  top_logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).nullish(),
  background: flag.describe('it is made while nobody waits; it must be stored'),
  truncation: z
    .enum(['auto', 'disabled'])
    .nullish()
    .describe('auto: the oldest turns are left out where all do not fit'),
  metadata: metadataField.nullish(),
  stream: flag,
  stream_options: z.strictObject({ include_obfuscation: flag }).nullish(),
});
export const UNSUPPORTED: Unsupported = {
  nothing: {
    conversation: [],
    prompt: [],
    service_tier: ['auto', 'default', 'flex', 'scale', 'priority'],
    context_management: [[]],
    moderation: [],
  },
  readPast: [
    ...['user', 'safety_identifier', 'prompt_cache_key', 'prompt_cache_retention', 'prompt_cache_options'],
    // Of calls to tools of the server, which has none.
    'max_tool_calls',
  ],
};
type Body = z.infer<typeof ResponsesBody>;

/** Messages of a conversation that is gone on with: each answer keeps all of those before it. */
export const MOST_HISTORY = 2000;
export const tooManyMessages = (n: number, field: 'input' | 'previous_response_id'): Error =>
  badRequest('conversation_too_long', `${field}: ${n} messages, at most ${MOST_HISTORY} are gone on with`, field);

export interface ResponsesRequest {
  readonly model: string;
  readonly stream: boolean;
  readonly store: boolean;
  readonly background: boolean;
  /** The oldest turns may be left out. */
  readonly truncates: boolean;
  readonly effort: Effort;
  readonly previous: string | null;
  /** As items, each with what the API's own have beside an id. */
  readonly input: readonly (InputItem | ReferenceItem)[];
  readonly body: Body;
}
/** @throws {ApiError} 400 */
export function readResponsesRequest(json: unknown): ResponsesRequest {
  const body = parseBody(json, ResponsesBody, UNSUPPORTED);
  const { input } = body;
  if (body.background && body.store === false)
    throw badRequest('invalid_value', 'background: it is asked for by its id; leave store out', 'background');
  if (input.length === 0) throw badRequest('invalid_value', 'input: says nothing', 'input');
  return {
    model: body.model,
    stream: body.stream === true,
    store: body.store !== false,
    background: body.background === true,
    truncates: body.truncation === 'auto',
    effort: effortOf(body.reasoning?.effort),
    previous: body.previous_response_id ?? null,
    input: typeof input === 'string' ? [{ type: 'message', role: 'user', content: input }] : input,
    body,
  };
}

/**
 * @param names  of the messages, as errors call them: the fields of the body that they are of
 * @param tokens most of an answer where the request does not say
 * @throws {ApiError} 400 · {DataError} what makes no conversation
 */
export function generationOf(
  { model, body, effort }: ResponsesRequest,
  conversation: readonly ChatMessage[],
  names: ReadonlyMap<ChatMessage, string>,
  tokens: number,
): Generation {
  const { instructions, include } = body;
  const [tools, choice] = toolsOf(body);
  const asked = body.text?.format;
  const tells = (body.top_logprobs ?? 0) > 0 || include?.includes('message.output_text.logprobs') === true;
  const row: ChatRow = {
    messages: [...(instructions ? [{ role: 'developer', content: instructions }] : []), ...conversation],
    reasoning_effort: effort,
    tools: tools.map(({ name, description, parameters, strict }) => ({
      type: 'function',
      function: { name, description, parameters, strict },
    })),
    ...(asked?.type === 'json_schema'
      ? { response_format: { type: 'json_schema', json_schema: withoutType(asked) } }
      : {}),
  };
  const nameOf = (at: number): string => {
    const message = row.messages[at];
    return (message && names.get(message)) ?? 'instructions';
  };
  const wish = wishOf({
    schema:
      asked?.type === 'json_schema' ? asked.schema : asked?.type === 'json_object' ? { type: 'object' } : undefined,
    choice,
    tools,
    stops: false,
    fields: { choice: 'tool_choice', stop: 'stop' },
  });
  return {
    model,
    request: {
      messages: toConversation(row, { skipsEmpty: true, names: { message: nameOf, callId: 'call_id' } }).messages,
      maxTokens: body.max_output_tokens ?? tokens,
      sampling: samplingOf(body),
      ...(tells ? { topLogprobs: body.top_logprobs ?? 0 } : {}),
    },
    tools: tools.map(({ name }) => name),
    sealed: include?.includes('reasoning.encrypted_content') === true,
    ...(wish ? { wish } : {}),
  };
}
/** The tools that may be called, and the choice among them. @throws {ApiError} 400 */
function toolsOf({ tools: given, tool_choice: choice }: Body): [NonNullable<Body['tools']>, Asked['choice']] {
  const tools = given ?? [];
  if (typeof choice !== 'object' || choice === null) return [choice === 'none' ? [] : tools, choice ?? 'auto'];
  if (choice.type === 'function') return [tools, choice];
  const names = choice.tools.map((t) => t.name);
  return [allowedOf(tools, (t) => t.name, names), choice.mode];
}
const withoutType = <T extends { readonly type: string }>({ type: _, ...rest }: T): Omit<T, 'type'> => rest;

// The body of POST /v1/chat/completions. A field that would change the answer and is not built is refused by name; what
// changes nothing is read past, and stands below.
import { z } from 'zod';
import { toConversation } from '../harmony/chat.js';
import { type ChatMessage, chatRow } from '../harmony/chat-row.js';
import { badRequest } from './api-error.js';
import type { Generation } from './generation.js';
import {
  effortField,
  effortOf,
  flag,
  metadataField,
  parseBody,
  samplingFields,
  samplingOf,
  steeringFields,
  steeringOf,
  type Unsupported,
} from './request-fields.js';
import type { StoredChat } from './response-store.js';
import { type Asked, allowedOf, wishOf } from './wish.js';

/** Accepted where they ask for nothing. */
const nothing: Readonly<Record<string, readonly unknown[]>> = {
  modalities: [['text']],
  // Who is to be served first, where that costs more.
  service_tier: ['auto', 'default', 'flex', 'scale', 'priority'],
  functions: [[]],
  function_call: ['none', 'auto'],
  audio: [],
  web_search_options: [],
  verbosity: ['medium'],
  moderation: [],
};
/** They say who asks, and change nothing. */
const readPast: readonly string[] = [
  ...['user', 'safety_identifier', 'prompt_cache_key', 'prompt_cache_retention', 'prompt_cache_options'],
];
export const UNSUPPORTED: Unsupported = { nothing, readPast };
/** Answers to one request. */
export const MOST_CHOICES = 16;

const schemaFormat = chatRow.shape.response_format;
export const ChatBody = chatRow.extend({
  model: z.string(),
  max_completion_tokens: z.int().min(1).nullish(),
  max_tokens: z.int().min(1).nullish(),
  reasoning_effort: effortField,
  n: z.int().min(1).max(MOST_CHOICES).nullish().describe('answers, each with a seed of its own'),
  ...samplingFields,
  ...steeringFields,
  store: flag.describe('the answer is kept, to be asked for again: GET /v1/chat/completions/ID'),
  metadata: metadataField.nullish().describe('of one that is kept'),
  stream: flag,
  stream_options: z.strictObject({ include_usage: flag, include_obfuscation: flag }).nullish(),
  response_format: z.union([z.strictObject({ type: z.literal('json_object') }), schemaFormat]),
  prediction: z
    .strictObject({
      type: z.literal('content'),
      content: z.union([z.string(), z.array(z.strictObject({ type: z.literal('text'), text: z.string() }))]),
    })
    .nullish()
    .describe('what the answer is thought to say: it may come faster, and is the same'),
  tool_choice: z
    .union([
      z.enum(['auto', 'none', 'required']),
      z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: z.string() }) }),
      z.strictObject({
        type: z.literal('allowed_tools'),
        allowed_tools: z.strictObject({
          mode: z.enum(['auto', 'required']),
          tools: z
            .array(z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: z.string() }) }))
            .min(1),
        }),
      }),
    ])
    .nullish(),
});
type Body = z.infer<typeof ChatBody>;

export interface ChatRequest extends Generation {
  readonly stream: boolean;
  /** A last chunk tells the tokens of the whole. */
  readonly streamUsage: boolean;
  /** Answers that are asked for. */
  readonly n: number;
  /** What is kept beside the answer; null: it is not kept. */
  readonly keeps: (Pick<StoredChat, 'metadata'> & { readonly messages: readonly Record<string, unknown>[] }) | null;
}

/** A message of a request as stored ones are listed; text in parts is told twice. */
function listed({ role, content, name, tool_calls, tool_call_id, refusal }: ChatMessage): Record<string, unknown> {
  const parts = typeof content === 'object' ? content : null;
  return {
    role,
    content: parts ? parts.map((p) => p.text ?? p.refusal ?? '').join('') : (content ?? null),
    refusal: refusal ?? null,
    name: name ?? null,
    content_parts: parts,
    ...(tool_calls ? { tool_calls } : {}),
    ...(tool_call_id ? { tool_call_id } : {}),
  };
}

/** The answer's schema; undefined: none. */
function answerSchema({ response_format: format }: Body): object | undefined {
  if (format?.type === 'json_object') return { type: 'object' };
  if (format?.type !== 'json_schema') return undefined;
  const { schema } = format.json_schema;
  if (!schema) throw badRequest('invalid_value', 'response_format: wanted json_schema.schema', 'response_format');
  return schema;
}

/** The tools that may be called, and the choice among them. @throws {ApiError} 400 */
function toolsOf({ tools: given, tool_choice: choice }: Body): [NonNullable<Body['tools']>, Asked['choice']] {
  const tools = given ?? [];
  if (typeof choice !== 'object' || choice === null) return [choice === 'none' ? [] : tools, choice ?? 'auto'];
  if (choice.type === 'function') return [tools, choice.function];
  const { mode, tools: allowed } = choice.allowed_tools;
  const names = allowed.map((t) => t.function.name);
  return [allowedOf(tools, (t) => t.function.name, names), mode];
}

/** What it foresees; undefined: nothing. */
function predictionOf({ prediction }: Body): string | undefined {
  if (!prediction) return undefined;
  const { content } = prediction;
  return typeof content === 'string' ? content : content.map((c) => c.text).join('');
}

/**
 * @param json   of the body, as parseJson makes it
 * @param tokens most tokens of an answer where the request does not say
 * @throws {ApiError} 400 · {DataError} what makes no conversation
 */
export function readChatRequest(json: unknown, tokens: number): ChatRequest {
  const body = parseBody(json, ChatBody, UNSUPPORTED);
  const { messages: dialogue, reasoning_effort, response_format: format, max_completion_tokens, max_tokens } = body;
  if (body.stream_options && !body.stream)
    throw badRequest('invalid_value', 'stream_options: wanted stream too', 'stream_options');
  const [tools, choice] = toolsOf(body);
  const { messages } = toConversation(
    {
      messages: dialogue,
      tools,
      reasoning_effort: effortOf(reasoning_effort),
      ...(format?.type === 'json_schema' ? { response_format: format } : {}),
    },
    { skipsEmpty: true, names: { message: (at) => `messages.${at}` } },
  );
  const { stop } = body,
    prediction = predictionOf(body);
  const wish = wishOf({
    schema: answerSchema(body),
    choice,
    tools: tools.map((t) => t.function),
    stops: typeof stop === 'string' ? stop !== '' : (stop?.length ?? 0) > 0,
    fields: { choice: 'tool_choice', stop: 'stop' },
  });
  return {
    model: body.model,
    stream: body.stream === true,
    streamUsage: body.stream_options?.include_usage === true,
    n: body.n ?? 1,
    tools: tools.map((t) => t.function.name),
    keeps: body.store ? { messages: dialogue.map(listed), metadata: body.metadata ?? {} } : null,
    request: {
      messages,
      maxTokens: max_completion_tokens ?? max_tokens ?? tokens,
      sampling: samplingOf(body),
      ...steeringOf(body),
      ...(prediction ? { prediction } : {}),
    },
    ...(wish ? { wish } : {}),
  };
}

export const LabelBody = z.strictObject({ metadata: metadataField.nullable() });
/** New labels of a stored one. @throws {ApiError} 400 */
export const readLabels = (json: unknown): Pick<StoredChat, 'metadata'> => ({
  metadata: parseBody(json, LabelBody, { nothing: {}, readPast: [] }).metadata ?? {},
});

// The body of POST /v1/messages, as Anthropic's API has it.
import { z } from 'zod';
import { exactText } from '../base/json.js';
import { toConversation } from '../harmony/chat.js';
import type { ChatMessage, ChatRow } from '../harmony/chat-row.js';
import type { Effort, Message } from '../harmony/types.js';
import { MAX_STOPS } from '../infer/protocol.js';
import { NO_THREADS } from './anthropic.js';
import { badRequest } from './api-error.js';
import type { Generation } from './generation.js';
import {
  flag,
  jsonObject,
  parseBody,
  samplingFields,
  samplingOf,
  steeringOf,
  type Unsupported,
} from './request-fields.js';
import { type InputItem, itemsToMessages } from './responses-items.js';
import { wishOf } from './wish.js';

const cache_control = z.unknown().optional();
const textBlock = z.strictObject({
  type: z.literal('text'),
  text: z.string(),
  citations: z.union([z.null(), z.array(z.unknown()).max(0)]).optional(),
  cache_control,
});
const block = z.discriminatedUnion(
  'type',
  [
    textBlock,
    z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string().nullish() }),
    z.strictObject({ type: z.literal('redacted_thinking'), data: z.string() }),
    z.strictObject({
      type: z.literal('tool_use'),
      id: z.string(),
      name: z.string(),
      input: jsonObject,
      caller: z.looseObject({ type: z.literal('direct') }).nullish(),
      cache_control,
    }),
    z.strictObject({
      type: z.literal('tool_result'),
      tool_use_id: z.string(),
      content: z.union([z.string(), z.array(textBlock)]).nullish(),
      is_error: flag,
      cache_control,
    }),
  ],
  { error: 'wanted a block of type text, thinking, redacted_thinking, tool_use or tool_result' },
);
/** There is nothing above high here. */
const EFFORTS = { low: 'low', medium: 'medium', high: 'high', xhigh: 'high', max: 'high' } as const;
const effort = z.enum(['low', 'medium', 'high', 'xhigh', 'max']);
const conversation = {
  model: z.string(),
  messages: z
    .array(z.strictObject({ role: z.enum(['user', 'assistant']), content: z.union([z.string(), z.array(block)]) }))
    .min(1),
  system: z.union([z.string(), z.array(textBlock)]).nullish(),
  tools: z
    .array(
      z.strictObject({
        type: z.literal('custom', { error: 'only tools of the client can be called here' }).nullish(),
        name: z.string(),
        description: z.string().nullish(),
        input_schema: jsonObject,
        strict: flag,
        cache_control,
        eager_input_streaming: flag.describe('arguments are streamed as they come; read past'),
        defer_loading: z.literal(false).nullish(),
        allowed_callers: z.tuple([z.literal('direct')]).nullish(),
      }),
    )
    .nullish(),
  tool_choice: z
    .discriminatedUnion('type', [
      z.strictObject({ type: z.enum(['auto', 'any', 'none']), disable_parallel_tool_use: flag }),
      z.strictObject({ type: z.literal('tool'), name: z.string(), disable_parallel_tool_use: flag }),
    ])
    .nullish()
    .describe('a turn ends with its first call, so that nothing is parallel'),
  thinking: z
    .discriminatedUnion('type', [
      z.strictObject({
        type: z.literal('enabled'),
        budget_tokens: z.int().min(1024).describe('below 4,096: low effort, below 16,384: medium, else high'),
        display: z.enum(['summarized', 'omitted']).nullish(),
      }),
      z.strictObject({ type: z.literal('adaptive'), display: z.enum(['summarized', 'omitted']).nullish() }),
      z.strictObject({ type: z.literal('disabled') }),
    ])
    .nullish()
    .describe('enabled, adaptive: thoughts are shown where the server shows any; disabled: low effort'),
  output_config: z
    .strictObject({
      effort: effort.nullish(),
      format: z.strictObject({ type: z.literal('json_schema'), schema: jsonObject }).nullish(),
    })
    .nullish(),
};
export const CountBody = z.strictObject(conversation);
export const MessagesBody = z.strictObject({
  ...conversation,
  max_tokens: z.int().min(1),
  temperature: z.number().min(0).max(1).nullish(),
  top_p: samplingFields.top_p,
  top_k: samplingFields.top_k,
  stop_sequences: z.array(z.string()).max(MAX_STOPS).nullish(),
  stream: flag,
});
export const UNSUPPORTED: Unsupported = {
  nothing: {
    thread: [],
    mcp_servers: [[]],
    container: [],
    context_management: [],
    inference_geo: [],
    speed: ['standard'],
  },
  // `diagnostics` asks why a cache was missed: an answer has nothing to tell of it.
  readPast: ['metadata', 'service_tier', 'cache_control', 'diagnostics'],
};
/** @throws {ApiError} 400 thread_unsupported_request: the conversation is to be held here */
function requireNoThread(json: unknown): void {
  if (((json ?? {}) as { readonly thread?: unknown }).thread)
    throw badRequest(NO_THREADS, 'thread: conversations are not held here; send all of its messages', 'thread');
}
type Body = z.infer<typeof CountBody> & { readonly stop_sequences?: readonly string[] | null | undefined };

type Block = z.infer<typeof block>;
interface Placed {
  readonly block: Block;
  /** As errors call it, the first of several that are one. */
  readonly where: string;
}
/** Texts of a user that follow each other are one message. */
const joined = (blocks: readonly Placed[], role: string): readonly Placed[] =>
  blocks.reduce<Placed[]>((all, one) => {
    const last = all.at(-1);
    if (role === 'user' && one.block.type === 'text' && last?.block.type === 'text') {
      const text = `${last.block.text}\n${one.block.text}`;
      all[all.length - 1] = { block: { type: 'text', text }, where: last.where };
    } else all.push(one);
    return all;
  }, []);
/** @throws {ApiError} 400: a user who says nothing */
function blocksOf({ role, content }: Body['messages'][number], at: number): readonly Placed[] {
  const where = `messages.${at}`;
  if (typeof content === 'string') return [{ block: { type: 'text', text: content }, where }];
  if (content.length === 0 && role === 'user')
    throw badRequest('invalid_value', `${where}.content: wanted at least one block`, `${where}.content`);
  return joined(
    content.map((of, i) => ({ block: of, where: `${where}.content.${i}` })),
    role,
  );
}

interface PlacedItem {
  readonly item: InputItem;
  readonly where: string;
}
/** Blocks as items: thoughts, texts, calls and results in their order. */
function itemsOf({ messages }: Body): readonly PlacedItem[] {
  return messages.flatMap((message, at): PlacedItem[] => {
    const blocks = blocksOf(message, at),
      { role } = message;
    // A last text is the answer; what comes before another text, or before a call, is said on the way to it.
    const last = blocks.findLastIndex(({ block: { type } }) => type === 'text' || type === 'tool_use');
    const itemOf = ({ block: b, where }: Placed, i: number): InputItem => {
      const wrong = (wanted: 'user' | 'assistant'): void => {
        if (role !== wanted)
          throw badRequest('invalid_value', `${where}: ${b.type} has no place in a message of role ${role}`, where);
      };
      if (b.type === 'text')
        return { type: 'message', role, content: b.text, phase: i === last ? 'final_answer' : 'commentary' };
      if (b.type === 'tool_result') {
        wrong('user');
        const output = typeof b.content === 'string' ? b.content : (b.content ?? []).map((t) => t.text).join('\n');
        return { type: 'function_call_output', call_id: b.tool_use_id, output };
      }
      wrong('assistant');
      if (b.type === 'thinking') return { type: 'reasoning', content: [{ type: 'reasoning_text', text: b.thinking }] };
      if (b.type === 'redacted_thinking') return { type: 'reasoning', encrypted_content: b.data };
      return { type: 'function_call', call_id: b.id, name: b.name, arguments: exactText(b.input) };
    };
    return blocks.map((placed, i) => ({ item: itemOf(placed, i), where: placed.where }));
  });
}

const LOW_BUDGET = 4096,
  MEDIUM_BUDGET = 16_384;
function effortOf({ thinking, output_config }: Body): Effort {
  if (output_config?.effort) return EFFORTS[output_config.effort];
  if (thinking?.type === 'disabled') return 'low';
  if (thinking?.type !== 'enabled') return 'medium';
  return thinking.budget_tokens < LOW_BUDGET ? 'low' : thinking.budget_tokens < MEDIUM_BUDGET ? 'medium' : 'high';
}
/** @throws {ApiError} 400 · {DataError} what makes no conversation */
function conversationOf(
  body: Body,
): Pick<Generation, 'wish'> & { readonly messages: readonly Message[]; readonly tools: readonly string[] } {
  if (body.messages.at(-1)?.role === 'assistant')
    throw badRequest(
      'unsupported_parameter',
      "messages: the last one is the assistant's; an answer that was begun cannot be gone on with here",
      'messages',
    );
  const { system, tool_choice: choice, output_config } = body;
  const tools = choice?.type === 'none' ? [] : (body.tools ?? []);
  const schema = output_config?.format?.schema;
  const instructions = typeof system === 'string' ? system : (system ?? []).map((t) => t.text).join('\n');
  const items = itemsOf(body),
    places = new Map<ChatMessage, number>();
  const dialogue = itemsToMessages(
    items.map(({ item }) => item),
    places,
  );
  const row: ChatRow = {
    messages: [...(instructions === '' ? [] : [{ role: 'system', content: instructions }]), ...dialogue],
    reasoning_effort: effortOf(body),
    tools: tools.map((t) => ({
      type: 'function',
      function: { name: t.name, description: t.description, parameters: t.input_schema, strict: t.strict },
    })),
    ...(schema ? { response_format: { type: 'json_schema', json_schema: { name: 'answer', schema } } } : {}),
  };
  const wish = wishOf({
    schema,
    choice: choice?.type === 'any' ? 'required' : choice?.type === 'tool' ? choice : 'auto',
    tools: tools.map((t) => ({ name: t.name, parameters: t.input_schema, strict: t.strict })),
    stops: (body.stop_sequences?.length ?? 0) > 0,
    fields: { choice: 'tool_choice', stop: 'stop_sequences' },
  });
  const nameOf = (at: number): string => {
    const message = row.messages[at],
      place = message && places.get(message);
    return place === undefined ? 'system' : (items[place]?.where ?? 'messages');
  };
  const { messages } = toConversation(row, {
    skipsEmpty: true,
    names: { message: nameOf, callId: 'tool_use_id' },
  });
  return { messages, tools: tools.map((t) => t.name), ...(wish ? { wish } : {}) };
}

export interface MessagesRequest extends Generation {
  readonly stream: boolean;
  /** Thoughts were asked for. */
  readonly thinking: boolean;
}
/** @throws as `conversationOf` */
export function readMessagesRequest(json: unknown): MessagesRequest {
  requireNoThread(json);
  const body = parseBody(json, MessagesBody, UNSUPPORTED);
  const thinking = body.thinking?.type === 'enabled' || body.thinking?.type === 'adaptive';
  const { messages, tools, wish } = conversationOf(body);
  return {
    model: body.model,
    stream: body.stream === true,
    thinking,
    sealed: thinking,
    request: {
      messages,
      maxTokens: body.max_tokens,
      sampling: samplingOf(body),
      ...steeringOf({ stop: body.stop_sequences }),
    },
    tools,
    ...(wish ? { wish } : {}),
  };
}
/** @throws as `conversationOf` */
export function readCountRequest(json: unknown): { readonly model: string; readonly messages: readonly Message[] } {
  requireNoThread(json);
  const body = parseBody(json, CountBody, UNSUPPORTED);
  return { model: body.model, messages: conversationOf(body).messages };
}

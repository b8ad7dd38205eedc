// What /v1/messages answers, in Anthropic's shape.
import { z } from 'zod';
import { own } from './wire-shared.js';

const deltaUsage = {
  input_tokens: z.int(),
  output_tokens: z.int(),
  cache_creation_input_tokens: z.int(),
  cache_read_input_tokens: z.int(),
  output_tokens_details: z.object({ thinking_tokens: z.int() }).nullable(),
  server_tool_use: z.null(),
};
const block = z
  .union([
    z.object({ type: z.literal('text'), text: z.string(), citations: z.null() }),
    z.object({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
    z.object({ type: z.literal('redacted_thinking'), data: z.string() }),
    z.object({
      type: z.literal('tool_use'),
      id: z.string(),
      name: z.string(),
      input: z.record(z.string(), z.unknown()),
      caller: z.object({ type: z.literal('direct') }),
    }),
  ])
  .meta({ id: 'ContentBlock' });
const stop = {
  stop_reason: z.enum(['end_turn', 'max_tokens', 'stop_sequence', 'tool_use', 'refusal']).nullable(),
  stop_sequence: z.string().nullable(),
  stop_details: z.object({ type: z.literal('refusal'), category: z.null(), explanation: z.string() }).nullable(),
};
export const MessageShape = z
  .object({
    id: z.string(),
    type: z.literal('message'),
    role: z.literal('assistant'),
    model: z.string(),
    container: z.null(),
    diagnostics: z.null(),
    content: z.array(block),
    ...stop,
    usage: z.object({
      ...deltaUsage,
      cache_creation: z.null(),
      inference_geo: z.null(),
      service_tier: z.literal('standard'),
      speed: z.null(),
    }),
    ...own,
  })
  .meta({ id: 'Message' });

export const MessageErrorShape = z
  .object({
    type: z.literal('error'),
    error: z.object({
      type: z.string(),
      message: z.string(),
      details: z
        .object({ error_code: z.literal('thread_unsupported_request'), unsupported: z.array(z.literal('thread')) })
        .optional()
        .describe('where `thread` asks that the conversation be held here: the client sends all of it'),
    }),
    request_id: z.string().describe('as the header `request-id` has it'),
  })
  .meta({ id: 'MessageError' });

const delta = z.union([
  z.object({ type: z.literal('text_delta'), text: z.string() }),
  z.object({ type: z.literal('thinking_delta'), thinking: z.string() }),
  z.object({ type: z.literal('signature_delta'), signature: z.string() }),
  z.object({ type: z.literal('input_json_delta'), partial_json: z.string() }),
]);
export const MessageEventShape = z
  .union([
    z.object({ type: z.literal('message_start'), message: MessageShape }),
    z.object({ type: z.literal('content_block_start'), index: z.int(), content_block: block }),
    z.object({ type: z.literal('content_block_delta'), index: z.int(), delta }),
    z.object({ type: z.literal('content_block_stop'), index: z.int() }),
    z.object({
      type: z.literal('message_delta'),
      delta: z.object({ ...stop, container: z.null() }),
      usage: z.object(deltaUsage),
      ...own,
    }),
    z.object({ type: z.literal('message_stop') }),
    MessageErrorShape,
  ])
  .meta({ id: 'MessageEvent' });
export const CountShape = z.object({ input_tokens: z.int() }).meta({ id: 'MessageTokens' });

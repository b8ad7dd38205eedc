// What /v1/responses answers.
import { z } from 'zod';
import { own, TokenShape } from './wire-shared.js';

const status = z.enum(['in_progress', 'completed', 'incomplete']);
const outputText = z.object({
  type: z.literal('output_text'),
  text: z.string(),
  annotations: z.array(z.unknown()),
  logprobs: z.array(TokenShape),
});
const refusal = z.object({ type: z.literal('refusal'), refusal: z.string() });
const reasoningText = z.object({ type: z.literal('reasoning_text'), text: z.string() });
const item = z
  .union([
    z.object({
      type: z.literal('message'),
      id: z.string(),
      role: z.literal('assistant'),
      status,
      content: z.array(z.union([outputText, refusal])),
      phase: z.enum(['commentary', 'final_answer']).optional(),
    }),
    z.object({
      type: z.literal('reasoning'),
      id: z.string(),
      summary: z.array(z.unknown()),
      content: z.array(reasoningText).optional(),
      encrypted_content: z.string().optional(),
      status: status.optional(),
    }),
    z.object({
      type: z.literal('function_call'),
      id: z.string(),
      call_id: z.string(),
      name: z.string(),
      arguments: z.string(),
      status,
    }),
  ])
  .meta({ id: 'OutputItem' });
const freeObject = z.record(z.string(), z.unknown());

export const ResponseShape = z
  .object({
    id: z.string(),
    object: z.literal('response'),
    created_at: z.int(),
    completed_at: z.int().nullable(),
    status: z.enum(['queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled']),
    background: z.boolean(),
    error: z.object({ code: z.literal('server_error'), message: z.string() }).nullable(),
    incomplete_details: z.object({ reason: z.enum(['max_output_tokens', 'content_filter']) }).nullable(),
    instructions: z.string().nullable(),
    max_output_tokens: z.int().nullable(),
    metadata: z.record(z.string(), z.string()),
    model: z.string(),
    output: z.array(item),
    parallel_tool_calls: z.boolean(),
    previous_response_id: z.string().nullable(),
    reasoning: z.object({ effort: z.enum(['low', 'medium', 'high']), summary: z.null() }),
    service_tier: z.literal('default'),
    store: z.boolean(),
    temperature: z.number(),
    text: z.object({ format: freeObject, verbosity: z.literal('medium') }),
    tool_choice: z.union([
      z.enum(['auto', 'none', 'required']),
      z.object({ type: z.literal('function'), name: z.string() }),
      z.object({
        type: z.literal('allowed_tools'),
        mode: z.enum(['auto', 'required']),
        tools: z.array(z.object({ type: z.literal('function'), name: z.string() })),
      }),
    ]),
    tools: z.array(
      z.object({
        type: z.literal('function'),
        name: z.string(),
        description: z.string().nullable(),
        parameters: freeObject.nullable(),
        strict: z.boolean(),
      }),
    ),
    top_logprobs: z.int(),
    top_p: z.number(),
    truncation: z.enum(['auto', 'disabled']),
    usage: z
      .object({
        input_tokens: z.int(),
        input_tokens_details: z.object({ cached_tokens: z.int(), cache_write_tokens: z.int() }),
        output_tokens: z.int(),
        output_tokens_details: z.object({ reasoning_tokens: z.int() }),
        total_tokens: z.int(),
      })
      .nullable(),
    ...own,
  })
  .meta({ id: 'Response' });

const event = <T extends z.ZodRawShape>(type: string, shape: T) =>
  z.object({ type: z.literal(type), sequence_number: z.int(), ...shape });
const at = { output_index: z.int(), item_id: z.string() };
const inPart = { ...at, content_index: z.int() };
const anyPart = z.union([outputText, refusal, reasoningText]);
const WHOLE = ['queued', 'created', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled'] as const;
export const ResponseEventShape = z
  .union([
    ...WHOLE.map((name) => event(`response.${name}`, { response: ResponseShape })),
    event('response.output_item.added', { output_index: z.int(), item }),
    event('response.output_item.done', { output_index: z.int(), item }),
    event('response.content_part.added', { ...inPart, part: anyPart }),
    event('response.content_part.done', { ...inPart, part: anyPart }),
    event('response.output_text.delta', { ...inPart, delta: z.string(), logprobs: z.array(TokenShape) }),
    event('response.output_text.done', { ...inPart, text: z.string(), logprobs: z.array(TokenShape) }),
    event('response.refusal.delta', { ...inPart, delta: z.string() }),
    event('response.refusal.done', { ...inPart, refusal: z.string() }),
    event('response.reasoning_text.delta', { ...inPart, delta: z.string() }),
    event('response.reasoning_text.done', { ...inPart, text: z.string() }),
    event('response.function_call_arguments.delta', { ...at, delta: z.string() }),
    event('response.function_call_arguments.done', { ...at, name: z.string(), arguments: z.string() }),
    event('error', {
      code: z.string().nullable(),
      message: z.string(),
      param: z.string().nullable(),
    }),
  ])
  .meta({ id: 'ResponseEvent' });

export const DeletedShape = z
  .object({ id: z.string(), object: z.literal('response'), deleted: z.literal(true) })
  .meta({ id: 'ResponseDeleted' });
export const InputTokensShape = z
  .object({ object: z.literal('response.input_tokens'), input_tokens: z.int() })
  .meta({ id: 'ResponseInputTokens' });
export const InputItemsShape = z
  .object({
    object: z.literal('list'),
    data: z.array(freeObject).describe('items as a request brings them, each with an id'),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  })
  .meta({ id: 'InputItems' });

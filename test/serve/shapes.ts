// The published shapes of answers, as zod reads them: of OpenAI's API (the types of its client, version 6) and of
// Anthropic's (of its client too). Strict, so that a field nobody declared is a failure, but for those of this server's
// own.
import { z } from 'zod';

const own = { temper: z.object({ outcome: z.string(), verdicts: z.array(z.unknown()) }).optional() };
const usage = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  completion_tokens_details: z.object({ reasoning_tokens: z.int() }).optional(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }).optional(),
});
const finish = z.enum(['stop', 'length', 'tool_calls', 'content_filter']);
const reasoning = { reasoning: z.string().optional(), reasoning_content: z.string().optional() };
const toolCall = z.strictObject({
  id: z.string(),
  type: z.literal('function'),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
});
const chatHead = { id: z.string(), created: z.int(), model: z.string() };
export const ChatCompletion = z.strictObject({
  ...chatHead,
  object: z.literal('chat.completion'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      finish_reason: finish,
      logprobs: z.null(),
      message: z.strictObject({
        role: z.literal('assistant'),
        content: z.string().nullable(),
        refusal: z.string().nullable(),
        tool_calls: z.array(toolCall).optional(),
        ...reasoning,
      }),
    }),
  ),
  usage,
  ...own,
});
export const ChatCompletionChunk = z.strictObject({
  ...chatHead,
  object: z.literal('chat.completion.chunk'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      finish_reason: finish.nullable(),
      logprobs: z.null(),
      delta: z.strictObject({
        role: z.literal('assistant').optional(),
        content: z.string().nullish(),
        refusal: z.string().nullish(),
        tool_calls: z
          .array(
            z.strictObject({
              index: z.int(),
              id: z.string().optional(),
              type: z.literal('function').optional(),
              function: z.strictObject({ name: z.string().optional(), arguments: z.string().optional() }).optional(),
            }),
          )
          .optional(),
        ...reasoning,
      }),
    }),
  ),
  usage: usage.nullish(),
  ...own,
});
export const Completion = z.strictObject({
  ...chatHead,
  object: z.literal('text_completion'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      text: z.string(),
      logprobs: z
        .strictObject({
          tokens: z.array(z.string()),
          token_logprobs: z.array(z.number()),
          top_logprobs: z.array(z.record(z.string(), z.number())),
          text_offset: z.array(z.int()),
        })
        .nullable(),
      finish_reason: z.enum(['stop', 'length', 'content_filter']).nullable(),
    }),
  ),
  usage: usage.optional(),
  ...own,
});
export const OpenAiError = z.strictObject({
  error: z.strictObject({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

const status = z.enum(['in_progress', 'completed', 'incomplete']);
const outputText = z.strictObject({
  type: z.literal('output_text'),
  text: z.string(),
  annotations: z.array(z.never()),
  logprobs: z.array(z.never()).optional(),
});
const refusal = z.strictObject({ type: z.literal('refusal'), refusal: z.string() });
const reasoningText = z.strictObject({ type: z.literal('reasoning_text'), text: z.string() });
const OutputItem = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('message'),
    id: z.string(),
    role: z.literal('assistant'),
    status,
    content: z.array(z.union([outputText, refusal])),
    phase: z.enum(['commentary', 'final_answer']).nullish(),
  }),
  z.strictObject({
    type: z.literal('reasoning'),
    id: z.string(),
    summary: z.array(z.strictObject({ type: z.literal('summary_text'), text: z.string() })),
    content: z.array(reasoningText).optional(),
    encrypted_content: z.string().nullish(),
    status: status.optional(),
  }),
  z.strictObject({
    type: z.literal('function_call'),
    id: z.string().optional(),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    status: status.optional(),
  }),
]);
export const ResponseObject = z.strictObject({
  id: z.string().startsWith('resp_'),
  object: z.literal('response'),
  created_at: z.int(),
  completed_at: z.int().nullish(),
  status: z.enum(['completed', 'failed', 'in_progress', 'cancelled', 'queued', 'incomplete']),
  background: z.boolean().nullish(),
  error: z.strictObject({ code: z.literal('server_error'), message: z.string() }).nullable(),
  incomplete_details: z.strictObject({ reason: z.enum(['max_output_tokens', 'content_filter']) }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullish(),
  metadata: z.record(z.string(), z.string()).nullable(),
  model: z.string(),
  output: z.array(OutputItem),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.string().nullish(),
  reasoning: z.strictObject({ effort: z.enum(['low', 'medium', 'high']), summary: z.null() }).nullish(),
  service_tier: z.enum(['auto', 'default', 'flex', 'scale', 'priority']).nullish(),
  store: z.boolean(),
  temperature: z.number().nullable(),
  text: z.strictObject({ format: z.looseObject({ type: z.string() }), verbosity: z.string().nullish() }).optional(),
  tool_choice: z.union([z.enum(['none', 'auto', 'required']), z.looseObject({ type: z.string() })]),
  tools: z.array(
    z.strictObject({
      type: z.literal('function'),
      name: z.string(),
      description: z.string().nullish(),
      parameters: z.record(z.string(), z.unknown()).nullable(),
      strict: z.boolean().nullable(),
    }),
  ),
  top_logprobs: z.int().nullish(),
  top_p: z.number().nullable(),
  truncation: z.enum(['auto', 'disabled']).nullish(),
  usage: z
    .strictObject({
      input_tokens: z.int(),
      input_tokens_details: z.strictObject({ cached_tokens: z.int(), cache_write_tokens: z.int() }),
      output_tokens: z.int(),
      output_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
      total_tokens: z.int(),
    })
    .nullable(),
  ...own,
});
const event = <N extends string, T extends z.ZodRawShape>(type: N, shape: T) =>
  z.strictObject({ type: z.literal(type), sequence_number: z.int(), ...shape });
const at = { output_index: z.int(), item_id: z.string() };
const inPart = { ...at, content_index: z.literal(0) };
const anyPart = z.union([outputText, refusal, reasoningText]);
export const ResponseStreamEvent = z.discriminatedUnion('type', [
  event('response.created', { response: ResponseObject }),
  event('response.in_progress', { response: ResponseObject }),
  event('response.completed', { response: ResponseObject }),
  event('response.incomplete', { response: ResponseObject }),
  event('response.failed', { response: ResponseObject }),
  event('response.output_item.added', { output_index: z.int(), item: OutputItem }),
  event('response.output_item.done', { output_index: z.int(), item: OutputItem }),
  event('response.content_part.added', { ...inPart, part: anyPart }),
  event('response.content_part.done', { ...inPart, part: anyPart }),
  event('response.output_text.delta', { ...inPart, delta: z.string(), logprobs: z.array(z.never()) }),
  event('response.output_text.done', { ...inPart, text: z.string(), logprobs: z.array(z.never()) }),
  event('response.refusal.delta', { ...inPart, delta: z.string() }),
  event('response.refusal.done', { ...inPart, refusal: z.string() }),
  event('response.reasoning_text.delta', { ...inPart, delta: z.string() }),
  event('response.reasoning_text.done', { ...inPart, text: z.string() }),
  event('response.function_call_arguments.delta', { ...at, delta: z.string() }),
  event('response.function_call_arguments.done', { ...at, name: z.string(), arguments: z.string() }),
  event('error', { code: z.string().nullable(), message: z.string(), param: z.string().nullable() }),
]);
export type ResponseStreamEvent = z.infer<typeof ResponseStreamEvent>;

const deltaUsage = {
  input_tokens: z.int(),
  output_tokens: z.int(),
  cache_creation_input_tokens: z.int().nullable(),
  cache_read_input_tokens: z.int().nullable(),
  output_tokens_details: z.strictObject({ thinking_tokens: z.int() }).nullable(),
  server_tool_use: z.null(),
};
const anthropicUsage = z.strictObject({
  ...deltaUsage,
  cache_creation: z.null(),
  inference_geo: z.string().nullable(),
  service_tier: z.enum(['standard', 'priority', 'batch']).nullable(),
  speed: z.enum(['standard', 'fast']).nullable(),
});
const Block = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text'), text: z.string(), citations: z.null() }),
  z.strictObject({ type: z.literal('thinking'), thinking: z.string(), signature: z.string() }),
  z.strictObject({ type: z.literal('redacted_thinking'), data: z.string() }),
  z.strictObject({
    type: z.literal('tool_use'),
    id: z.string().regex(/^[a-zA-Z0-9_-]+$/),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
    caller: z.strictObject({ type: z.literal('direct') }),
  }),
]);
const stop = {
  stop_reason: z.enum(['end_turn', 'max_tokens', 'stop_sequence', 'tool_use', 'pause_turn', 'refusal']).nullable(),
  stop_sequence: z.string().nullable(),
  stop_details: z
    .strictObject({ type: z.literal('refusal'), category: z.null(), explanation: z.string().nullable() })
    .nullable(),
};
export const AnthropicMessage = z.strictObject({
  id: z.string(),
  type: z.literal('message'),
  role: z.literal('assistant'),
  model: z.string(),
  container: z.null(),
  diagnostics: z.null(),
  content: z.array(Block),
  ...stop,
  usage: anthropicUsage,
  ...own,
});
const delta = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text_delta'), text: z.string() }),
  z.strictObject({ type: z.literal('thinking_delta'), thinking: z.string() }),
  z.strictObject({ type: z.literal('signature_delta'), signature: z.string() }),
  z.strictObject({ type: z.literal('input_json_delta'), partial_json: z.string() }),
]);
export const AnthropicEvent = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('message_start'), message: AnthropicMessage }),
  z.strictObject({ type: z.literal('content_block_start'), index: z.int(), content_block: Block }),
  z.strictObject({ type: z.literal('content_block_delta'), index: z.int(), delta }),
  z.strictObject({ type: z.literal('content_block_stop'), index: z.int() }),
  z.strictObject({
    type: z.literal('message_delta'),
    delta: z.strictObject({ ...stop, container: z.null() }),
    usage: z.strictObject(deltaUsage),
    ...own,
  }),
  z.strictObject({ type: z.literal('message_stop') }),
]);
export const AnthropicError = z.strictObject({
  type: z.literal('error'),
  error: z.strictObject({ type: z.string(), message: z.string() }),
  request_id: z.string().nullable(),
});

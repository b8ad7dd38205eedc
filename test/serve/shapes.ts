// The published shapes of answers, as zod reads them: of OpenAI's API and of Anthropic's. Strict, so that a field
// nobody declared is a failure, but for those of this server's own. What they accept is what the types of the official
// clients accept: `Published`, at the end, does not compile where it is not.
import type Anthropic from '@anthropic-ai/sdk';
import type OpenAI from 'openai';
import { z } from 'zod';

const screening = z.strictObject({
  mode: z.literal('shadow').exactOptional(),
  receipt: z.string().exactOptional(),
  outcome: z.enum(['allow', 'block', 'unjudged']),
  verdicts: z.array(
    z.strictObject({
      policy: z.string(),
      channel: z.string(),
      outcome: z.enum(['allow', 'block', 'unjudged']),
      rule: z.string().nullable(),
      cause: z.string().nullable(),
    }),
  ),
});
const own = { temper: screening.exactOptional() };
/** Of several answers: those of each. */
const ownOfSeveral = {
  temper: z.union([screening, z.strictObject({ choices: z.array(screening) })]).exactOptional(),
};
const usage = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  completion_tokens_details: z.object({ reasoning_tokens: z.int() }).exactOptional(),
  prompt_tokens_details: z.object({ cached_tokens: z.int() }).exactOptional(),
});
const finish = z.enum(['stop', 'length', 'tool_calls', 'content_filter']);
const reasoning = { reasoning: z.string().exactOptional(), reasoning_content: z.string().exactOptional() };
const toolCall = z.strictObject({
  id: z.string(),
  type: z.literal('function'),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
});
const likely = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() };
const tokens = z.array(z.strictObject({ ...likely, top_logprobs: z.array(z.strictObject(likely)) })).nullable();
const logprobs = z.strictObject({ content: tokens, refusal: tokens }).nullable();
const chatHead = { id: z.string(), created: z.int(), model: z.string() };
export const ChatCompletion = z.strictObject({
  ...chatHead,
  object: z.literal('chat.completion'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      finish_reason: finish,
      logprobs,
      message: z.strictObject({
        role: z.literal('assistant'),
        content: z.string().nullable(),
        refusal: z.string().nullable(),
        tool_calls: z.array(toolCall).exactOptional(),
        ...reasoning,
      }),
    }),
  ),
  usage,
  ...ownOfSeveral,
});
export const ChatCompletionChunk = z.strictObject({
  ...chatHead,
  object: z.literal('chat.completion.chunk'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      finish_reason: finish.nullable(),
      logprobs,
      delta: z.strictObject({
        role: z.literal('assistant').exactOptional(),
        content: z.string().nullable().exactOptional(),
        refusal: z.string().nullable().exactOptional(),
        tool_calls: z
          .array(
            z.strictObject({
              index: z.int(),
              id: z.string().exactOptional(),
              type: z.literal('function').exactOptional(),
              function: z
                .strictObject({ name: z.string().exactOptional(), arguments: z.string().exactOptional() })
                .exactOptional(),
            }),
          )
          .exactOptional(),
        ...reasoning,
      }),
    }),
  ),
  usage: usage.nullable().exactOptional(),
  ...own,
});
const textChoice = {
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
};
const textFinish = z.enum(['stop', 'length', 'content_filter']);
const text = { ...chatHead, object: z.literal('text_completion'), usage: usage.exactOptional(), ...ownOfSeveral };
export const Completion = z.strictObject({
  ...text,
  choices: z.array(z.strictObject({ ...textChoice, finish_reason: textFinish })),
});
/** The client's type has no word for one that goes on; the API has null. */
export const CompletionChunk = z.strictObject({
  ...text,
  choices: z.array(z.strictObject({ ...textChoice, finish_reason: textFinish.nullable() })),
});
export const Model = z.strictObject({
  id: z.string(),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.string(),
  temper: z.strictObject({
    digest: z.string(),
    adapter: z.boolean(),
    pairs: z.int(),
    tensors: z.int(),
    status: z.enum(['approved', 'candidate', 'quarantined']),
  }),
});
export const ModelList = z.strictObject({ object: z.literal('list'), data: z.array(Model) });
const { id, temper } = Model.shape;
export const AnthropicModel = z.strictObject({
  id,
  temper,
  type: z.literal('model'),
  display_name: z.string(),
  created_at: z.iso.datetime(),
  capabilities: z.null(),
  lifecycle: z.literal('active'),
  deprecated_at: z.null(),
  retires_at: z.null(),
  line: z.null(),
  max_input_tokens: z.int(),
  max_tokens: z.int(),
});
export const AnthropicModelList = z.strictObject({
  data: z.array(AnthropicModel),
  has_more: z.boolean(),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
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
  logprobs: z.array(z.never()).exactOptional(),
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
    phase: z.enum(['commentary', 'final_answer']).nullable().exactOptional(),
  }),
  z.strictObject({
    type: z.literal('reasoning'),
    id: z.string(),
    summary: z.array(z.strictObject({ type: z.literal('summary_text'), text: z.string() })),
    content: z.array(reasoningText).exactOptional(),
    encrypted_content: z.string().nullable().exactOptional(),
    status: status.exactOptional(),
  }),
  z.strictObject({
    type: z.literal('function_call'),
    id: z.string(),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    status,
  }),
]);
export const ResponseObject = z.strictObject({
  id: z.string().startsWith('resp_'),
  object: z.literal('response'),
  created_at: z.int(),
  completed_at: z.int().nullable().exactOptional(),
  status: z.enum(['completed', 'failed', 'in_progress', 'cancelled', 'queued', 'incomplete']),
  background: z.boolean().nullable().exactOptional(),
  error: z.strictObject({ code: z.literal('server_error'), message: z.string() }).nullable(),
  incomplete_details: z.strictObject({ reason: z.enum(['max_output_tokens', 'content_filter']) }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullable().exactOptional(),
  metadata: z.record(z.string(), z.string()).nullable(),
  model: z.string(),
  output: z.array(OutputItem),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.string().nullable().exactOptional(),
  reasoning: z
    .strictObject({ effort: z.enum(['low', 'medium', 'high']), summary: z.null() })
    .nullable()
    .exactOptional(),
  service_tier: z.enum(['auto', 'default', 'flex', 'scale', 'priority']).nullable().exactOptional(),
  store: z.boolean(),
  temperature: z.number().nullable(),
  text: z
    .strictObject({
      format: z.discriminatedUnion('type', [
        z.strictObject({ type: z.literal('text') }),
        z.strictObject({ type: z.literal('json_object') }),
        z.strictObject({
          type: z.literal('json_schema'),
          name: z.string(),
          schema: z.record(z.string(), z.unknown()),
          description: z.string().exactOptional(),
          strict: z.boolean().nullable().exactOptional(),
        }),
      ]),
      verbosity: z.enum(['low', 'medium', 'high']).nullable().exactOptional(),
    })
    .exactOptional(),
  tool_choice: z.union([
    z.enum(['none', 'auto', 'required']),
    z.strictObject({ type: z.literal('function'), name: z.string() }),
    z.strictObject({
      type: z.literal('allowed_tools'),
      mode: z.enum(['auto', 'required']),
      tools: z.array(z.record(z.string(), z.unknown())),
    }),
  ]),
  tools: z.array(
    z.strictObject({
      type: z.literal('function'),
      name: z.string(),
      description: z.string().nullable().exactOptional(),
      parameters: z.record(z.string(), z.unknown()).nullable(),
      strict: z.boolean().nullable(),
    }),
  ),
  top_logprobs: z.int().nullable().exactOptional(),
  top_p: z.number().nullable(),
  truncation: z.enum(['auto', 'disabled']).nullable().exactOptional(),
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
export const ResponseDeleted = z.strictObject({
  id: z.string().startsWith('resp_'),
  object: z.literal('response'),
  deleted: z.literal(true),
});
const inputText = z.strictObject({ type: z.literal('input_text'), text: z.string() });
/** What a request brought, as it is listed. */
export const ResponseItemList = z.strictObject({
  object: z.literal('list'),
  data: z.array(
    z.union([
      z.strictObject({
        type: z.literal('message'),
        id: z.string(),
        role: z.enum(['user', 'system', 'developer']),
        status: status.exactOptional(),
        content: z.array(inputText),
      }),
      z.strictObject({
        type: z.literal('function_call_output'),
        id: z.string(),
        call_id: z.string(),
        output: z.union([z.string(), z.array(inputText)]),
        status,
      }),
      OutputItem,
    ]),
  ),
  first_id: z.string(),
  last_id: z.string(),
  has_more: z.boolean(),
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
  error: z.strictObject({
    type: z.string(),
    message: z.string(),
    details: z.strictObject({ error_code: z.string(), unsupported: z.array(z.string()) }).exactOptional(),
  }),
  request_id: z.string(),
});
export const MessageTokensCount = z.strictObject({ input_tokens: z.int() });

type Fits<Wide, Narrow extends Wide> = Narrow;
type Read<T extends z.ZodType> = z.infer<T>;
/** As it is sent: `output_text` is the client's own, and `usage` is null until there is some. */
type Sent<R> = R extends OpenAI.Responses.Response
  ? Omit<R, 'output_text' | 'usage'> & { readonly usage?: OpenAI.Responses.ResponseUsage | null }
  : R;
type SentEvent<E> = E extends { response: OpenAI.Responses.Response }
  ? Omit<E, 'response'> & { readonly response: Sent<OpenAI.Responses.Response> }
  : E;
/** What these accept, the clients' types accept. */
export type Published = [
  Fits<OpenAI.ChatCompletion, Read<typeof ChatCompletion>>,
  Fits<OpenAI.ChatCompletionChunk, Read<typeof ChatCompletionChunk>>,
  Fits<OpenAI.Completion, Read<typeof Completion>>,
  Fits<OpenAI.Model, Read<typeof Model>>,
  Fits<Sent<OpenAI.Responses.Response>, Read<typeof ResponseObject>>,
  Fits<SentEvent<OpenAI.Responses.ResponseStreamEvent>, ResponseStreamEvent>,
  Fits<OpenAI.Responses.ResponseItemList, Read<typeof ResponseItemList>>,
  Fits<Anthropic.Message, Read<typeof AnthropicMessage>>,
  Fits<Anthropic.RawMessageStreamEvent, Read<typeof AnthropicEvent>>,
  Fits<Anthropic.MessageTokensCount, Read<typeof MessageTokensCount>>,
  Fits<Anthropic.ModelInfo, Read<typeof AnthropicModel>>,
];

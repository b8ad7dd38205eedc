// A row of chat data as clients, servers and exports of datasets write it. null stands for "absent" everywhere.
import { z } from 'zod';
import { parseJson } from '../base/json.js';
import type { JsonSchema } from './tool-types.js';

/** An object that keeps its identity, so that its text can be had as it was written (`jsonText`). */
const jsonObject = z.custom<JsonSchema>((v) => typeof v === 'object' && v !== null && !Array.isArray(v), {
  error: 'wanted an object',
});
/** A list or an object that a table keeps as JSON text is read as what it says. */
const orText = <T extends z.ZodType>(schema: T) =>
  z.preprocess((v) => {
    if (typeof v !== 'string' || !/^\s*[[{]/.test(v)) return v;
    try {
      return parseJson(v);
    } catch {
      return v;
    }
  }, schema);

const contentPart = z.looseObject({
  type: z.string(),
  text: z.string().nullish(),
  refusal: z.string().nullish(),
});

const toolCall = z.strictObject({
  id: z.string().nullish().describe('what the result names in tool_call_id'),
  type: z.literal('function').nullish(),
  index: z.int().nullish().describe('place in a stream; not used'),
  function: z.strictObject({
    name: z.string().describe('declared name, with or without `functions.`'),
    arguments: z
      .union([z.string(), jsonObject])
      .describe('JSON text, trained as it stands; or the object, written compactly, members that are null left out'),
  }),
});

export const chatMessage = z.strictObject({
  role: z.string().describe('system, developer, user, assistant or tool'),
  content: z
    .union([z.string(), z.array(contentPart)], { error: 'wanted text, a list of parts, or null' })
    .nullish()
    .describe('text, or parts of type text, input_text, output_text or refusal'),
  thinking: z.string().nullish().describe('assistant: the analysis before the answer; blank: left out and counted'),
  reasoning: z.string().nullish().describe('the same, as OpenRouter and vLLM name it'),
  reasoning_content: z.string().nullish().describe('the same, as llama.cpp and SGLang name it'),
  tool_calls: orText(z.array(toolCall).nullish()).describe('assistant: calls, as a list or its JSON text'),
  tool_call_id: z.string().nullish().describe('tool: which call this answers'),
  name: z
    .string()
    .nullish()
    .describe('tool: the function, where there is no tool_call_id; elsewhere not used, counted'),
  refusal: z.string().nullish().describe('assistant: taken as the answer where content is empty'),
  weight: z
    .union([z.literal(0), z.literal(1)])
    .nullish()
    .describe('assistant: 0 keeps the message as history and does not train it'),
  annotations: z.array(z.unknown()).nullish().describe('of OpenAI clients; not used, counted where there are any'),
  audio: z.null({ error: 'sound cannot be trained; leave the field out' }).optional().describe('null only'),
  function_call: z
    .null({ error: 'the old form of a call; give tool_calls: [{"function": {"name", "arguments"}}]' })
    .optional()
    .describe('null only'),
});

/** {type, name, parameters} as the Responses API has it, or without a type, is the same tool. */
const nested = (v: unknown): unknown => {
  if (typeof v !== 'object' || v === null || Array.isArray(v) || 'function' in v || !('name' in v)) return v;
  const { type, ...rest } = v as Record<string, unknown>;
  return { ...(type === undefined || type === null ? {} : { type }), function: rest };
};
const chatTool = z.preprocess(
  nested,
  z.strictObject({
    type: z.literal('function').nullish(),
    function: z.strictObject({
      name: z.string().describe('letters, digits, _ . -'),
      description: z.string().nullish(),
      parameters: orText(jsonObject.nullish()).describe('JSON schema of the arguments'),
      strict: z.boolean().nullish().describe('not used'),
    }),
  }),
);

/** A row of the format `chat`; also the body of a chat request, as far as it concerns the conversation. */
export const chatRow = z.strictObject({
  messages: z.array(chatMessage).min(1).describe('the conversation; every assistant message is trained'),
  tools: orText(z.array(chatTool).nullish()).describe('functions it may call, as a list or its JSON text'),
  reasoning_effort: z.enum(['low', 'medium', 'high']).nullish().describe('default medium'),
  parallel_tool_calls: z.boolean().nullish().describe('of the API; not used'),
  response_format: z
    .discriminatedUnion('type', [
      z.strictObject({ type: z.literal('text') }),
      z.strictObject({
        type: z.literal('json_schema'),
        json_schema: z.strictObject({
          name: z.string(),
          description: z.string().nullish(),
          schema: jsonObject.nullish(),
          strict: z.boolean().nullish(),
        }),
      }),
    ])
    .nullish()
    .describe('stands at the end of the developer message'),
});
export type ChatRow = z.infer<typeof chatRow>;
export type ChatMessage = ChatRow['messages'][number];
export type ChatTool = NonNullable<ChatRow['tools']>[number];

/** What is left out or doubtful and no error: counted, so that it is seen. */
export type ChatNote =
  | 'annotations_unused'
  | 'arguments_not_json'
  | 'blank_reasoning'
  | 'name_unused'
  | 'null_argument'
  | 'tool_name_builtin'
  | 'tool_schema_any'
  | 'tool_schema_rounded';

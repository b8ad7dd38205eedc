// OpenAI-style chat rows → harmony messages. Text stays as it was given; only its place and channel are decided here.
import { z } from 'zod';
import { DataError, type ErrorCode } from '../base/errors.js';
import { developerText, type SystemText, systemText } from './prompt-text.js';
import { CONSTRAIN, type Conversation } from './render.js';
import type { FunctionTool } from './tool-types.js';
import type { Message } from './types.js';

const schema = z.record(z.string(), z.unknown());
const contentPart = z.object({ type: z.string(), text: z.string().optional() });

const chatMessage = z.strictObject({
  role: z.string().describe('system, developer, user, assistant or tool'),
  content: z
    .union([z.string(), z.array(contentPart)])
    .nullish()
    .describe('text, or text parts'),
  thinking: z.string().nullish().describe('assistant: the analysis before the answer'),
  reasoning: z.string().nullish().describe('the same, as OpenRouter and vLLM name it'),
  reasoning_content: z.string().nullish().describe('the same, as llama.cpp and SGLang name it'),
  tool_calls: z
    .array(
      z.strictObject({
        id: z.string().optional(),
        type: z.literal('function').optional(),
        function: z.strictObject({
          name: z.string(),
          arguments: z.union([z.string(), schema]).describe('JSON text, or the object'),
        }),
      }),
    )
    .nullish(),
  tool_call_id: z.string().optional().describe('tool: which call this answers'),
  name: z.string().optional().describe('tool: the function, where there is no tool_call_id'),
  refusal: z.string().nullish().describe('assistant: taken as the answer where content is empty'),
});

const chatTool = z.strictObject({
  type: z.literal('function'),
  function: z.strictObject({
    name: z.string(),
    description: z.string().optional(),
    parameters: schema.optional(),
    strict: z.boolean().nullish(),
  }),
});

/** A row of the format `chat`; also the body of a chat request, as far as it concerns the conversation. */
export const chatRow = z.strictObject({
  messages: z.array(chatMessage).min(1),
  tools: z.array(chatTool).nullish(),
  reasoning_effort: z.enum(['low', 'medium', 'high']).nullish().describe('default medium'),
  response_format: z
    .discriminatedUnion('type', [
      z.strictObject({ type: z.literal('text') }),
      z.strictObject({
        type: z.literal('json_schema'),
        json_schema: z.strictObject({
          name: z.string(),
          description: z.string().optional(),
          schema: schema.optional(),
          strict: z.boolean().nullish(),
        }),
      }),
    ])
    .nullish(),
});
export type ChatRow = z.infer<typeof chatRow>;
type ChatMessage = ChatRow['messages'][number];

export interface ChatOptions {
  /** Fields of the system message; the row's tools and effort are filled in. null: no system message. */
  readonly system?: Omit<SystemText, 'functions'> | null;
}

const fail = (code: ErrorCode, message: string, details: Record<string, unknown> = {}): never => {
  throw new DataError(code, message, details);
};
const NAME = /^[A-Za-z0-9_.-]{1,128}$/;

/**
 * System message, developer message (leading system and developer texts, tools, response format), then the dialogue. An
 * assistant message becomes up to three kinds: analysis (its thinking), final (its content; commentary where calls
 * follow), one commentary message per call.
 * @throws DataError unknown_role, empty_message, bad_content, reasoning_conflict, misplaced_field, bad_tool_name,
 * unknown_tool_call
 */
export function toConversation(row: ChatRow, options: ChatOptions = {}): Conversation {
  const tools = (row.tools ?? []).map((t): FunctionTool => {
    const { name, description, parameters } = t.function;
    if (!NAME.test(name))
      fail('bad_tool_name', `tools: the name ${JSON.stringify(name)} is not letters, digits, _ . -`);
    return {
      name,
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined ? {} : { parameters }),
    };
  });
  const format = row.response_format?.type === 'json_schema' ? row.response_format.json_schema : undefined;
  const messages: Message[] = [];
  if (options.system !== null) {
    const effort = row.reasoning_effort ?? options.system?.effort;
    messages.push({
      role: 'system',
      content: systemText({ ...options.system, functions: tools.length > 0, ...(effort ? { effort } : {}) }),
    });
  }

  let at = 0;
  const instructions: string[] = [];
  for (; at < row.messages.length && isInstruction(row.messages[at]!); at++)
    instructions.push(instructionText(row.messages[at]!, at));
  const developer = developerText({
    instructions: instructions.join('\n\n'),
    tools,
    ...(format
      ? {
          responseFormats: [
            {
              name: format.name,
              schema: format.schema ?? {},
              ...(format.description === undefined ? {} : { description: format.description }),
            },
          ],
        }
      : {}),
  });
  if (developer !== '') messages.push({ role: 'developer', content: developer });

  const calls: { readonly id: string | undefined; readonly name: string }[] = [];
  for (; at < row.messages.length; at++) {
    const m = row.messages[at]!;
    const where = `messages[${at}]`;
    checkFields(m, where);
    switch (m.role) {
      case 'system':
      case 'developer':
        messages.push({ role: 'developer', content: developerText({ instructions: instructionText(m, at) }) });
        break;
      case 'user':
        messages.push({
          role: 'user',
          content: textOf(m, where) ?? fail('empty_message', `${where}: a user message without content`),
        });
        break;
      case 'assistant':
        messages.push(...assistantMessages(m, where, calls));
        break;
      case 'tool':
        messages.push({
          role: 'tool',
          name: calledName(m, where, calls),
          recipient: 'assistant',
          channel: 'commentary',
          content: textOf(m, where) ?? '',
        });
        break;
      default:
        fail(
          'unknown_role',
          `${where}: role ${JSON.stringify(m.role)} is not known; wanted system, developer, user, assistant or tool`,
          { role: m.role },
        );
    }
  }
  return { messages };
}

const isInstruction = (m: ChatMessage): boolean => m.role === 'system' || m.role === 'developer';

function instructionText(m: ChatMessage, at: number): string {
  checkFields(m, `messages[${at}]`);
  return textOf(m, `messages[${at}]`) || fail('empty_message', `messages[${at}]: a ${m.role} message without content`);
}

function textOf(m: ChatMessage, where: string): string | undefined {
  if (typeof m.content === 'string') return m.content;
  if (!m.content) return undefined;
  return m.content
    .map((part) =>
      part.type === 'text' && part.text !== undefined
        ? part.text
        : fail('bad_content', `${where}: a content part of type ${JSON.stringify(part.type)}; only text is supported`),
    )
    .join('');
}

/** A field that means nothing on this role would be lost in silence. */
function checkFields(m: ChatMessage, where: string): void {
  const foreign =
    (['thinking', 'reasoning', 'reasoning_content', 'tool_calls', 'refusal'] as const).find(
      (k) => m.role !== 'assistant' && m[k] !== undefined && m[k] !== null,
    ) ?? (m.tool_call_id !== undefined && m.role !== 'tool' ? 'tool_call_id' : undefined);
  if (foreign && ['system', 'developer', 'user', 'tool', 'assistant'].includes(m.role))
    fail('misplaced_field', `${where}: ${foreign} has no meaning on a ${m.role} message`);
}

function assistantMessages(
  m: ChatMessage,
  where: string,
  calls: { id: string | undefined; name: string }[],
): Message[] {
  const out: Message[] = [];
  const thoughts = [m.thinking, m.reasoning, m.reasoning_content].filter(
    (t): t is string => typeof t === 'string' && t !== '',
  );
  if (thoughts.some((t) => t !== thoughts[0]))
    fail('reasoning_conflict', `${where}: thinking, reasoning and reasoning_content differ; give one of them`);
  if (thoughts[0] !== undefined) out.push({ role: 'assistant', channel: 'analysis', content: thoughts[0] });
  const toolCalls = m.tool_calls ?? [];
  const content = textOf(m, where) || m.refusal || textOf(m, where);
  if (toolCalls.length === 0) {
    if (content !== undefined) out.push({ role: 'assistant', channel: 'final', content });
  } else if (content) out.push({ role: 'assistant', channel: 'commentary', content });
  for (const call of toolCalls) {
    const { name, arguments: args } = call.function;
    if (!NAME.test(name))
      fail('bad_tool_name', `${where}: the function name ${JSON.stringify(name)} is not letters, digits, _ . -`);
    const recipient = name.startsWith('functions.') ? name : `functions.${name}`;
    calls.push({ id: call.id, name: recipient });
    out.push({
      role: 'assistant',
      channel: 'commentary',
      recipient,
      contentType: `${CONSTRAIN}json`,
      content: typeof args === 'string' ? args : JSON.stringify(args),
    });
  }
  return out.length > 0
    ? out
    : fail('empty_message', `${where}: an assistant message without content, thinking or tool_calls`);
}

function calledName(
  m: ChatMessage,
  where: string,
  calls: readonly { readonly id: string | undefined; readonly name: string }[],
): string {
  if (m.tool_call_id !== undefined) {
    const call = calls.findLast((c) => c.id === m.tool_call_id);
    if (call) return call.name;
    if (m.name === undefined)
      fail('unknown_tool_call', `${where}: tool_call_id ${JSON.stringify(m.tool_call_id)} answers no call before it`);
  }
  if (m.name !== undefined) {
    if (!NAME.test(m.name))
      fail('bad_tool_name', `${where}: the name ${JSON.stringify(m.name)} is not letters, digits, _ . -`);
    return m.name.startsWith('functions.') ? m.name : `functions.${m.name}`;
  }
  return (
    calls.at(-1)?.name ??
    fail('unknown_tool_call', `${where}: a tool message that answers no call; give tool_call_id or name`)
  );
}

// OpenAI-style chat rows → harmony messages. Text stays as it was given; only its place and channel are decided here.
import { DataError, type ErrorCode } from '../base/errors.js';
import { isRounded, jsonText, parseJson } from '../base/json.js';
import type { ChatMessage, ChatNote, ChatRow, ChatTool } from './chat-row.js';
import { developerText, type SystemText, systemText } from './prompt-text.js';
import { CONSTRAIN, type Conversation } from './render.js';
import { Calls } from './tool-results.js';
import { type FunctionTool, untold } from './tool-types.js';
import type { Message } from './types.js';

export { type ChatNote, type ChatRow, chatRow } from './chat-row.js';

/** What errors call the parts of a conversation. */
export interface ChatNames {
  /** A message by its place in the row; default `messages[0]`. */
  readonly message?: (at: number) => string;
  /** The field by which a result names its call; default `tool_call_id`. */
  readonly callId?: string;
}
export interface ChatOptions {
  /** Fields of the system message; the row's tools and effort are filled in. null: no system message. */
  readonly system?: Omit<SystemText, 'functions'> | null;
  /** Told of what is left out or doubtful and no error; may be told of one kind several times. */
  readonly note?: (note: ChatNote) => void;
  /** Instructions and answers that say nothing are left out. Default: refused, as nobody should train them. */
  readonly skipsEmpty?: boolean;
  readonly names?: ChatNames;
}

type Reading = Required<Pick<ChatOptions, 'note' | 'skipsEmpty'>> & { readonly nameOf: (at: number) => string };

const fail = (code: ErrorCode, message: string, details: Record<string, unknown> = {}): never => {
  throw new DataError(code, message, details);
};
const NAME = /^[A-Za-z0-9_.-]{1,128}$/;
/** Roles by the names that others give them. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  human: 'user',
  ai: 'assistant',
  bot: 'assistant',
  gpt: 'assistant',
  model: 'assistant',
  function: 'tool',
  observation: 'tool',
};

/**
 * System message, developer message (leading system and developer texts, tools, response format), then the dialogue. An
 * assistant message becomes up to three kinds: analysis (its thinking), final (its content; commentary where calls
 * follow), one commentary message per call. Those of weight 0 are `untrained`.
 * @throws DataError unknown_role, empty_message, bad_content, reasoning_conflict, misplaced_field, bad_tool_name,
 * unknown_tool_call, tool_call_twice, tool_name_conflict, tool_result_ambiguous
 */
export function toConversation(row: ChatRow, options: ChatOptions = {}): Conversation {
  const { note = () => {}, skipsEmpty = false, names = {} } = options,
    { message: nameOf = (at) => `messages[${at}]`, callId = 'tool_call_id' } = names,
    reading = { note, skipsEmpty, nameOf };
  const messages: Message[] = [];
  if (options.system !== null) {
    const effort = row.reasoning_effort ?? options.system?.effort;
    const functions = (row.tools ?? []).length > 0;
    messages.push({
      role: 'system',
      content: systemText({ ...options.system, functions, ...(effort ? { effort } : {}) }),
    });
  }
  let at = 0;
  const instructions: string[] = [];
  for (; at < row.messages.length && isInstruction(row.messages[at]!); at++)
    instructions.push(instructionText(row.messages[at]!, at, reading));
  const developer = developerText({
    instructions: instructions.filter((text) => text !== '').join('\n\n'),
    tools: declaredTools(row.tools ?? [], note),
    ...responseFormats(row),
  });
  if (developer !== '') messages.push({ role: 'developer', content: developer });

  const calls = new Calls(nameOf, callId);
  const untrained = new Set<number>();
  for (; at < row.messages.length; at++) {
    const m = row.messages[at]!;
    const where = nameOf(at);
    checkFields(m, where, note);
    switch (m.role) {
      case 'system':
      case 'developer': {
        const instructions = instructionText(m, at, reading);
        if (instructions !== '') messages.push({ role: 'developer', content: developerText({ instructions }) });
        break;
      }
      case 'user':
        calls.close();
        messages.push({
          role: 'user',
          content: textOf(m, where) ?? fail('empty_message', `${where}: a user message without content`),
        });
        break;
      case 'assistant': {
        const from = messages.length;
        messages.push(...assistantMessages(m, where, calls, reading));
        if (m.weight === 0) for (let i = from; i < messages.length; i++) untrained.add(i);
        break;
      }
      case 'tool': {
        let end = at + 1;
        while (row.messages[end]?.role === 'tool') checkFields(row.messages[end]!, nameOf(end++), note);
        for (const [i, name] of calls.answer(row.messages.slice(at, end), at).entries())
          messages.push({
            role: 'tool',
            name,
            recipient: 'assistant',
            channel: 'commentary',
            content: textOf(row.messages[at + i]!, nameOf(at + i)) ?? '',
          });
        at = end - 1;
        break;
      }
      default:
        fail(
          'unknown_role',
          `${where}: role ${JSON.stringify(m.role)} is not known; wanted system, developer, user, assistant or tool` +
            (Object.hasOwn(ELSEWHERE, m.role) ? `; it may be ${ELSEWHERE[m.role]}` : ''),
          { role: m.role },
        );
    }
  }
  return untrained.size > 0 ? { messages, untrained } : { messages };
}

/** Built-in tools have these names: called on channel analysis, without `functions.` before them. */
const BUILTIN = ['python', 'browser'];

function declaredTools(tools: readonly ChatTool[], note: (note: ChatNote) => void): FunctionTool[] {
  const names = new Set<string>();
  return tools.map((t): FunctionTool => {
    const { name, description, parameters } = t.function;
    if (!NAME.test(name))
      fail('bad_tool_name', `tools: the name ${JSON.stringify(name)} is not letters, digits, _ . -`);
    if (names.has(name)) fail('bad_tool_name', `tools: two have the name ${JSON.stringify(name)}; rename one`);
    names.add(name);
    if (BUILTIN.includes(name.replace(/^functions\./, '').split('.')[0]!)) note('tool_name_builtin');
    if (parameters && untold(parameters).length > 0) note('tool_schema_any');
    if (isRounded(parameters)) note('tool_schema_rounded');
    return {
      name,
      ...(typeof description === 'string' ? { description } : {}),
      ...(parameters ? { parameters } : {}),
    };
  });
}

function responseFormats(row: ChatRow): Pick<Parameters<typeof developerText>[0], 'responseFormats'> {
  if (row.response_format?.type !== 'json_schema') return {};
  const { name, description, schema } = row.response_format.json_schema;
  return {
    responseFormats: [{ name, schema: schema ?? {}, ...(typeof description === 'string' ? { description } : {}) }],
  };
}

const isInstruction = (m: ChatMessage): boolean => m.role === 'system' || m.role === 'developer';

function instructionText(m: ChatMessage, at: number, { note, skipsEmpty, nameOf }: Reading): string {
  const where = nameOf(at);
  checkFields(m, where, note);
  const text = textOf(m, where) ?? '';
  return text !== '' || skipsEmpty ? text : fail('empty_message', `${where}: a ${m.role} message without content`);
}

/** What a message says; undefined: nothing was given. */
function textOf(m: ChatMessage, where: string): string | undefined {
  if (typeof m.content === 'string') return m.content;
  if (!m.content) return undefined;
  return m.content
    .filter((part) => part.type !== 'refusal')
    .map((part) =>
      ['text', 'input_text', 'output_text'].includes(part.type) && typeof part.text === 'string'
        ? part.text
        : fail('bad_content', `${where}: a content part of type ${JSON.stringify(part.type)}; only text can be read`),
    )
    .join('');
}

/** A field that means nothing on this role would be lost in silence. */
function checkFields(m: ChatMessage, where: string, note: (note: ChatNote) => void): void {
  if (!['system', 'developer', 'user', 'tool', 'assistant'].includes(m.role)) return;
  const given = (v: unknown): boolean => v !== undefined && v !== null && !(Array.isArray(v) && v.length === 0);
  const foreign =
    (['thinking', 'reasoning', 'reasoning_content', 'tool_calls', 'refusal'] as const).find(
      (k) => m.role !== 'assistant' && given(m[k]) && m[k] !== '',
    ) ??
    (m.role !== 'tool' && given(m.tool_call_id) && m.tool_call_id !== '' ? 'tool_call_id' : undefined) ??
    (m.role !== 'assistant' && m.weight === 1 ? 'weight 1' : undefined);
  if (foreign) fail('misplaced_field', `${where}: ${foreign} has no meaning on a ${m.role} message`);
  if (m.role !== 'tool' && given(m.name)) note('name_unused');
  if (given(m.annotations)) note('annotations_unused');
}

/** The one text of several names for it. Blank ones are no reasoning: a model would learn to begin with nothing. */
function thinkingOf(m: ChatMessage, where: string, note: (note: ChatNote) => void): string | undefined {
  const given = [m.thinking, m.reasoning, m.reasoning_content].filter(
    (t): t is string => typeof t === 'string' && t !== '',
  );
  const thoughts = given.filter((t) => t.trim() !== '');
  if (thoughts.length < given.length) note('blank_reasoning');
  if (thoughts.some((t) => t !== thoughts[0]))
    fail('reasoning_conflict', `${where}: thinking, reasoning and reasoning_content differ; give one of them`);
  return thoughts[0];
}

/** The answer of an assistant message: its content, or the refusal where that is empty. */
function answerOf(m: ChatMessage, where: string): string | undefined {
  const parts = Array.isArray(m.content) ? m.content.filter((p) => p.type === 'refusal') : [];
  const refusal = [m.refusal ?? '', ...parts.map((p) => p.refusal ?? '')].join('');
  const content = textOf(m, where);
  if (refusal !== '' && content !== undefined && content.trim() !== '')
    fail('bad_content', `${where}: has both content and a refusal; keep the one that was said`);
  return content?.trim() || refusal === '' ? content : refusal;
}

function isJsonObject(text: string): boolean {
  try {
    const value = parseJson(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

function assistantMessages(m: ChatMessage, where: string, calls: Calls, { note, skipsEmpty }: Reading): Message[] {
  const out: Message[] = [];
  const thinking = thinkingOf(m, where, note);
  if (thinking !== undefined) out.push({ role: 'assistant', channel: 'analysis', content: thinking });
  const toolCalls = m.tool_calls ?? [];
  const content = answerOf(m, where);
  if (toolCalls.length > 0) {
    if (content?.trim()) out.push({ role: 'assistant', channel: 'commentary', content });
  } else if (content !== undefined && !(skipsEmpty && content.trim() === '')) {
    if (content.trim() === '')
      fail('empty_message', `${where}: the answer is blank; give it a text, or content null where there is none`);
    calls.close();
    out.push({ role: 'assistant', channel: 'final', content });
  }
  for (const [i, recipient] of calls.add(m, where).entries()) {
    const args = toolCalls[i]?.function.arguments ?? '';
    if (typeof args === 'string' && !isJsonObject(args)) note('arguments_not_json');
    out.push({
      role: 'assistant',
      channel: 'commentary',
      recipient,
      contentType: `${CONSTRAIN}json`,
      content: typeof args === 'string' ? args : jsonText(args),
    });
  }
  return out.length > 0 || skipsEmpty
    ? out
    : fail('empty_message', `${where}: an assistant message without content, thinking or tool_calls`);
}

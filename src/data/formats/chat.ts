// Conversations in OpenAI's form, with thinking, tools and reasoning_effort per row; fields: chatRow in
// src/harmony/chat.ts.
import { type ChatRow, chatRow, toConversation } from '../../harmony/chat.js';
import {
  type Conversation,
  lossWeights,
  type Renderable,
  type Rendered,
  trainingExamples,
} from '../../harmony/render.js';
import { CHANNELS } from '../example.js';
import type { Format, FormatContext, RowExample, RowPrompt } from '../format.js';
import { checkMarkup } from '../markup.js';

export function channelPlaces(rendered: Rendered, conversation: Conversation): Uint8Array {
  return Uint8Array.from(rendered.tokens, (_, i) => {
    if (!rendered.trained[i]) return 0;
    const channel = conversation.messages[rendered.message[i] ?? -1]?.channel;
    // As lossWeights counts them: a message of no known channel is a final.
    return CHANNELS.indexOf(channel === 'analysis' || channel === 'commentary' ? channel : 'final');
  });
}

/** The conversation of a row, what is doubtful in it told. @throws {DataError} as toConversation, markup_in_text */
export function conversationOf(row: ChatRow, context: FormatContext): Conversation {
  checkMarkup(row, context);
  return toConversation(row, { note: context.note });
}

/**
 * An example with its loss weights; of one that is too long what the context wants of it. @param from the first message
 * that weighs anything
 */
export const weighted = (
  example: Renderable,
  conversation: Conversation,
  context: FormatContext,
  from = 0,
): RowExample => weightedRendering(example, conversation, context, from).example;

/** The same, and the place of the first token that the model must write of those messages; −1: there is none. */
export function weightedRendering(
  example: Renderable,
  conversation: Conversation,
  context: FormatContext,
  from: number,
): { readonly example: RowExample; readonly begins: number } {
  const most = example.length > context.maxTokens ? (context.cuts ? context.maxTokens : 0) : example.length;
  const rendered = example.render(most);
  const isOf = (i: number): boolean => (rendered.message[i] ?? -1) >= from;
  return {
    begins: rendered.trained.findIndex((t, i) => t === 1 && isOf(i)),
    example: {
      length: example.length,
      tokens: rendered.tokens,
      weights: lossWeights(rendered, conversation, context.loss).map((w, i) => (isOf(i) ? w : 0)),
      channels: channelPlaces(rendered, conversation),
    },
  };
}

const PLAIN_ROLES: ReadonlySet<unknown> = new Set(['system', 'developer', 'user', 'assistant']);
const PLAIN_FIELDS: ReadonlySet<string> = new Set(['role', 'content', 'thinking', 'reasoning_content']);

/** Most rows: messages of a role and texts, and nothing else. */
function isPlainChat(row: unknown): row is ChatRow {
  if (typeof row !== 'object' || row === null) return false;
  const { messages } = row as { readonly messages?: unknown };
  if (!Array.isArray(messages) || messages.length === 0) return false;
  for (const key in row) if (key !== 'messages') return false;
  for (const m of messages as Readonly<Record<string, unknown>>[]) {
    if (typeof m !== 'object' || m === null || !PLAIN_ROLES.has(m.role) || typeof m.content !== 'string') return false;
    for (const key in m) if (!PLAIN_FIELDS.has(key) || typeof m[key] !== 'string') return false;
  }
  return true;
}

const BLANK = /^\s*$/;
/** Of such a row: whether nothing in it could be wrong or doubtful, so that it need not be made a conversation. */
function isRight({ messages }: ChatRow): boolean {
  return messages.every(({ role, content, thinking, reasoning_content: reasoning }) => {
    if (typeof content !== 'string' || content.includes('<')) return false;
    if (role === 'assistant') return !BLANK.test(content) && isThought(thinking) && isThought(reasoning);
    return thinking === undefined && reasoning === undefined && (role === 'user' || content !== '');
  });
}
const isThought = (t: string | null | undefined): boolean =>
  t === undefined || (typeof t === 'string' && !t.includes('<') && !BLANK.test(t));

export const chat: Format<ChatRow> = {
  name: 'chat',
  row: chatRow,
  recognise: (r) => (Array.isArray(r.messages) ? 'messages' : null),
  isPlain: isPlainChat,
  check(row, context) {
    if (!isPlainChat(row) || !isRight(row) || row.messages.some((m) => m.thinking && m.reasoning_content))
      conversationOf(row, context);
  },
  toChat: (row) => row,
  *toExamples(row, context): Generator<RowExample> {
    const conversation = conversationOf(row, context);
    for (const example of trainingExamples(conversation, context.tokenizer(), context.maxTokens))
      yield weighted(example, conversation, context);
  },
  /** The last turn's answer; of weight 0 it is none to expect. */
  toPrompts(row): readonly RowPrompt[] {
    const { messages, untrained } = toConversation(row);
    const answerFrom = messages.findLastIndex((m) => m.role !== 'assistant') + 1;
    const at = messages.findLastIndex((m, i) => i >= answerFrom && m.channel === 'final');
    const expected = messages[at];
    if (!expected || answerFrom === 0 || untrained?.has(at)) return [];
    return [{ messages: messages.slice(0, answerFrom), expected: expected.content }];
  },
};

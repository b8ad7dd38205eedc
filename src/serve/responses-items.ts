// Items of /v1/responses: what a request may bring, and what they say as messages of a conversation.
import { z } from 'zod';
import type { ChatMessage } from '../harmony/chat-row.js';
import { unseal } from './seal.js';

const status = z.enum(['in_progress', 'completed', 'incomplete']).nullish();
const id = z.string().nullish();
const textPart = z.looseObject({ type: z.enum(['input_text', 'output_text']), text: z.string() });
const refusalPart = z.looseObject({ type: z.literal('refusal'), refusal: z.string() });

const messageItem = z.strictObject({
  type: z.literal('message').nullish(),
  role: z.enum(['user', 'assistant', 'system', 'developer']),
  content: z.union([z.string(), z.array(z.union([textPart, refusalPart]))]),
  phase: z.enum(['commentary', 'final_answer']).nullish(),
  id,
  status,
});
const reasoningItem = z.strictObject({
  type: z.literal('reasoning'),
  summary: z.array(z.looseObject({ type: z.literal('summary_text'), text: z.string() })).nullish(),
  content: z.array(z.looseObject({ type: z.literal('reasoning_text'), text: z.string() })).nullish(),
  encrypted_content: z.string().nullish(),
  id,
  status,
});
const callItem = z.strictObject({
  type: z.literal('function_call'),
  call_id: z.string(),
  name: z.string(),
  arguments: z.string(),
  id,
  status,
  namespace: z.null().optional(),
  caller: z.looseObject({ type: z.literal('direct') }).nullish(),
});
const outputItem = z.strictObject({
  type: z.literal('function_call_output'),
  call_id: z.string(),
  output: z.union([z.string(), z.array(textPart)]),
  id,
  status,
  caller: z.looseObject({ type: z.literal('direct') }).nullish(),
});
/** Names an item of a response that is kept. */
const referenceItem = z.strictObject({ type: z.literal('item_reference').nullish(), id: z.string() });
export type ReferenceItem = z.infer<typeof referenceItem>;
const ITEMS = [messageItem, reasoningItem, callItem, outputItem] as const;
export const inputItem = z.union(ITEMS);
/** As a request brings them. */
export const requestItem = z.union([...ITEMS, referenceItem]);
export type InputItem = z.infer<typeof inputItem>;
/** By its id alone, too. */
export const isReference = (item: InputItem | ReferenceItem): item is ReferenceItem =>
  item.type === 'item_reference' || !(item.type || 'role' in item);

/** An assistant message that is being put together. */
interface Draft {
  /** Which item it begins with, its first call where it has one. */
  at: number;
  thinking: string[];
  content: string[];
  calls: { id: string; type: 'function'; function: { name: string; arguments: string } }[];
  /** It has been answered: what comes now is another message. */
  final: boolean;
}

const contentOf = (content: string | readonly { readonly type: string }[]): NonNullable<ChatMessage['content']> =>
  typeof content === 'string' ? content : (content as NonNullable<Exclude<ChatMessage['content'], string>>);
const plain = (content: string | readonly { readonly text?: unknown; readonly refusal?: unknown }[]): string =>
  typeof content === 'string' ? content : content.map((p) => String(p.text ?? p.refusal ?? '')).join('');
const thoughts = ({ content, encrypted_content }: z.infer<typeof reasoningItem>): string => {
  const open = (content ?? []).map((p) => p.text).join('');
  return open !== '' || !encrypted_content ? open : (unseal(encrypted_content) ?? '');
};

/**
 * Items as chat messages: reasoning belongs to the answer or the call that it comes before, calls of one turn to one
 * message, what is said before a call to the call.
 * @param places is told of each message the item that it is made of, the first of several
 */
export function itemsToMessages(
  items: readonly InputItem[],
  places: Map<ChatMessage, number> = new Map(),
): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  const add = (message: ChatMessage, at: number): void => {
    messages.push(message);
    places.set(message, at);
  };
  let draft: Draft | null = null;
  const flush = (): void => {
    if (!draft) return;
    const { at, thinking, content, calls } = draft;
    draft = null;
    if (thinking.length + content.length + calls.length === 0) return;
    const message: ChatMessage = {
      role: 'assistant',
      ...(thinking.length > 0 ? { thinking: thinking.join('\n') } : {}),
      ...(content.length > 0 ? { content: content.join('\n') } : {}),
      ...(calls.length > 0 ? { tool_calls: calls } : {}),
    };
    add(message, at);
  };
  /** The message that goes on; a new one where the last was answered, or has called. */
  const open = (at: number, after: (d: Draft) => boolean): Draft => {
    if (draft && after(draft)) flush();
    draft ??= { at, thinking: [], content: [], calls: [], final: false };
    return draft;
  };
  for (const [at, item] of items.entries()) {
    switch (item.type) {
      case 'reasoning': {
        const text = thoughts(item);
        if (text.trim() !== '') open(at, (d) => d.final || d.calls.length > 0).thinking.push(text);
        break;
      }
      case 'function_call': {
        const d = open(at, () => false);
        if (d.calls.length === 0) d.at = at;
        d.calls.push({
          id: item.call_id,
          type: 'function',
          function: { name: item.name, arguments: item.arguments },
        });
        break;
      }
      case 'function_call_output':
        flush();
        add({ role: 'tool', tool_call_id: item.call_id, content: contentOf(item.output) }, at);
        break;
      default: {
        if (item.role !== 'assistant') {
          flush();
          add({ role: item.role, content: contentOf(item.content) }, at);
          break;
        }
        const text = plain(item.content);
        if (text.trim() === '') break;
        const d = open(at, (o) => o.final || o.calls.length > 0);
        d.content.push(text);
        d.final = item.phase !== 'commentary';
      }
    }
  }
  flush();
  return messages;
}

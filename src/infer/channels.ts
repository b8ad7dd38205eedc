// Sampled tokens of one turn → text by channel, over harmony's parser.
import type { Header } from '../harmony/header.js';
import { HarmonyParser, type ParseEvent } from '../harmony/parse.js';
import { controlIds } from '../harmony/render.js';
import type { Message, Role, Tokenizer } from '../harmony/types.js';

/**
 * A message that names no channel, or is not the assistant's, belongs to none of the known ones: it must not pass for a
 * final.
 */
export const NO_CHANNEL = 'unknown';

export interface Delta {
  /** Which message of the turn, from 0: two of one channel are two texts. */
  readonly message: number;
  /** Whose it is: a model may write as somebody else. */
  readonly role: Role;
  readonly channel: string;
  readonly recipient: string | null;
  /** Empty where a message with a recipient begins: a call is known before its arguments. */
  readonly text: string;
}
export interface Tracker {
  /** An analysis message is being written. */
  readonly thinking: boolean;
  /** The header of the message that is being written; null: none is. */
  readonly current: Header | null;
  push(token: number): readonly Delta[];
  /** Ends the turn. @returns text that still waited for the rest of a character, and all messages */
  end(): { readonly deltas: readonly Delta[]; readonly messages: readonly Message[] };
}

/** Ids that make a conversation of a prompt. */
function makesConversation(tokenizer: Tokenizer): ReadonlySet<number> {
  const { endoftext: _, ...ids } = controlIds(tokenizer);
  return new Set(Object.values(ids));
}
/** Whether tokens given as a prompt are a conversation; else they are text to go on with. */
export function isConversation(tokens: Int32Array, tokenizer: Tokenizer): boolean {
  const ids = makesConversation(tokenizer);
  return tokens.some((t) => ids.has(t));
}

/**
 * @param recipients tools that were declared, as `functions.get_weather`
 * @param before     tokens of the prompt, where it was given as tokens: what is written goes on from there
 */
export function createTracker(
  tokenizer: Tokenizer,
  recipients: readonly string[] = [],
  before: Int32Array | null = null,
): Tracker {
  const parser = new HarmonyParser(tokenizer, { recipients, completion: before === null });
  for (const token of before ?? []) parser.push(token);
  const first = parser.messages.length;
  // A message that the prompt began has its text from the prompt too; what was written is what came since.
  const open: Message | null = parser.current ? { ...parser.current, content: '' } : null;
  const began: string[] = [];
  const deltas = (events: readonly ParseEvent[]): readonly Delta[] => {
    const out: Delta[] = [];
    for (const event of events) {
      if (event.type === 'end') continue;
      const { role, channel, recipient } = event.header;
      const text = event.type === 'delta' ? event.text : '';
      if (text === '' && (event.type === 'delta' || recipient === undefined)) continue;
      if (open && event.message === first) began.push(text);
      out.push({
        message: event.message - first,
        role,
        channel: (role === 'assistant' ? channel : undefined) ?? NO_CHANNEL,
        recipient: recipient ?? null,
        text,
      });
    }
    return out;
  };
  return {
    get thinking() {
      const header = parser.current;
      return header?.role === 'assistant' && header.channel === 'analysis' && header.recipient === undefined;
    },
    get current() {
      return parser.current;
    },
    push: (token) => deltas(parser.push(token)),
    end() {
      const rest = deltas(parser.finish());
      const written = parser.messages.slice(first).map(({ terminator: _, ...message }): Message => message);
      if (open && written.length > 0) written[0] = { ...open, content: began.join('') };
      return { deltas: rest, messages: written };
    },
  };
}

/** Text that goes on with a text: no channels, one message, which passes for a final. */
export function createTextTracker(tokenizer: Tokenizer): Tracker {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const pieces: string[] = [];
  const deltas = (text: string): readonly Delta[] => {
    if (text === '') return [];
    pieces.push(text);
    return [{ message: 0, role: 'assistant', channel: 'final', recipient: null, text }];
  };
  return {
    thinking: false,
    current: { role: 'assistant', channel: 'final' },
    push: (token) => deltas(decoder.decode(tokenizer.bytes(token), { stream: true })),
    end() {
      const rest = deltas(decoder.decode());
      const content = pieces.join('');
      return { deltas: rest, messages: content === '' ? [] : [{ role: 'assistant', channel: 'final', content }] };
    },
  };
}

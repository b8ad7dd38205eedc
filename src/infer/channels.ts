// Sampled tokens of one turn → text by channel, over harmony's parser.
import type { Header } from '../harmony/header.js';
import { HarmonyParser, type ParseEvent } from '../harmony/parse.js';
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

/** @param recipients tools that were declared, as `functions.get_weather` */
export function createTracker(tokenizer: Tokenizer, recipients: readonly string[] = []): Tracker {
  const parser = new HarmonyParser(tokenizer, { recipients });
  const deltas = (events: readonly ParseEvent[]): readonly Delta[] =>
    events.flatMap((event) => {
      if (event.type !== 'delta' || event.text === '') return [];
      const { role, channel, recipient } = event.header;
      return [
        {
          message: event.message,
          role,
          channel: (role === 'assistant' ? channel : undefined) ?? NO_CHANNEL,
          recipient: recipient ?? null,
          text: event.text,
        },
      ];
    });
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
      return { deltas: rest, messages: parser.messages.map(({ terminator: _, ...message }) => message) };
    },
  };
}

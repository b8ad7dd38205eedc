// What a client may be shown of a turn: thoughts, what is said, calls. Every API speaks of these and of nothing else.
import type { Message, Role } from '../harmony/types.js';
import { isAnswer } from '../infer/content.js';

export type PartKind = 'reasoning' | 'content' | 'call';
export interface PartHead {
  /** Place of its message in the turn. */
  readonly index: number;
  readonly kind: PartKind;
  readonly channel: string;
  /** Of a call: the function, as the client declared it. Else empty. */
  readonly name: string;
}
export interface Part extends PartHead {
  /** Of a call: its arguments, as the model wrote them. */
  readonly text: string;
}
interface Written {
  readonly role: Role;
  readonly channel?: string;
  readonly recipient?: string | null;
}
/** What of a turn is what, given the tools that the request declares. */
export type Sorter = (written: Written, index: number) => PartHead;

/**
 * Calls go by the name that the client wrote: `functions.get_weather` is called get_weather abroad.
 * @param tools names that the client declared; what a text of the prompt says of tools makes none
 */
export function sorter(tools: readonly string[]): Sorter {
  const names = new Map(tools.map((name) => [`functions.${name}`, name]));
  return (written, index) => {
    const { role, channel = 'unknown', recipient } = written;
    const name = role === 'assistant' && recipient ? names.get(recipient) : undefined;
    if (name !== undefined) return { index, kind: 'call', channel, name };
    // A call of what nobody declared is no call that a client can answer; what stands on no known channel, or is said
    // in another's name, is no answer. Both are seen where thoughts are.
    return { index, kind: isAnswer(written) ? 'content' : 'reasoning', channel, name: '' };
  };
}

/** Parts of a turn's messages; those without text are left out, but for calls, which need none. */
export const partsOf = (messages: readonly Message[], sort: Sorter): readonly Part[] =>
  messages
    .map((m, i): Part => ({ ...sort(m, i), text: m.content }))
    .filter((part) => part.text !== '' || part.kind === 'call');

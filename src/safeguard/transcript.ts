// What of a response is judged. One rendering decides it, for answers as they are generated, for rows that are screened
// and for whatever else gives out what a model wrote: what is judged is what is released, and nothing that a model
// wrote is left out of it.
import { CONSTRAIN } from '../harmony/render.js';
import type { Message } from '../harmony/types.js';
import { channelLabel } from './contract.js';
import type { Channels } from './screen.js';

/** Said of nearly every tool call; any other content type is text of the model. */
const PLAIN_TYPES: readonly (string | undefined)[] = [undefined, 'json', `${CONSTRAIN}json`];

/** A message that is not the assistant's, or of no known channel, belongs to none of these: it is no final. */
export const channelOf = (m: Pick<Message, 'role' | 'channel'>): string =>
  m.role === 'assistant' ? channelLabel(m.channel ?? '') : 'other';

/**
 * What the header of a message says beyond a known channel: who else than the assistant speaks, an unknown channel, the
 * recipient of a tool call, an odd content type. All of it is the model's to write, and stands before its text; empty,
 * or with a blank at its end.
 */
export function headOf(m: Omit<Message, 'content'>): string {
  const head = [
    m.role === 'assistant' ? undefined : m.role,
    m.name,
    channelOf(m) === m.channel ? undefined : m.channel,
    m.recipient === undefined ? undefined : `to=${m.recipient}`,
    PLAIN_TYPES.includes(m.contentType) ? undefined : m.contentType,
  ].filter((part) => part !== undefined && part !== '');
  return head.map((part) => `${part} `).join('');
}
const renderMessage = (m: Message): string => headOf(m) + m.content;

/**
 * Text by channel (analysis, commentary, final, other), messages of one channel in order, each from a line of its own.
 * @param messages what the model wrote, all of it; what others said is not judged
 */
export function transcript(messages: readonly Message[]): Channels {
  const lines = new Map<string, string[]>();
  for (const m of messages) {
    const text = renderMessage(m);
    if (text === '') continue;
    const channel = channelOf(m);
    lines.set(channel, [...(lines.get(channel) ?? []), text]);
  }
  return Object.fromEntries([...lines].map(([channel, texts]) => [channel, texts.join('\n')]));
}

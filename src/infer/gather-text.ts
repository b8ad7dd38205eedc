// Text of several steps as one event. A small model makes a token faster than it can be told.
import type { TextEvent } from './protocol.js';

/** Text waits no longer for that of the next steps, ms; a model that takes so long for a token has each told at once. */
export const GATHER_MS = 10;

/** Two pieces of one message, one after the other; null: they are of two. */
export function joinText(before: unknown, after: unknown): TextEvent | null {
  const a = before as TextEvent,
    b = after as TextEvent;
  if (a.message !== b.message || a.role !== b.role || a.channel !== b.channel || a.recipient !== b.recipient)
    return null;
  const tokens = a.tokens && b.tokens ? [...a.tokens, ...b.tokens] : (a.tokens ?? b.tokens);
  return { ...a, text: a.text + b.text, pieces: (a.pieces ?? 1) + (b.pieces ?? 1), ...(tokens && { tokens }) };
}

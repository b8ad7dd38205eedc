// How text goes from the engine's thread: in few words, as a small model makes a token faster than it can be told.
import { joinTokens, type PackedTokens, type TokenBytes, TokenPacker, unpackTokens } from './pack-tokens.js';
import type { TextEvent } from './protocol.js';

/**
 * Longest that text waits for that of the next steps, ms, a picture of a screen: where a token takes as long, each is
 * told at once.
 */
export const GATHER_MS = 16;
/** Beside many others it may wait for three: half of what a server does for a token is what it does for a message. */
export const GATHER_MANY = { calls: 8, ms: 3 * GATHER_MS };

type WholeEvent = Omit<TextEvent, 'tokens'> & { readonly tokens?: PackedTokens };
/** What goes on where the last event of its turn stood, of one step or of several; or an event with all its fields. */
export type PackedText = string | readonly [text: string, pieces: number] | WholeEvent;

type Head = Pick<TextEvent, 'message' | 'channel' | 'role' | 'recipient'>;
const goesOn = (a: Head, b: Head): boolean =>
  a.message === b.message && a.channel === b.channel && a.role === b.role && a.recipient === b.recipient;

/** Packs the events of one turn, in their order. */
export function packer(emit: (packed: PackedText) => void): (event: TextEvent) => void {
  let last: TextEvent | null = null;
  const of = new TokenPacker();
  return (event) => {
    const plain = last !== null && event.tokens === undefined && event.pieces === undefined && goesOn(last, event);
    last = event;
    const { tokens, ...rest } = event;
    emit(plain ? event.text : tokens ? { ...rest, tokens: of.pack(tokens) } : rest);
  };
}
/** @param last the event before it */
export function unpackText(packed: PackedText, last: TextEvent | null, bytes: TokenBytes): TextEvent {
  if (isWhole(packed)) {
    const { tokens, ...rest } = packed;
    return tokens ? { ...rest, tokens: unpackTokens(tokens, bytes) } : rest;
  }
  if (last === null) throw new Error('a turn began with text that goes on');
  const { kind, message, role, channel, recipient } = last;
  const head = { kind, message, role, channel, recipient };
  return typeof packed === 'string' ? { ...head, text: packed } : { ...head, text: packed[0], pieces: packed[1] };
}

const isWhole = (packed: PackedText): packed is WholeEvent => typeof packed === 'object' && 'kind' in packed;
/** Two pieces of one message, one after the other; null: they stay two. */
export function joinText(before: PackedText, after: PackedText): PackedText | null {
  if (isWhole(after)) {
    if (!isWhole(before) || !goesOn(before, after)) return null;
    const tokens =
      before.tokens && after.tokens ? joinTokens(before.tokens, after.tokens) : (before.tokens ?? after.tokens);
    const pieces = (before.pieces ?? 1) + (after.pieces ?? 1);
    return { ...before, text: before.text + after.text, pieces, ...(tokens && { tokens }) };
  }
  const [text, pieces] = typeof after === 'string' ? [after, 1] : after;
  if (typeof before === 'string') return [before + text, 1 + pieces];
  if (!isWhole(before)) return [before[0] + text, before[1] + pieces];
  return { ...before, text: before.text + text, pieces: (before.pieces ?? 1) + pieces };
}

// Tokens of texts that come again with every request, as system messages and earlier turns do.
import type { Tokenizer } from '../harmony/types.js';

/** Shorter texts are mostly new: a message of few words, a verdict. */
const LONG = 64;
/** Names of roles and channels, which stand in every message, are not longer; and there are not so many. */
const NAME = 16,
  MOST_NAMES = 64;
/** UTF-16 units that are remembered, of all texts. */
const MOST = 1 << 20;
/** UTF-16 units that are encoded in one go, where others wait: a small model makes a token in that time. */
export const PIECE = 1024;

/**
 * Places where a text may be cut so that its parts have its tokens: o200k's pieces (native/tokenizer/split.cpp) end
 * after a letter or a number that none follows, nor a mark or a contraction, and begin after a line's end.
 */
const CUT = /[\p{L}\p{N}](?=[^\p{L}\p{M}\p{N}'])|[\r\n](?=[\p{L}\p{N}])/gu;
/** The end of a part that begins at `from`. */
function partEnd(text: string, from: number): number {
  if (text.length - from <= 2 * PIECE) return text.length;
  CUT.lastIndex = from + PIECE;
  return CUT.test(text) ? CUT.lastIndex : text.length;
}

export interface Remembering extends Tokenizer {
  /** Encodes a long text, a part at a time: `encode` then finds it. */
  learn(text: string): Generator<void, void>;
}

/** The same tokenizer, which must not be closed before; what `encode` gives is shared and must not be written to. */
export function remembering(tokenizer: Tokenizer, most = MOST): Remembering {
  /** Least recently used first. */
  const known = new Map<string, Int32Array>();
  let held = 0;
  const names = new Map<string, Int32Array>();
  const nameOf = (text: string): Int32Array => {
    const known = names.get(text);
    if (known) return known;
    const tokens = tokenizer.encode(text);
    if (names.size === MOST_NAMES) names.clear();
    names.set(text, tokens);
    return tokens;
  };
  const keep = (text: string, tokens: Int32Array): void => {
    if (!known.delete(text)) held += text.length;
    known.set(text, tokens);
    for (const old of known.keys()) {
      if (held <= most || old === text) break;
      known.delete(old);
      held -= old.length;
    }
  };
  return {
    ...tokenizer,
    encode(text) {
      if (text.length <= NAME) return nameOf(text);
      if (text.length < LONG) return tokenizer.encode(text);
      const tokens = known.get(text) ?? tokenizer.encode(text);
      if (text.length <= most) keep(text, tokens);
      return tokens;
    },
    *learn(text) {
      if (text.length <= 2 * PIECE || text.length > most || known.has(text)) return;
      const parts: Int32Array[] = [];
      for (let from = 0, to = 0; from < text.length; from = to) {
        to = partEnd(text, from);
        parts.push(tokenizer.encode(text.slice(from, to)));
        yield;
      }
      const tokens = new Int32Array(parts.reduce((n, p) => n + p.length, 0));
      let at = 0;
      for (const part of parts) {
        tokens.set(part, at);
        at += part.length;
      }
      keep(text, tokens);
    },
  };
}

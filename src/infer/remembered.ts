// Tokens of texts that come again with every request, as system messages and earlier turns do.
import type { Tokenizer } from '../harmony/types.js';

/** Shorter texts are encoded as fast as they are looked up. */
const LONG = 64;
/** UTF-16 units that are remembered, of all texts. */
const MOST = 1 << 20;

/** The same tokenizer, which must not be closed before; what `encode` gives is shared and must not be written to. */
export function remembering(tokenizer: Tokenizer, most = MOST): Tokenizer {
  /** Least recently used first. */
  const known = new Map<string, Int32Array>();
  let held = 0;
  return {
    ...tokenizer,
    encode(text) {
      if (text.length < LONG || text.length > most) return tokenizer.encode(text);
      const before = known.get(text),
        tokens = before ?? tokenizer.encode(text);
      if (before) known.delete(text);
      else held += text.length;
      known.set(text, tokens);
      for (const old of known.keys()) {
        if (held <= most) break;
        known.delete(old);
        held -= old.length;
      }
      return tokens;
    },
  };
}

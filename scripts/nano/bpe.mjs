// Trains a byte-level BPE and writes it as tokenizer.json, with o200k's split pattern and harmony's control tokens at
// the top ids.

/**
 * o200k's pattern (docs/architecture.md, "Harmony"); `u` gives \p classes, (?i:) is spelled out because JavaScript
 * lacks it before 2025.
 */
const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
export const splitPattern = [
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+${SHORT}`,
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*${SHORT}`,
  '\\p{N}{1,3}',
  ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*',
  '\\s*[\\r\\n]+',
  '\\s+(?!\\S)',
  '\\s+',
].join('|');
const pieces = new RegExp(
  splitPattern.replaceAll(SHORT, "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"),
  'gu',
);

/** Control tokens in the released order; reserved ones are named by their id, as in the released vocabulary. */
export function controlTokens(first) {
  const known = {
    0: 'startoftext',
    1: 'endoftext',
    4: 'return',
    5: 'constrain',
    7: 'channel',
    8: 'start',
    9: 'end',
    10: 'message',
    14: 'call',
    20: 'endofprompt',
  };
  return Array.from({ length: 21 }, (_, i) => ({
    id: first + i,
    content: `<|${known[i] ?? `reserved_${first + i}`}|>`,
  }));
}

/** GPT-2's printable stand-in for each byte, the alphabet of tokenizer.json. */
export const byteAlphabet = (() => {
  const printable = (b) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  let extra = 0;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : 256 + extra++));
})();

/**
 * @param texts [text, weight] pairs
 * @param size number of ordinary tokens, the 256 bytes included
 * @returns tokens by id, each a string over byteAlphabet
 */
export function trainBpe(texts, size) {
  const counts = new Map();
  for (const [text, weight] of texts)
    for (const piece of text.match(pieces) ?? []) counts.set(piece, (counts.get(piece) ?? 0) + weight);
  // Digits stay single, so that a number is copied digit by digit whatever its length.
  const words = [...counts]
    .filter(([piece]) => !/\p{N}/u.test(piece))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([piece, count]) => ({ parts: [...Buffer.from(piece, 'utf8')].map((b) => byteAlphabet[b]), count }));
  const tokens = [...byteAlphabet].sort((a, b) => a.codePointAt(0) - b.codePointAt(0));
  const known = new Set(tokens);
  while (tokens.length < size) {
    const pairs = new Map();
    for (const { parts, count } of words) {
      for (let i = 0; i + 1 < parts.length; i++) {
        const pair = `${parts[i]} ${parts[i + 1]}`;
        pairs.set(pair, (pairs.get(pair) ?? 0) + count);
      }
    }
    let best = null;
    let most = 0;
    for (const [pair, count] of pairs)
      if (count > most || (count === most && best !== null && pair < best)) {
        best = pair;
        most = count;
      }
    if (best === null)
      throw new Error(`BPE: the texts give ${tokens.length} tokens, wanted ${size}; add text or lower the size`);
    const [left, right] = best.split(' ');
    const joined = left + right;
    for (const word of words) {
      const { parts } = word;
      for (let i = 0; i + 1 < parts.length; i++)
        if (parts[i] === left && parts[i + 1] === right) parts.splice(i, 2, joined);
    }
    if (!known.has(joined)) {
      known.add(joined);
      tokens.push(joined);
    }
  }
  return tokens;
}

/**
 * tokenizer.json. Like the released file it lists every valid split of a token, so that merging by list and by rank
 * agree.
 */
export function tokenizerJson(tokens) {
  const id = new Map(tokens.map((t, i) => [t, i]));
  const merges = [];
  for (const token of tokens) {
    const splits = [];
    for (let i = 1; i < token.length; i++) {
      const [left, right] = [token.slice(0, i), token.slice(i)];
      if (id.has(left) && id.has(right)) splits.push([left, right]);
    }
    merges.push(...splits.sort((a, b) => id.get(a[0]) - id.get(b[0]) || id.get(a[1]) - id.get(b[1])));
  }
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: controlTokens(tokens.length).map((t) => ({
      ...t,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: splitPattern }, behavior: 'Isolated', invert: false },
        byteLevel,
      ],
    },
    post_processor: { ...byteLevel, trim_offsets: false },
    decoder: { ...byteLevel, add_prefix_space: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(id),
      merges,
    },
  };
}

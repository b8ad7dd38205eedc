// A vocabulary as masks are made from it: its tokens as a trie in one row of arrays, and what each does inside a JSON
// string. All of it lies in shared memory: made once in a thread of its own, read in the one that samples.
import type { Tokenizer } from '../../harmony/types.js';

/** Syntax in a JSON string, by byte. Escapes of surrogates are left out: such characters are written as they are. */
export const IN = {
  plain: 0,
  escape: 1,
  /** After \u; after \ud, which 8…f may not follow; after another first digit; third and fourth digit. */
  hex1: 2,
  hexD: 3,
  hex2: 4,
  hex3: 5,
  hex4: 6,
  /** So many bytes of a character are to come; then first bytes whose second one is limited. */
  one: 7,
  two: 8,
  three: 9,
  afterE0: 10,
  afterED: 11,
  afterF0: 12,
  afterF4: 13,
} as const;
export const IN_STATES = 14;
export const CLOSED = 254;
export const DEAD = 255;

/** Next state by state · 256 + byte. */
export const STRING_STEP: Uint8Array = (() => {
  const table = new Uint8Array(IN_STATES * 256).fill(DEAD);
  const set = (state: number, from: number, to: number, next: number): void => {
    table.fill(next, state * 256 + from, state * 256 + to + 1);
  };
  set(IN.plain, 0x20, 0x7f, IN.plain);
  set(IN.plain, 0x22, 0x22, CLOSED);
  set(IN.plain, 0x5c, 0x5c, IN.escape);
  set(IN.plain, 0xc2, 0xdf, IN.one);
  set(IN.plain, 0xe0, 0xef, IN.two);
  set(IN.plain, 0xe0, 0xe0, IN.afterE0);
  set(IN.plain, 0xed, 0xed, IN.afterED);
  set(IN.plain, 0xf0, 0xf3, IN.three);
  set(IN.plain, 0xf0, 0xf0, IN.afterF0);
  set(IN.plain, 0xf4, 0xf4, IN.afterF4);
  for (const c of '"\\/bfnrt') set(IN.escape, c.charCodeAt(0), c.charCodeAt(0), IN.plain);
  set(IN.escape, 0x75, 0x75, IN.hex1);
  const hex = (state: number, next: number): void => {
    set(state, 0x30, 0x39, next);
    set(state, 0x41, 0x46, next);
    set(state, 0x61, 0x66, next);
  };
  hex(IN.hex1, IN.hex2);
  for (const d of 'dD') set(IN.hex1, d.charCodeAt(0), d.charCodeAt(0), IN.hexD);
  set(IN.hexD, 0x30, 0x37, IN.hex3);
  hex(IN.hex2, IN.hex3);
  hex(IN.hex3, IN.hex4);
  hex(IN.hex4, IN.plain);
  set(IN.one, 0x80, 0xbf, IN.plain);
  set(IN.two, 0x80, 0xbf, IN.one);
  set(IN.three, 0x80, 0xbf, IN.two);
  set(IN.afterE0, 0xa0, 0xbf, IN.one);
  set(IN.afterED, 0x80, 0x9f, IN.one);
  set(IN.afterF0, 0x90, 0xbf, IN.two);
  set(IN.afterF4, 0x80, 0x8f, IN.two);
  return table;
})();

/** Tokens as a trie, nodes in the order of a walk: a node's children come right after it. */
export interface Trie {
  readonly byte: Uint8Array;
  /** Place after the node's last descendant. */
  readonly end: Int32Array;
  /** 1: children of the root. */
  readonly depth: Uint16Array;
  /** −1: no token ends here. Tokens of the same bytes are one: the first. */
  readonly token: Int32Array;
}
export interface Vocabulary {
  /** Of this one alone. */
  readonly id: string;
  /** Tokens that are text: `words`. */
  readonly ordinary: Int32Array;
  readonly vocabSize: number;
  readonly words: number;
  readonly trie: Trie;
  /** By state in a string: tokens that stay in it. `words` each. */
  readonly stay: Int32Array;
  /** By token: characters that begin in it, from state plain, until it ends or the string does. */
  readonly chars: Uint8Array;
  /** Tokens that end a string from state plain, ordered by what they write after the quote. */
  readonly closers: Int32Array;
  /** Those of them that write an escape. */
  readonly escaped: Int32Array;
  /** By token: its place among the closers; −1: it is none. */
  readonly placeOf: Int32Array;
  /** Tokens that end a string from state s: [withinFrom[s], withinFrom[s + 1]). */
  readonly closersWithin: Int32Array;
  readonly withinFrom: Int32Array;
  /** The texts after the quote as a trie; `token` is their place in `groups`. */
  readonly suffixes: Trie;
  /** Group g of closers is [groups[g], groups[g + 1]). */
  readonly groups: Int32Array;
  /** The first group is of those that write nothing after it. */
  readonly endsBare: boolean;
}

const shared = <T extends Int32Array | Uint8Array | Uint16Array>(
  make: new (buffer: SharedArrayBuffer) => T,
  values: ArrayLike<number>,
  bytes: number,
): T => {
  const out = new make(new SharedArrayBuffer(values.length * bytes));
  out.set(values);
  return out;
};

interface Text {
  readonly bytes: Uint8Array;
  readonly id: number;
  /** The bytes again: texts are sorted and compared faster by it. */
  readonly key: string;
}
const textOf = (bytes: Uint8Array, id: number): Text => ({
  bytes,
  id,
  key: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1'),
});
const order = (a: Text, b: Text): number => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);

/** @param texts sorted by their bytes, no two equal */
function trieOf(texts: readonly Text[]): Trie {
  const [byte, depth, token, end]: [number[], number[], number[], number[]] = [[], [], [], []];
  const open: number[] = [];
  let before: Uint8Array = new Uint8Array(0);
  const close = (to: number): void => {
    while (open.length > to) end[open.pop()!] = byte.length;
  };
  for (const { bytes, id } of texts) {
    let same = 0;
    while (same < before.length && same < bytes.length && before[same] === bytes[same]) same++;
    close(same);
    for (let i = same; i < bytes.length; i++) {
      open.push(byte.length);
      byte.push(bytes[i]!);
      depth.push(i + 1);
      token.push(-1);
      end.push(0);
    }
    if (open.length > 0) token[open[open.length - 1]!] = id;
    before = bytes;
  }
  close(0);
  return {
    byte: shared(Uint8Array, byte, 1),
    end: shared(Int32Array, end, 4),
    depth: shared(Uint16Array, depth, 2),
    token: shared(Int32Array, token, 4),
  };
}

/** Of 200,000 tokens: half a second, 20 MiB. */
export function vocabularyOf(tokenizer: Tokenizer, vocabSize: number): Vocabulary {
  const words = Math.ceil(vocabSize / 32);
  const all: Text[] = [];
  for (let id = 0; id < vocabSize; id++) {
    const bytes = tokenizer.isSpecial(id) ? new Uint8Array(0) : tokenizer.bytes(id);
    if (bytes.length > 0) all.push(textOf(bytes, id));
  }
  all.sort(order);
  const unique = all.filter((t, i) => i === 0 || t.key !== all[i - 1]!.key);
  const stay = new Int32Array(new SharedArrayBuffer(4 * words * IN_STATES));
  const ordinary = new Int32Array(new SharedArrayBuffer(4 * words));
  const chars = new Uint8Array(new SharedArrayBuffer(vocabSize));
  const closing: Text[] = [];
  const within: number[][] = Array.from({ length: IN_STATES }, () => []);
  for (const { id } of all) ordinary[id >> 5]! |= 1 << (id & 31);
  for (const { bytes, id } of unique) {
    for (let from = 0; from < IN_STATES; from++) {
      let state = from,
        i = 0,
        begun = 0;
      for (; i < bytes.length && state < IN_STATES; i++) {
        if (state === IN.plain && bytes[i] !== 0x22) begun++;
        state = STRING_STEP[state * 256 + bytes[i]!]!;
      }
      if (state < IN_STATES) stay[from * words + (id >> 5)]! |= 1 << (id & 31);
      if (state === CLOSED) within[from]!.push(id);
      if (from !== IN.plain) continue;
      chars[id] = Math.min(255, begun);
      if (state === CLOSED) closing.push(textOf(bytes.subarray(i), id));
    }
  }
  closing.sort((a, b) => order(a, b) || a.id - b.id);
  const groups: number[] = [];
  const suffixes: Text[] = [];
  for (const [i, c] of closing.entries()) {
    if (i > 0 && c.key === closing[i - 1]!.key) continue;
    suffixes.push(textOf(c.bytes, groups.length));
    groups.push(i);
  }
  groups.push(closing.length);
  const placeOf = new Int32Array(new SharedArrayBuffer(4 * vocabSize)).fill(-1);
  for (const [i, c] of closing.entries()) placeOf[c.id] = i;
  const escapes = new Set(unique.filter((t) => t.bytes.includes(0x5c)).map((t) => t.id));
  return {
    id: `${tokenizer.digest} ${vocabSize}`,
    ordinary,
    vocabSize,
    words,
    trie: trieOf(unique),
    stay,
    chars,
    closers: shared(
      Int32Array,
      closing.map((c) => c.id),
      4,
    ),
    escaped: shared(
      Int32Array,
      closing.map((c) => c.id).filter((id) => escapes.has(id)),
      4,
    ),
    placeOf,
    closersWithin: shared(Int32Array, within.flat(), 4),
    withinFrom: shared(
      Int32Array,
      Array.from({ length: IN_STATES + 1 }, (_, i) => within.slice(0, i).flat().length),
      4,
    ),
    suffixes: trieOf(suffixes),
    groups: shared(Int32Array, groups, 4),
    endsBare: closing[0]?.bytes.length === 0,
  };
}

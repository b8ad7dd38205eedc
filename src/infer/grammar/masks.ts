// Which tokens may come next in a JSON text. Where little may, the vocabulary's trie is walked with the state; in a
// string, where nearly all may, a mask made beforehand is taken and only tokens that end the string are looked at.
import { type State, stepState, type TextFrame } from './values.js';
import { CLOSED, IN, IN_STATES, STRING_STEP, type Trie, type Vocabulary } from './vocabulary.js';

type Found = (id: number) => void;
/** Longer than any token and what is walked below one. */
const DEEP = 300;

/** Masks of one vocabulary. */
export class Masks {
  /** Tokens that stay in a string, by the most characters that they may have. */
  readonly #short = new Map<number, Int32Array>();
  /** Tokens that end a string in which they write an escape. */
  readonly #escaped: Int32Array;

  constructor(
    readonly vocabulary: Vocabulary,
    readonly bytesOf: (token: number) => Uint8Array,
  ) {
    this.#escaped = vocabulary.closers.filter((t) => bytesOf(t).includes(0x5c));
  }

  /** Adds the tokens that may come. */
  add(mask: Int32Array, state: State): void {
    const { trie } = this.vocabulary;
    const found = (token: number): void => {
      mask[token >> 5]! |= 1 << (token & 31);
    };
    for (const frame of state) {
      const { text } = frame;
      if (!text || text.set !== null) walk(trie, 0, trie.byte.length, 0, [frame], found);
      else if (text.state === IN.plain) this.#plain(mask, text, found);
      else walkText(trie, 0, trie.byte.length, 0, text, found);
    }
  }

  #plain(mask: Int32Array, frame: TextFrame, found: Found): void {
    const { words, stay } = this.vocabulary;
    const left = frame.most - frame.count;
    const inside = left < DEEP ? this.#shorter(left) : stay;
    for (let w = 0; w < words; w++) mask[w]! |= inside[w]!;
    this.#closers(mask, frame, found);
  }
  #shorter(most: number): Int32Array {
    let mask = this.#short.get(most);
    if (!mask) {
      const { words, stay, chars, vocabSize } = this.vocabulary;
      mask = stay.slice(0, words);
      for (let t = 0; t < vocabSize; t++) if (chars[t]! > most) mask[t >> 5]! &= ~(1 << (t & 31));
      this.#short.set(most, mask);
    }
    return mask;
  }

  /** Tokens that end the string, by what they write after it. */
  #closers(mask: Int32Array, frame: TextFrame, found: Found): void {
    const { closers, suffixes, groups, endsBare, chars, trie } = this.vocabulary;
    const { end, least, most, count, written } = frame;
    if (!end.sameForAll && !end.known) {
      for (const token of closers) if (this.#takes(frame, token)) found(token);
      return;
    }
    const special = end.sameForAll ? [] : [...end.known!].filter((t) => t.startsWith(written));
    const other = end.close(special.length === 0 ? written : unlike(written, special));
    if (other.length > 0) {
      const add = (group: number): void => {
        for (let i = groups[group]!; i < groups[group + 1]!; i++) {
          const token = closers[i]!;
          const n = count + chars[token]!;
          if (n >= least && n <= most) found(token);
        }
      };
      if (endsBare) add(0);
      walk(suffixes, 0, suffixes.byte.length, 0, other, add);
    }
    if (special.length === 0) return;
    // Names that mean something of their own, however they are spelt.
    const forget = (token: number): void => {
      mask[token >> 5]! &= ~(1 << (token & 31));
    };
    for (const text of special) {
      const rest = Buffer.from(`${text.slice(written.length)}"`);
      const node = find(trie, rest);
      if (node < 0) continue;
      const after = end.close(text);
      if (trie.token[node]! >= 0) forget(trie.token[node]!);
      for (let i = node + 1; i < trie.end[node]!; i++) if (trie.token[i]! >= 0) forget(trie.token[i]!);
      if (after.length === 0) continue;
      if (trie.token[node]! >= 0) found(trie.token[node]!);
      walk(trie, node + 1, trie.end[node]!, trie.depth[node]!, after, found);
    }
    for (const token of this.#escaped)
      if (this.#takes(frame, token)) found(token);
      else forget(token);
  }
  #takes(frame: TextFrame, token: number): boolean {
    let at: State = [frame];
    for (const b of this.bytesOf(token)) {
      at = stepState(at, b);
      if (at.length === 0) return false;
    }
    return true;
  }
}

/** A text that goes on as the first, and is none of the others. */
function unlike(written: string, others: readonly string[]): string {
  let text = `${written}x`;
  while (others.includes(text)) text += 'x';
  return text;
}
/** The node of a text; −1: none. */
export function find({ byte, end }: Trie, bytes: Uint8Array): number {
  let from = 0,
    last = byte.length,
    node = -1;
  for (const b of bytes) {
    node = -1;
    for (let i = from; i < last; i = end[i]!)
      if (byte[i] === b) {
        node = i;
        break;
      }
    if (node < 0) return -1;
    from = node + 1;
    last = end[node]!;
  }
  return node;
}

/** Nodes [from, last), which begin below depth `top`, as far as the state allows. */
function walk(trie: Trie, from: number, last: number, top: number, state: State, found: Found): void {
  const { byte, end, token, depth } = trie;
  const states: State[] = [state];
  for (let i = from; i < last; ) {
    const d = depth[i]! - top;
    const to = stepState(states[d - 1]!, byte[i]!);
    if (to.length === 0) {
      i = end[i]!;
      continue;
    }
    if (token[i]! >= 0) found(token[i]!);
    const text = to.length === 1 ? to[0]!.text : undefined;
    if (text && text.set === null && end[i]! > i + 1) {
      walkText(trie, i + 1, end[i]!, depth[i]!, text, found);
      i = end[i]!;
      continue;
    }
    states[d] = to;
    i++;
  }
}
/** The same in a string of any characters: no states are made until it ends. */
function walkText(trie: Trie, from: number, last: number, top: number, frame: TextFrame, found: Found): void {
  const { byte, end, token, depth } = trie;
  const inside = new Uint8Array(DEEP),
    counts = new Int32Array(DEEP),
    path = new Uint8Array(DEEP);
  inside[0] = frame.state;
  counts[0] = frame.count;
  for (let i = from; i < last; ) {
    const d = depth[i]! - top;
    const b = byte[i]!;
    const at = inside[d - 1]!;
    const to = STRING_STEP[at * 256 + b]!;
    path[d] = b;
    if (to < IN_STATES) {
      const n = counts[d - 1]! + (at === IN.plain ? 1 : 0);
      if (n <= frame.most) {
        inside[d] = to;
        counts[d] = n;
        if (token[i]! >= 0) found(token[i]!);
        i++;
        continue;
      }
    } else if (to === CLOSED && counts[d - 1]! >= frame.least) {
      let after: State = frame.end.sameForAll ? frame.end.close('') : [frame];
      if (!frame.end.sameForAll) for (let k = 1; k <= d && after.length > 0; k++) after = stepState(after, path[k]!);
      if (after.length > 0) {
        if (token[i]! >= 0) found(token[i]!);
        walk(trie, i + 1, end[i]!, depth[i]!, after, found);
      }
    }
    i = end[i]!;
  }
}

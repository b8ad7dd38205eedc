// Which tokens may come next in a JSON text. Where little may, the vocabulary's trie is walked with the state; in a
// string, where nearly all may, a mask made beforehand is taken and only tokens that end the string are looked at.
import type { Characters } from './characters.js';
import type { Frame } from './frames.js';
import { TextFrame } from './text.js';
import { type State, stepState } from './values.js';
import { IN, type Vocabulary } from './vocabulary.js';
import { DEEP, type Found, find, walk, walkText } from './walk.js';

/** What a set of characters does to the vocabulary, from one of its states. */
export interface SetMask {
  /** Tokens that stay in the string. */
  readonly stay: Int32Array;
  /** By place among the closers: 1, the string may end where the token ends it. */
  readonly closes: Uint8Array;
}
/** Bytes that cached masks of sets may take. */
const MOST_CACHED = 64 << 20;

/** Masks of one vocabulary. */
export class Masks {
  /** Tokens that stay in a string, by the most characters that they may have. */
  readonly #short = new Map<number, Int32Array>();
  /** Groups of closers that may come before a frame. */
  readonly #groups = new WeakMap<Frame, readonly number[]>();
  #sets = new WeakMap<Characters, Map<number, SetMask>>();
  #cached = 0;

  constructor(
    readonly vocabulary: Vocabulary,
    readonly bytesOf: (token: number) => Uint8Array,
  ) {}

  /** Adds the tokens that may come. */
  add(mask: Int32Array, state: State): void {
    const { trie } = this.vocabulary;
    const found = (token: number): void => {
      mask[token >> 5]! |= 1 << (token & 31);
    };
    for (const frame of state) {
      const { text } = frame;
      if (!text) walk(trie, 0, trie.byte.length, 0, [frame], found);
      else if (text.state === IN.plain && text.set === null) this.#plain(mask, text, found);
      else if (text.state === IN.plain && text.set?.texts === null && text.end.sameForAll)
        this.#inSet(mask, text, text.set, found);
      else if (text.set === null && text.end.sameForAll && text.most - text.count >= DEEP)
        this.#within(mask, text, found);
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
  /** Within a character or an escape. */
  #within(mask: Int32Array, frame: TextFrame, found: Found): void {
    const { words, stay, closersWithin, withinFrom } = this.vocabulary;
    const from = frame.state * words;
    for (let w = 0; w < words; w++) mask[w]! |= stay[from + w]!;
    for (let i = withinFrom[frame.state]!; i < withinFrom[frame.state + 1]!; i++) {
      const token = closersWithin[i]!;
      if (this.#takes(frame, token)) found(token);
    }
  }

  /** In a string of a set of texts. */
  #inSet(mask: Int32Array, frame: TextFrame, set: Characters, found: Found): void {
    let states = this.#sets.get(set);
    if (!states) {
      states = new Map();
      this.#sets.set(set, states);
    }
    let known = states.get(frame.inSet);
    if (!known) {
      known = setMask(this.vocabulary, set, frame.inSet);
      this.#cached += known.stay.byteLength + known.closes.byteLength;
      if (this.#cached > MOST_CACHED) {
        this.#sets = new WeakMap();
        this.#cached = 0;
      } else states.set(frame.inSet, known);
    }
    const { stay, closes } = known;
    for (let w = 0; w < stay.length; w++) mask[w]! |= stay[w]!;
    const { closers, groups } = this.vocabulary;
    for (const group of this.#after(frame.end.close('')))
      for (let i = groups[group]!; i < groups[group + 1]!; i++) if (closes[i]) found(closers[i]!);
  }
  /** Takes what another thread worked out of a set. */
  adopt(set: Characters, { stay, closes, states: count }: SetMasks): void {
    if (this.#sets.has(set)) return;
    const { words, closers } = this.vocabulary;
    const states = new Map<number, SetMask>();
    for (let i = 0; i < count; i++)
      states.set(i, {
        stay: stay.subarray(i * words, (i + 1) * words),
        closes: closes.subarray(i * closers.length, (i + 1) * closers.length),
      });
    this.#sets.set(set, states);
  }

  /** Groups of closers that may come before that. */
  #after(state: State): readonly number[] {
    const [only] = state;
    const known = state.length === 1 ? this.#groups.get(only!) : undefined;
    if (known) return known;
    const { suffixes, endsBare } = this.vocabulary;
    const out: number[] = endsBare && state.length > 0 ? [0] : [];
    walk(suffixes, 0, suffixes.byte.length, 0, state, (group) => out.push(group));
    if (state.length === 1) this.#groups.set(only!, out);
    return out;
  }

  /** Tokens that end the string, by what they write after it. */
  #closers(mask: Int32Array, frame: TextFrame, found: Found): void {
    const { closers, groups, chars, trie } = this.vocabulary;
    const { end, least, most, count, written } = frame;
    if (!end.sameForAll && !end.known) {
      for (const token of closers) if (this.#takes(frame, token)) found(token);
      return;
    }
    const special = end.sameForAll ? [] : [...end.known!].filter((t) => t.startsWith(written));
    const other = end.close(special.length === 0 ? written : unlike(written, special));
    for (const group of this.#after(other))
      for (let i = groups[group]!; i < groups[group + 1]!; i++) {
        const token = closers[i]!;
        const n = count + chars[token]!;
        if (n >= least && n <= most) found(token);
      }
    if (special.length === 0) return;
    // Names that mean something of their own, however they are spelt.
    const forget = (token: number): void => {
      mask[token >> 5]! &= ~(1 << (token & 31));
    };
    for (const text of special) {
      const node = find(trie, Buffer.from(`${text.slice(written.length)}"`));
      if (node < 0) continue;
      const after = end.close(text);
      if (trie.token[node]! >= 0) forget(trie.token[node]!);
      for (let i = node + 1; i < trie.end[node]!; i++) if (trie.token[i]! >= 0) forget(trie.token[i]!);
      if (after.length === 0) continue;
      if (trie.token[node]! >= 0) found(trie.token[node]!);
      walk(trie, node + 1, trie.end[node]!, trie.depth[node]!, after, found);
    }
    for (const token of this.vocabulary.escaped)
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
/** Of the first states of a set, in shared memory, one after the other. */
export interface SetMasks {
  readonly states: number;
  readonly stay: Int32Array;
  readonly closes: Uint8Array;
}
/** @param states so many; the first ones are those that a text comes to first */
export function setMasks(vocabulary: Vocabulary, set: Characters, states: number): SetMasks {
  const { words, closers } = vocabulary;
  const stay = new Int32Array(new SharedArrayBuffer(4 * states * words));
  const closes = new Uint8Array(new SharedArrayBuffer(states * closers.length));
  for (let i = 0; i < states; i++) {
    const own = setMask(vocabulary, set, i);
    stay.set(own.stay, i * words);
    closes.set(own.closes, i * closers.length);
  }
  return { states, stay, closes };
}
function setMask({ trie, words, closers, placeOf }: Vocabulary, set: Characters, state: number): SetMask {
  const stay = new Int32Array(words);
  const closes = new Uint8Array(closers.length);
  // A string after which anything may come: its tokens are told apart by whether they end it.
  const end = { close: () => [ANYTHING], sameForAll: true };
  const free = new TextFrame(0, Number.POSITIVE_INFINITY, set, end, IN.plain, 0, state);
  walkText(trie, 0, trie.byte.length, 0, free, (token) => {
    const place = placeOf[token]!;
    if (place >= 0) closes[place] = 1;
    else stay[token >> 5]! |= 1 << (token & 31);
  });
  return { stay, closes };
}
const ANYTHING: Frame = { ends: true, step: () => [ANYTHING] };

/** A text that goes on as the first, and is none of the others. */
function unlike(written: string, others: readonly string[]): string {
  let text = `${written}x`;
  while (others.includes(text)) text += 'x';
  return text;
}

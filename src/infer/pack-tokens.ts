// Log-probabilities on their way between threads, as flat lists: an object with bytes of its own for each token that
// could have come holds the thread that gets it ten times as long.
import type { TokenInfo } from './protocol.js';

export interface PackedTokens {
  /** Of each token: id, log-probability, how many others follow, and id and log-probability of each of these. */
  readonly numbers: readonly number[];
  /** Bytes of each of them, as latin1. */
  readonly texts: readonly string[];
}
const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');

export function packTokens(tokens: readonly TokenInfo[]): PackedTokens {
  const numbers: number[] = [],
    texts: string[] = [];
  for (const { token, logprob, bytes, top } of tokens) {
    numbers.push(token, logprob, top.length);
    texts.push(latin1(bytes));
    for (const other of top) {
      numbers.push(other.token, other.logprob);
      texts.push(latin1(other.bytes));
    }
  }
  return { numbers, texts };
}
export const joinTokens = (a: PackedTokens, b: PackedTokens): PackedTokens => ({
  numbers: [...a.numbers, ...b.numbers],
  texts: [...a.texts, ...b.texts],
});

/** Bytes of tokens, each once. */
export type TokenBytes = Map<number, Uint8Array>;

/** One of a list; the others beside it are read when they are asked for, as most never are. */
class PackedInfo implements TokenInfo {
  readonly token: number;
  readonly logprob: number;
  readonly bytes: Uint8Array;
  readonly #list: PackedTokens;
  readonly #known: TokenBytes;
  readonly #number: number;
  readonly #text: number;

  constructor(list: PackedTokens, known: TokenBytes, number: number, text: number) {
    this.#list = list;
    this.#known = known;
    this.#number = number;
    this.#text = text;
    const { token, logprob, bytes } = this.#at(number, text);
    this.token = token;
    this.logprob = logprob;
    this.bytes = bytes;
  }
  #at(number: number, text: number): Omit<TokenInfo, 'top'> {
    const { numbers, texts } = this.#list;
    const token = numbers[number]!;
    const bytes = this.#known.get(token) ?? new Uint8Array(Buffer.from(texts[text]!, 'latin1'));
    this.#known.set(token, bytes);
    return { token, logprob: numbers[number + 1]!, bytes };
  }
  get others(): number {
    return this.#list.numbers[this.#number + 2]!;
  }
  get top(): readonly Omit<TokenInfo, 'top'>[] {
    return Array.from({ length: this.others }, (_, i) => this.#at(this.#number + 3 + 2 * i, this.#text + 1 + i));
  }
}
/** @param known of this model; what comes is added, and shared by all */
export function unpackTokens(list: PackedTokens, known: TokenBytes): readonly TokenInfo[] {
  const out: TokenInfo[] = [];
  for (let number = 0, text = 0; number < list.numbers.length; ) {
    const info = new PackedInfo(list, known, number, text);
    number += 3 + 2 * info.others;
    text += 1 + info.others;
    out.push(info);
  }
  return out;
}

// Log-probabilities on their way between threads: an object with bytes of its own for each token that could have come
// holds the thread that gets it ten times as long, and what they say as a list of texts is copied by its collections.
// So numbers go as memory that these do not look at, and a token's bytes once.
import type { TokenInfo } from './protocol.js';

export interface PackedTokens {
  /** Of each token: id, log-probability, how many others follow, and id and log-probability of each of these. */
  readonly numbers: Float64Array;
  /** Those of them that nothing was told of before. */
  readonly ids: readonly number[];
  /** Bytes of each of these, as latin1. */
  readonly texts: readonly string[];
}
const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');

/** Packs the tokens of one call; who gets some of them has got all before them. */
export class TokenPacker {
  readonly #told = new Set<number>();

  pack(tokens: readonly TokenInfo[]): PackedTokens {
    const numbers = new Float64Array(tokens.reduce((sum, { top }) => sum + 3 + 2 * top.length, 0));
    const ids: number[] = [],
      texts: string[] = [];
    const tell = ({ token, bytes }: Pick<TokenInfo, 'token' | 'bytes'>): void => {
      if (this.#told.has(token)) return;
      this.#told.add(token);
      ids.push(token);
      texts.push(latin1(bytes));
    };
    let at = 0;
    for (const info of tokens) {
      numbers[at++] = info.token;
      numbers[at++] = info.logprob;
      numbers[at++] = info.top.length;
      tell(info);
      for (const other of info.top) {
        numbers[at++] = other.token;
        numbers[at++] = other.logprob;
        tell(other);
      }
    }
    return { numbers, ids, texts };
  }
}
export function joinTokens(a: PackedTokens, b: PackedTokens): PackedTokens {
  const numbers = new Float64Array(a.numbers.length + b.numbers.length);
  numbers.set(a.numbers);
  numbers.set(b.numbers, a.numbers.length);
  return { numbers, ids: [...a.ids, ...b.ids], texts: [...a.texts, ...b.texts] };
}

/** Bytes of tokens, each once. */
export type TokenBytes = Map<number, Uint8Array>;

/** One of a list; the others beside it are read when they are asked for, as most never are. */
class PackedInfo implements TokenInfo {
  readonly token: number;
  readonly logprob: number;
  readonly bytes: Uint8Array;
  readonly #numbers: Float64Array;
  readonly #known: TokenBytes;
  readonly #at: number;

  constructor(numbers: Float64Array, known: TokenBytes, at: number) {
    this.#numbers = numbers;
    this.#known = known;
    this.#at = at;
    this.token = numbers[at]!;
    this.logprob = numbers[at + 1]!;
    this.bytes = known.get(this.token)!;
  }
  get others(): number {
    return this.#numbers[this.#at + 2]!;
  }
  get top(): readonly Omit<TokenInfo, 'top'>[] {
    const out: Omit<TokenInfo, 'top'>[] = [];
    const from = this.#at + 3;
    for (let at = from; at < from + 2 * this.others; at += 2) {
      const token = this.#numbers[at]!;
      out.push({ token, logprob: this.#numbers[at + 1]!, bytes: this.#known.get(token)! });
    }
    return out;
  }
}
/** @param known of this model; what comes is added, and shared by all */
export function unpackTokens({ numbers, ids, texts }: PackedTokens, known: TokenBytes): readonly TokenInfo[] {
  for (const [i, id] of ids.entries())
    if (!known.has(id)) known.set(id, new Uint8Array(Buffer.from(texts[i]!, 'latin1')));
  const out: TokenInfo[] = [];
  for (let at = 0; at < numbers.length; ) {
    const info = new PackedInfo(numbers, known, at);
    at += 3 + 2 * info.others;
    out.push(info);
  }
  return out;
}

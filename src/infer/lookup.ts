// What may come next by what came before: the place in prompt and answer where the last tokens stood already, the
// longest such match, and what followed there (prompt lookup; LZ77's search with its chains of earlier places).

/** Places that are compared, the latest first, and tokens of one that are. */
const MOST_PLACES = 16;
const MOST_MATCHED = 32;
/** Fewer tokens that are alike say nothing. */
export const LEAST_MATCHED = 2;
const MOST_HEADS = 2 ** 16;

export interface Guess {
  readonly tokens: readonly number[];
  /** Last tokens that stood before them there too. */
  readonly matched: number;
}
export const NO_GUESS: Guess = { tokens: [], matched: 0 };
/** Parts two texts: no token, and no match goes beyond it. */
export const APART = -1;

export class Lookup {
  #text: Int32Array;
  #length = 0;
  /** Where the text begins; before it stands what is foreseen. */
  readonly #from: number;
  /** Latest place by the hash of the pair that ends there; for each place the one before with the same. −1: none. */
  readonly #heads: Int32Array;
  #before: Int32Array;

  /** @param foreseen what the answer is thought to be like, APART between two ways: looked at as if it stood before */
  constructor(prompt: Int32Array, foreseen: Int32Array = new Int32Array(0)) {
    this.#from = foreseen.length === 0 ? 0 : foreseen.length + 1;
    const known = prompt.length + this.#from;
    this.#text = new Int32Array(known + 64);
    this.#before = new Int32Array(known + 64);
    let heads = 256;
    while (heads < 2 * known && heads < MOST_HEADS) heads *= 2;
    this.#heads = new Int32Array(heads).fill(-1);
    for (const token of foreseen) this.push(token);
    if (this.#from > 0) this.push(APART);
    for (const token of prompt) this.push(token);
  }

  /** All tokens so far; good until the next one. */
  get text(): Int32Array {
    return this.#text.subarray(this.#from, this.#length);
  }
  push(token: number): void {
    const at = this.#length;
    if (at === this.#text.length) {
      this.#text = grown(this.#text);
      this.#before = grown(this.#before);
    }
    this.#text[at] = token;
    this.#length++;
    if (at === 0) return;
    const head = this.#headOf(this.#text[at - 1]!, token);
    this.#before[at] = this.#heads[head]!;
    this.#heads[head] = at;
  }
  #headOf(a: number, b: number): number {
    const h = Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b);
    return (h ^ (h >>> 15)) & (this.#heads.length - 1);
  }

  /** At most `most` tokens that followed where the text's end stood before. */
  guess(most: number): Guess {
    const text = this.#text,
      end = this.#length - 1;
    if (end < Math.max(2, this.#from + 1) || most < 1) return NO_GUESS;
    let best = 0,
      from = -1;
    for (let at = this.#before[end]!, places = 0; at > 0 && places < MOST_PLACES; at = this.#before[at]!, places++) {
      let n = 0;
      while (n < MOST_MATCHED && n <= at && text[at - n] === text[end - n] && text[end - n] !== APART) n++;
      if (n > best) {
        best = n;
        from = at;
      }
      if (n === MOST_MATCHED) break;
    }
    if (best < LEAST_MATCHED) return NO_GUESS;
    const tokens: number[] = [];
    // Beyond the end it goes on with itself: what repeats goes on repeating.
    for (let at = from + 1; tokens.length < most; at++) {
      const token = at <= end ? text[at]! : tokens[at - end - 1]!;
      if (token === APART) break;
      tokens.push(token);
    }
    return tokens.length === 0 ? NO_GUESS : { tokens, matched: best };
  }
}
const grown = (old: Int32Array): Int32Array => {
  const larger = new Int32Array(2 * old.length);
  larger.set(old);
  return larger;
};

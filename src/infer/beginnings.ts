// What answers began with of late, by their adapter and what their prompts end with. A turn begins with its header,
// which is nearly always the same: three tokens of a step each before there is any text.

/** Tokens of an answer that are looked at: its header, and more where all go on alike. */
const LENGTH = 8;
/** Answers of a kind that are remembered, and kinds of an adapter. */
const MOST_ANSWERS = 16,
  MOST_KINDS = 32;
/** Tokens of a prompt's end that make a kind: those that begin a turn. */
const END = 2;
/** So many must have gone on alike, and so large a share of all that stood there. */
const LEAST_ALIKE = 4,
  LEAST_SHARE = 0.7;

/** Of one kind. */
export class Beginning {
  /** The latest last; those under way grow. */
  readonly #answers: number[][] = [];

  /** An answer begins: its tokens are `add`ed to what is returned. */
  begin(): number[] {
    const answer: number[] = [];
    this.#answers.push(answer);
    if (this.#answers.length > MOST_ANSWERS) this.#answers.shift();
    return answer;
  }
  add(answer: number[], token: number): void {
    if (answer.length < LENGTH) answer.push(token);
  }
  /** At most so many tokens that come after the first ones of an answer; none where answers part. */
  guess(begun: readonly number[], most: number): readonly number[] {
    if (begun.length >= LENGTH || this.#answers.length < LEAST_ALIKE) return [];
    const tokens: number[] = [];
    const goesOn = (answer: readonly number[], at: number): boolean => answer.length > at;
    let alike = this.#answers.filter((a) => goesOn(a, begun.length) && begun.every((token, i) => a[i] === token));
    const all = alike.length;
    for (let at = begun.length; at < LENGTH && tokens.length < most; at++) {
      const next = commonest(alike.filter((a) => goesOn(a, at)).map((a) => a[at]!));
      alike = alike.filter((a) => a[at] === next);
      if (next === undefined || alike.length < Math.max(LEAST_ALIKE, LEAST_SHARE * all)) break;
      tokens.push(next);
    }
    return tokens;
  }
}
/** undefined: there is none. */
function commonest(tokens: readonly number[]): number | undefined {
  const counts = new Map<number, number>();
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
  let most: number | undefined;
  for (const [token, n] of counts) if (most === undefined || n > counts.get(most)!) most = token;
  return most;
}

export class Beginnings {
  /** By adapter; the least recently used kind first. */
  readonly #kinds = new WeakMap<object, Map<string, Beginning>>();

  /** @param adapter that answers, or what stands for none · @param prompt what is answered */
  of(adapter: object, prompt: Int32Array): Beginning {
    const kinds = this.#kinds.get(adapter) ?? new Map<string, Beginning>(),
      key = prompt.subarray(-END).join();
    const known = kinds.get(key) ?? new Beginning();
    kinds.delete(key);
    kinds.set(key, known);
    for (const old of kinds.keys()) {
      if (kinds.size <= MOST_KINDS) break;
      kinds.delete(old);
    }
    this.#kinds.set(adapter, kinds);
    return known;
  }
}

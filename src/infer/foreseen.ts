// What a request says that will come, as one way or several, and where in it the answer stands. As long as several go
// on alike they are one guess; where they part nothing is guessed, as the answer's own next token says which it is.
import { APART } from './lookup.js';

/** Tokens before the answer's end that must stand there too. A turn begins with as many that its prompt says. */
const LEAST_MATCHED = 3,
  LEAST_BEGUN = 2;
/** More that match say no more. */
const MOST_MATCHED = 32;
/** Where so large a share goes on alike the others are not waited for. */
const MOST_ALIKE = 0.75;

export class Foreseen {
  /** Places of `ways` that the answer's end may stand at. */
  #places: readonly number[];

  /** @param ways as `SequenceOptions.foreseen` has them · @param prompt what the answer follows */
  constructor(
    readonly ways: Int32Array,
    prompt: Int32Array,
  ) {
    const end = prompt.subarray(-LEAST_BEGUN);
    this.#places = [...ways.keys()]
      .filter((i) => (i === 0 || ways[i - 1] === APART) && end.length === LEAST_BEGUN)
      .filter((i) => end.every((token, n) => ways[i + n] === token))
      .map((i) => i + LEAST_BEGUN - 1);
  }

  took(token: number): void {
    if (this.#places.length === 0) return;
    this.#places = this.#places.filter((at) => this.ways[at + 1] === token).map((at) => at + 1);
  }
  /** The answer went another way than all of them. */
  get isLost(): boolean {
    return this.#places.length === 0;
  }
  /** It may come back to one. @param text prompt and answer */
  find(text: Int32Array): void {
    const { ways } = this,
      end = text.length - 1;
    let longest = LEAST_MATCHED,
      places: number[] = [];
    for (let at = LEAST_MATCHED - 1; at + 1 < ways.length; at++) {
      if (ways[at] !== text[end] || ways[at - 1] !== text[end - 1]) continue;
      let n = 2;
      while (n < MOST_MATCHED && n <= at && n <= end && ways[at - n] === text[end - n]) n++;
      if (n < longest) continue;
      if (n > longest) places = [];
      longest = n;
      places.push(at);
    }
    this.#places = places;
  }
  /** At most so many tokens that come next. */
  guess(most: number): readonly number[] {
    const tokens: number[] = [];
    for (let places = this.#places; places.length > 0 && tokens.length < most; ) {
      const next = this.#next(places);
      if (next === APART) break;
      tokens.push(next);
      places = places.filter((at) => this.ways[at + 1] === next).map((at) => at + 1);
    }
    return tokens;
  }
  /** APART: they part, or end. */
  #next(places: readonly number[]): number {
    const nextOf = (at: number): number => this.ways[at + 1] ?? APART;
    const first = nextOf(places[0]!);
    const alike = (token: number): number => places.reduce((n, at) => n + (nextOf(at) === token ? 1 : 0), 0);
    if (places.every((at) => nextOf(at) === first)) return first;
    return places.map(nextOf).find((token) => alike(token) >= MOST_ALIKE * places.length) ?? APART;
  }
}

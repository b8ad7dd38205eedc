// What speculation knows of one stream: its text, how often guesses were right, what they have cost it.
import type { Beginning } from './beginnings.js';
import { Foreseen } from './foreseen.js';
import { type Guess, Lookup, NO_GUESS } from './lookup.js';

/** Guesses are as good as the tokens before them that match: from so many on they are counted apart. */
const MATCHES = [2, 3, 5, 9] as const;
/** A kind of guess: by how much matched, a model's own, what the request foresaw; beginnings know for themselves. */
export const kindOf = (matched: number): number => MATCHES.findLastIndex((least) => matched >= least);
export const MODEL_KIND = MATCHES.length;
export const FORESEEN_KIND = MATCHES.length + 1;
export const BEGUN_KIND = MATCHES.length + 2;
const KINDS = MATCHES.length + 2;
/** How many guesses the knowledge from elsewhere weighs as much as. */
const WEIGHT = 3;

/** How often guesses of each kind were right; older ones count less. */
export class Experience {
  readonly #tried = new Float64Array(KINDS);
  readonly #right = new Float64Array(KINDS);
  /** @param keeps what is left of it after one more guess */
  constructor(readonly keeps: number) {}

  add(kind: number, right: number, wrong: number): void {
    const keeps = this.keeps ** (right + wrong);
    this.#tried[kind] = this.#tried[kind]! * keeps + right + wrong;
    this.#right[kind] = this.#right[kind]! * keeps + right;
  }
  /** Time passes. */
  fade(keeps: number): void {
    for (let k = 0; k < KINDS; k++) {
      this.#tried[k]! *= keeps;
      this.#right[k]! *= keeps;
    }
  }
  /** That a guess is right. @param hope what it is where nothing is known */
  chance(kind: number, hope: number): number {
    return (this.#right[kind]! + WEIGHT * hope) / (this.#tried[kind]! + WEIGHT);
  }
  /** The same of a guess of any kind. */
  overall(hope: number): number {
    const sum = (of: Float64Array): number => of.reduce((a, b) => a + b, 0);
    return (sum(this.#right) + WEIGHT * hope) / (sum(this.#tried) + WEIGHT);
  }
}

/** What is left of a stream's experience after one more guess. */
const KEEPS = 0.95;

export class Track {
  /** Made when it is first asked for: many answers are over before. */
  #lookup: Lookup | null = null;
  readonly #ways: Foreseen | null;
  readonly #waiting: number[] = [];
  /** Its first tokens. */
  #begun: number[] | null = null;
  readonly experience = new Experience(KEEPS);
  /** Steps since one of its guesses was checked. */
  idle = 0;
  /** Guesses that were checked, and those of them that were right. */
  drafted = 0;
  accepted = 0;
  /** Decoding time, and what of it guesses have cost, ms. */
  spent = 0;
  lost = 0;

  /**
   * @param foreseen what the answer is thought to be like
   * @param beginning what answers like it began with; null: nobody asks
   */
  constructor(
    readonly prompt: Int32Array,
    readonly foreseen?: Int32Array,
    readonly beginning?: Beginning | null,
  ) {
    this.#ways = foreseen && foreseen.length > 0 ? new Foreseen(foreseen, prompt) : null;
  }

  took(token: number): void {
    this.#ways?.took(token);
    if (this.beginning) {
      this.#begun ??= this.beginning.begin();
      this.beginning.add(this.#begun, token);
    }
    this.#waiting.push(token);
  }
  /** Prompt and answer. */
  get text(): Int32Array {
    return this.#read().text;
  }
  guess(most: number): Guess {
    return most < 1 ? NO_GUESS : this.#read().guess(most);
  }
  /** At most so many tokens that the request says will come now. */
  foresees(most: number): readonly number[] {
    if (this.#ways === null || most < 1) return [];
    if (this.#ways.isLost) this.#ways.find(this.text);
    return this.#ways.guess(most);
  }
  /** At most so many tokens that answers like it went on with, where it has just begun. */
  begins(most: number): readonly number[] {
    return most < 1 || this.#ways ? [] : (this.beginning?.guess(this.#begun ?? [], most) ?? []);
  }
  #read(): Lookup {
    this.#lookup ??= new Lookup(this.prompt, this.foreseen);
    const lookup = this.#lookup;
    for (const token of this.#waiting) lookup.push(token);
    this.#waiting.length = 0;
    return lookup;
  }
}

// Tells when a model goes round in circles: the last tokens are the same block of them, so many times in a row.

/** Longest block that is looked for, tokens. */
export const LONGEST_BLOCK = 128;
/** A repetition is told when it is that long at least: a row of dots or digits is no circle yet. */
export const LEAST_TOKENS = 16;

export class Repetition {
  readonly #tokens: number[] = [];
  /** By block length p: tokens in a row that equal the one p before them. */
  readonly #run = new Int32Array(LONGEST_BLOCK + 1);

  /** @param times how often a block must stand in a row, from 2 */
  constructor(readonly times: number) {}

  /** @returns whether the tokens so far end in a block that stands there `times` times, LEAST_TOKENS together */
  push(token: number): boolean {
    const n = this.#tokens.length;
    this.#tokens.push(token);
    let found = false;
    for (let p = 1; p <= LONGEST_BLOCK && p <= n; p++) {
      this.#run[p] = this.#tokens[n - p] === token ? (this.#run[p] ?? 0) + 1 : 0;
      const wanted = Math.max(this.times, Math.ceil(LEAST_TOKENS / p));
      found ||= (this.#run[p] ?? 0) >= (wanted - 1) * p;
    }
    return found;
  }
}

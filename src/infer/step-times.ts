// What a decode step takes by its rows, as measured: the running mean of each size, straight lines between them.

/** A first pass of a size runs op by op, and the second is recorded: they do not count. */
const FIRST = 2;
const SHARE = 0.15;
/** One step that took more than so many times what it does counts as that: the machine did something else. */
const MOST_TIMES = 3;
/** What a row more is thought to cost where no larger step was seen, of a row's share. Too little, so that one is. */
const HOPED_ROW = 0.25;

export class StepTimes {
  readonly #ms: number[] = [];
  readonly #seen: number[] = [];
  /** Steps with guesses since the last one without. */
  guessed = 0;

  /** @returns false: it was one of the first of its size, which do not count */
  add(rows: number, ms: number): boolean {
    const seen = (this.#seen[rows] ?? 0) + 1;
    this.#seen[rows] = seen;
    if (seen <= FIRST) return false;
    const old = this.#ms[rows] ?? ms;
    // The mean of the next ones, then one that forgets.
    const share = Math.max(SHARE, 1 / (seen - FIRST));
    this.#ms[rows] = old + share * (Math.min(ms, MOST_TIMES * old) - old);
    return true;
  }
  /** ms; null: it was not measured. */
  known(rows: number): number | null {
    return this.#ms[rows] ?? null;
  }
  /** ms, if need be by what others take; null: no smaller and no such step was measured. */
  of(rows: number): number | null {
    const known = this.#ms[rows];
    if (known !== undefined) return known;
    let below = rows - 1,
      above = rows + 1;
    while (below > 0 && this.#ms[below] === undefined) below--;
    while (above < this.#ms.length && this.#ms[above] === undefined) above++;
    const low = this.#ms[below],
      high = this.#ms[above];
    if (low === undefined) return null;
    if (high === undefined) return low * (1 + (HOPED_ROW * (rows - below)) / below);
    return low + ((high - low) * (rows - below)) / (above - below);
  }
}

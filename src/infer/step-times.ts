// What a decode step takes by its rows, as measured: the running mean of each size, straight lines between them.

/** A first pass of a size runs op by op, and the second is recorded: they do not count. */
const FIRST = 2;
/** Of the next ones the fastest counts: one that the machine held up would keep the size from being tried again. */
const FEW = 5;
/** Steps after which what is known by so few is forgotten, so that it is tried again. */
const FORGOTTEN = 40;
/** Of a step in the mean. */
const SHARE = 0.1;
/** One step that took more than so many times what it does counts as that: the machine did something else. */
const MOST_TIMES = 3;
/** What a row more is thought to cost where no larger step was seen, of a row's share. Too little, so that one is. */
const HOPED_ROW = 0.25;

export class StepTimes {
  readonly #ms: number[] = [];
  readonly #seen: number[] = [];
  /** Steps, and of each size the last one. */
  #steps = 0;
  readonly #last: number[] = [];
  /** Steps with guesses since the last one without. */
  guessed = 0;

  add(rows: number, ms: number): void {
    const seen = (this.#seen[rows] ?? 0) + 1;
    this.#seen[rows] = seen;
    this.#last[rows] = ++this.#steps;
    if (seen <= FIRST) return;
    const old = this.#ms[rows] ?? ms;
    this.#ms[rows] = seen <= FEW ? Math.min(old, ms) : old + SHARE * (Math.min(ms, MOST_TIMES * old) - old);
  }
  /** ms; null: it was not measured. */
  known(rows: number): number | null {
    const forgotten = (this.#seen[rows] ?? 0) <= FEW && this.#steps - (this.#last[rows] ?? 0) > FORGOTTEN;
    return forgotten ? null : (this.#ms[rows] ?? null);
  }
  /** ms, if need be by what others take; null: no smaller and no such step was measured. */
  of(rows: number): number | null {
    const known = this.known(rows);
    if (known !== null) return known;
    let below = rows - 1,
      above = rows + 1;
    while (below > 0 && this.known(below) === null) below--;
    while (above < this.#ms.length && this.known(above) === null) above++;
    const low = this.known(below),
      high = this.known(above);
    if (low === null) return null;
    if (high === null) return low * (1 + (HOPED_ROW * (rows - below)) / below);
    return low + ((high - low) * (rows - below)) / (above - below);
  }
}

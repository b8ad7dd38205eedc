// Held-out rows that are trained on too, word for word or nearly. Two passes: the held-out rows are remembered, then
// the rows to train on go by.
import { basename } from 'node:path';
import type { NearRows } from './near.js';
import type { Overlap } from './overlap.js';
import type { PlacedRow } from './rows.js';
import type { RowHash, SeenRows } from './seen.js';

export interface Leak {
  /** Places of the two rows. */
  readonly heldOut: string;
  readonly trained: string;
  /** Estimated share of what they have in common; 1: the same. */
  readonly likeness: number;
}
export interface Leakage {
  /** Held-out rows that are looked for. */
  readonly rows: number;
  readonly exact: number;
  /** Beside those. */
  readonly near: number;
  /** The first of them. */
  readonly first: readonly Leak[];
  /** The first one that is the same to the letter, by file and line of each. */
  readonly same: Overlap['first'] | null;
}
const SHOWN = 10;
const lineOf = ({ place: { file, line } }: PlacedRow): string => `${basename(file)}:${line}`;

export class LeakFinder {
  readonly #places: string[] = [];
  readonly #lines: string[] = [];
  /** By the number of a near row its number here. */
  readonly #nearOf: number[] = [];
  /** By the number of a held-out row the place of the first one that is the same. */
  readonly #exact = new Map<number, string>();
  readonly #near = new Set<number>();
  readonly #first: Leak[] = [];
  constructor(
    readonly hash: RowHash,
    readonly seen: SeenRows,
    readonly near: NearRows,
  ) {}

  heldOut(row: PlacedRow): void {
    if (this.seen.isFull) return;
    const number = this.#places.push(row.place.name);
    this.#lines.push(lineOf(row));
    this.seen.add(this.hash(row), number);
    if (this.near.add(row.value) >= 0) this.#nearOf.push(number);
  }
  trained(row: PlacedRow): void {
    if (this.#places.length === 0) return;
    const same = this.seen.find(this.hash(row));
    if (same > 0) {
      if (!this.#exact.has(same)) this.#show(same, row, 1);
      this.#exact.set(same, this.#exact.get(same) ?? lineOf(row));
    }
    for (const { number, likeness } of this.near.like(row.value)) {
      const at = this.#nearOf[number] ?? 0;
      if (at === 0 || this.#near.has(at) || this.#exact.has(at)) continue;
      this.#near.add(at);
      this.#show(at, row, likeness);
    }
  }
  #show(number: number, row: PlacedRow, likeness: number): void {
    if (this.#first.length < SHOWN)
      this.#first.push({ heldOut: this.#places[number - 1] ?? '', trained: row.place.name, likeness });
  }
  result(): Leakage {
    const near = [...this.#near].filter((n) => !this.#exact.has(n)).length;
    const number = Math.min(...this.#exact.keys());
    const trained = this.#exact.get(number);
    const same = trained === undefined ? null : { heldOut: this.#lines[number - 1] ?? '', trained };
    return { rows: this.#places.length, exact: this.#exact.size, near, first: this.#first, same };
  }
}

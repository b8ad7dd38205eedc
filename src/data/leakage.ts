// Held-out rows that are trained on too, word for word or nearly. The held-out rows are remembered, at most `capacity`
// at a time, then the rows to train on go by; where there are more, both are read again for the next ones, so that all
// are looked at in bounded memory.
import { basename } from 'node:path';
import { NearRows } from './near.js';
import type { Overlap } from './overlap.js';
import type { PlacedRow } from './rows.js';
import { type RowHash, type RowKey, SeenRows } from './seen.js';

export interface Leak {
  /** Places of the two rows. */
  readonly heldOut: string;
  readonly trained: string;
  /** Estimated share of what they have in common; 1: the same. */
  readonly likeness: number;
}
export interface Leakage {
  /** Held-out rows; all of them are looked for. */
  readonly rows: number;
  readonly exact: number;
  /** Beside those. */
  readonly near: number;
  /** How often the rows to train on were read for it. */
  readonly passes: number;
  /** The first of them. */
  readonly first: readonly Leak[];
  /** The first one that is the same to the letter, by file and line of each. */
  readonly same: Overlap['first'] | null;
}
const SHOWN = 10;
/** Held-out rows that are remembered at a time, in some 70 MB. */
const CAPACITY = 2 ** 18;
const ofDataset = ([low, high]: RowKey, dataset: number): RowKey => [
  (low ^ Math.imul(dataset, 0x9e3779b1)) >>> 0,
  high,
];
const lineOf = ({ file, line }: PlacedRow['place']): string => `${basename(file)}:${line}`;

/** What was found of one held-out dataset. */
class Found {
  rows = 0;
  exact = 0;
  near = 0;
  readonly first: Leak[] = [];
  /** Number, among all held-out rows, of the first one that is the same. */
  sameAt = Infinity;
  same: Overlap['first'] | null = null;
  show(leak: Leak): void {
    if (this.first.length < SHOWN) this.first.push(leak);
  }
}

/** A held-out row by its number in the present pass, from 1. */
class Held {
  readonly #files: string[] = [];
  readonly #file: number[] = [];
  readonly #line: number[] = [];
  readonly #name: number[] = [];
  readonly #dataset: number[] = [];
  /** Rows beside it that say the same to the letter. */
  readonly copies: number[] = [];
  isExact: Uint8Array = new Uint8Array(0);
  isNear: Uint8Array = new Uint8Array(0);
  get size(): number {
    return this.#line.length;
  }
  add(dataset: number, { file, line, name }: PlacedRow['place']): number {
    if (this.#files.at(-1) !== file) this.#files.push(file);
    this.#file.push(this.#files.length - 1);
    this.#name.push(name.startsWith(`${file}:`) ? 0 : 1);
    this.copies.push(0);
    this.#dataset.push(dataset);
    return this.#line.push(line);
  }
  freeze(): void {
    this.isExact = new Uint8Array(this.size + 1);
    this.isNear = new Uint8Array(this.size + 1);
  }
  dataset(number: number): number {
    return this.#dataset[number - 1] ?? 0;
  }
  place(number: number): PlacedRow['place'] {
    const [file, line] = [this.#files[this.#file[number - 1] ?? 0] ?? '', this.#line[number - 1] ?? 0];
    return { file, line, name: this.#name[number - 1] ? `${file} row ${line}` : `${file}:${line}` };
  }
}

export class LeakSearch {
  readonly #found: Found[];
  #held = new Held();
  #seen = new SeenRows();
  #near: NearRows;
  /** By the number of a near row that of the held-out one. */
  #nearOf: number[] = [];
  #before = 0;
  #passes = 1;
  /** The row with which the present pass ended, where it could not hold all. */
  #last: { readonly dataset: number; readonly name: string } | null = null;
  #isFull = false;
  #isSkipping = false;
  #isTraining = false;

  /** @param datasets held-out ones */
  constructor(
    readonly hash: RowHash,
    datasets: number,
    readonly capacity = CAPACITY,
  ) {
    this.#found = Array.from({ length: datasets }, () => new Found());
    this.#near = new NearRows(capacity);
  }

  /** Takes a held-out row. In each pass all are given, in the same order, before those to train on. */
  heldOut(dataset: number, row: PlacedRow): void {
    const { name } = row.place;
    if (this.#passes === 1) (this.#found[dataset] as Found).rows++;
    if (this.#isSkipping) {
      this.#isSkipping = !(this.#last?.dataset === dataset && this.#last.name === name);
      return;
    }
    if (this.#held.size >= this.capacity) {
      this.#isFull = true;
      return;
    }
    const number = this.#held.add(dataset, row.place);
    this.#last = { dataset, name };
    // The same in another dataset is a finding of its own.
    const of = this.#seen.add(ofDataset(this.hash(row), dataset), number);
    if (of > 0) this.#held.copies[of - 1] = (this.#held.copies[of - 1] ?? 0) + 1;
    else if (this.#near.add(row.value) >= 0) this.#nearOf.push(number);
  }

  trained(row: PlacedRow): void {
    if (this.#held.size === 0) return;
    if (!this.#isTraining) this.#held.freeze();
    this.#isTraining = true;
    const held = this.#held;
    const key = this.hash(row);
    for (let d = 0; d < this.#found.length; d++) {
      const same = this.#seen.find(ofDataset(key, d));
      if (same > 0 && held.isExact[same] === 0) this.#isTheSame(same, row);
    }
    const open = (n: number): boolean => {
      const number = this.#nearOf[n] ?? 0;
      return held.isExact[number] === 0 && held.isNear[number] === 0;
    };
    for (const { number: n, likeness } of this.#near.like(row.value, open)) {
      const number = this.#nearOf[n] ?? 0;
      held.isNear[number] = 1;
      const found = this.#found[held.dataset(number)] as Found;
      found.near += 1 + (held.copies[number - 1] ?? 0);
      found.show({ heldOut: held.place(number).name, trained: row.place.name, likeness });
    }
  }
  #isTheSame(number: number, row: PlacedRow): void {
    const held = this.#held;
    const count = 1 + (held.copies[number - 1] ?? 0);
    const found = this.#found[held.dataset(number)] as Found;
    held.isExact[number] = 1;
    found.exact += count;
    if (held.isNear[number]) found.near -= count;
    const place = held.place(number);
    found.show({ heldOut: place.name, trained: row.place.name, likeness: 1 });
    if (this.#before + number >= found.sameAt) return;
    found.sameAt = this.#before + number;
    found.same = { heldOut: lineOf(place), trained: lineOf(row.place) };
  }

  /** Whether there are held-out rows that were not looked for; then all rows are to be given once more. */
  more(): boolean {
    if (!this.#isFull) return false;
    this.#before += this.#held.size;
    [this.#held, this.#seen, this.#near] = [new Held(), new SeenRows(), new NearRows(this.capacity)];
    [this.#nearOf, this.#isFull, this.#isSkipping, this.#isTraining] = [[], false, true, false];
    this.#passes++;
    return true;
  }

  result(dataset: number): Leakage {
    const { rows, exact, near, first, same } = this.#found[dataset] as Found;
    return { rows, exact, near, passes: this.#passes, first, same };
  }
}

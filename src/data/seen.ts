// Rows that stand in a dataset twice, by a digest of 64 bits of what they say: 12 bytes a row, nothing of the rows.
import xxhash from 'xxhash-wasm';
import { jsonText } from '../base/json.js';
import type { PlacedRow } from './rows.js';

/** Two words of 32 bits. */
export type RowKey = readonly [number, number];
export type RowHash = (row: PlacedRow) => RowKey;

/**
 * The key of a row. Rows of text are told apart by their bytes, those of tables by their JSON; `asJson` tells all by
 * their JSON, so that rows of two kinds of file can be compared.
 */
export async function rowHash(asJson = false): Promise<RowHash> {
  const { h32Raw } = await xxhash();
  return ({ raw, value }) => {
    const bytes = raw && !asJson ? raw : Buffer.from(jsonText(value));
    return [h32Raw(bytes, 0), h32Raw(bytes, 0x9e3779b1)];
  };
}

/** Rows after this many are not remembered: the table would outgrow what a check may take. */
const MOST = 2 ** 23;

/** Which rows were there before; open addressing over flat arrays. */
export class SeenRows {
  #low = new Uint32Array(2 ** 12);
  #high = new Uint32Array(2 ** 12);
  #line = new Uint32Array(2 ** 12);
  #size = 0;
  get size(): number {
    return this.#size;
  }
  get isFull(): boolean {
    return this.#size >= MOST;
  }

  #slot([low, high]: RowKey): number {
    const mask = this.#line.length - 1;
    for (let i = (low ^ Math.imul(high, 0x85ebca6b)) & mask; ; i = (i + 1) & mask)
      if (this.#line[i] === 0 || (this.#low[i] === low && this.#high[i] === high)) return i;
  }
  /** Number of the row that had this key first; 0: none. */
  find(key: RowKey): number {
    return this.#line[this.#slot(key)] ?? 0;
  }
  /** Remembers it. @param number of the row, from 1 · @returns that of the row that was there before, or 0 */
  add(key: RowKey, number: number): number {
    const at = this.#slot(key);
    const before = this.#line[at] ?? 0;
    if (before > 0 || this.isFull) return before;
    this.#low[at] = key[0];
    this.#high[at] = key[1];
    this.#line[at] = number;
    if (++this.#size * 10 > this.#line.length * 7) this.#grow();
    return 0;
  }
  #grow(): void {
    const [low, high, line] = [this.#low, this.#high, this.#line];
    const size = 2 * line.length;
    this.#low = new Uint32Array(size);
    this.#high = new Uint32Array(size);
    this.#line = new Uint32Array(size);
    for (let i = 0; i < line.length; i++) {
      if (line[i] === 0) continue;
      const at = this.#slot([low[i] ?? 0, high[i] ?? 0]);
      this.#low[at] = low[i] ?? 0;
      this.#high[at] = high[i] ?? 0;
      this.#line[at] = line[i] ?? 0;
    }
  }
}

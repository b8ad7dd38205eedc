// Rows of one dataset in two parts, train and held out: which part a row is in depends on what it says alone, so that
// it stays there whatever rows come or go, and equal rows are in the same part.
import { createHash } from 'node:crypto';
import { jsonText } from '../base/json.js';

export interface Part {
  readonly take: 'train' | 'eval';
  /** Share of the rows that are held out. */
  readonly share: number;
  readonly seed: number;
}

/**
 * A row's place in [0, 1): the first 48 bits of sha256 over `SEED:` and the row as compact JSON, members that are null
 * left out. Below the share it is held out.
 */
export function rowPlace(value: unknown, seed: number): number {
  const digest = createHash('sha256').update(`${seed}:`).update(jsonText(value)).digest();
  return digest.readUIntBE(0, 6) / 2 ** 48;
}
export const isIn = (value: unknown, { take, share, seed }: Part): boolean =>
  rowPlace(value, seed) < share === (take === 'eval');

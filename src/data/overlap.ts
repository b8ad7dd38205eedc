// Rows that stand among those to train on and among the held-out ones: a figure on them says nothing.
import { basename } from 'node:path';
import type { Example, Examples } from './example.js';

export interface Overlap {
  /** Held-out examples that are trained on, token for token. */
  readonly count: number;
  /** Of so many. */
  readonly of: number;
  readonly first: { readonly heldOut: string; readonly trained: string };
}

const placeOf = ({ source: { file, line } }: Example): string => `${basename(file)}:${line}`;

/** 53 bits of the tokens: two murmur-like words. That two different ones of a million agree has a chance of 1e-4. */
function keyOf(tokens: Int32Array): number {
  let a = 0x9747b28c ^ tokens.length,
    b = 0x5bd1e995;
  for (const t of tokens) {
    a = Math.imul(a ^ t, 0x85ebca6b);
    a ^= a >>> 13;
    b = Math.imul(b ^ a ^ (t << 7), 0xc2b2ae35);
    b ^= b >>> 16;
  }
  return (a >>> 0) * 2 ** 21 + (b >>> 11);
}

/** @returns null: none */
export function overlapOf(trained: Examples, heldOut: Examples): Overlap | null {
  const wanted = new Map<number, number>();
  for (let i = 0; i < heldOut.length; i++) wanted.set(keyOf(heldOut.at(i)?.tokens ?? new Int32Array()), i);
  const seen = new Map<number, number>();
  for (let i = 0; i < trained.length; i++) {
    const key = keyOf(trained.at(i)?.tokens ?? new Int32Array());
    if (wanted.has(key) && !seen.has(key)) seen.set(key, i);
  }
  let count = 0,
    first: Overlap['first'] | null = null;
  for (let i = 0; i < heldOut.length; i++) {
    const at = seen.get(keyOf(heldOut.at(i)?.tokens ?? new Int32Array()));
    const [a, b] = [heldOut.at(i), at === undefined ? undefined : trained.at(at)];
    if (!a || !b || a.tokens.some((t, k) => t !== b.tokens[k])) continue;
    count++;
    first ??= { heldOut: placeOf(a), trained: placeOf(b) };
  }
  return first && { count, of: heldOut.length, first };
}

/** A sentence for whoever is about to train, or to read a figure. */
export const overlapText = ({ count, of, first }: Overlap): string =>
  `${count} of ${of} held-out examples are trained on too (${first.heldOut} is ${first.trained}): a figure on them ` +
  'says little; take them out of data.train or data.eval';

// The Merkle tree of RFC 6962, section 2.1 (SHA-256; leaves and nodes are told apart by their first byte), and its
// proofs as RFC 9162, sections 2.1.3 and 2.1.4, checks them. Hashes are hex. A log is never held: what is kept of it
// are the roots of its perfect subtrees, and what a proof needs is collected while leaves pass by.
import { hash } from 'node:crypto';
import { writeHex } from './fast-buffer.js';

const PAIR = Buffer.alloc(65);
PAIR[0] = 1;
export function nodeHash(left: string, right: string): string {
  writeHex(PAIR, left, 1, 32);
  writeHex(PAIR, right, 33, 32);
  return hash('sha256', PAIR);
}
/** @param prefixed the leaf's bytes after a byte 0, which the caller puts there: no copy is made */
export const prefixedLeafHash = (prefixed: Uint8Array): string => hash('sha256', prefixed);
export const leafHash = (leaf: string | Uint8Array): string =>
  hash('sha256', Buffer.concat([Buffer.of(0), typeof leaf === 'string' ? Buffer.from(leaf) : leaf]));
const EMPTY = hash('sha256', '');

/** Leaves from `lo` up to, not including, `hi`. */
export interface Range {
  readonly lo: number;
  readonly hi: number;
}
const keyOf = (lo: number, hi: number): string => `${lo}-${hi}`;

/** A tree that grows: its size and the roots of its perfect subtrees, the largest first. */
export class Frontier {
  readonly #peaks: string[];
  #size: number;
  constructor(size = 0, peaks: readonly string[] = []) {
    this.#size = size;
    this.#peaks = [...peaks];
  }
  get size(): number {
    return this.#size;
  }
  get peaks(): readonly string[] {
    return this.#peaks;
  }
  /** @param onNode told of each perfect subtree that the leaf completes, itself first */
  push(leaf: string, onNode?: (range: Range, hash: string) => void): void {
    let node = leaf,
      width = 1;
    const end = this.#size + 1;
    onNode?.({ lo: end - 1, hi: end }, node);
    for (let n = this.#size; n % 2 === 1; n = (n - 1) / 2) {
      node = nodeHash(this.#peaks.pop() as string, node);
      width *= 2;
      onNode?.({ lo: end - width, hi: end }, node);
    }
    this.#peaks.push(node);
    this.#size = end;
  }
  root(): string {
    return this.rootFrom(0);
  }
  /** Of the leaves from `lo` on, where a perfect subtree begins there. */
  rootFrom(lo: number): string {
    const own = lo === 0 ? 0 : this.ranges().findIndex((r) => r.lo === lo);
    if (own < 0) throw new Error(`no perfect subtree of ${this.#size} leaves begins at ${lo}`);
    const peaks = this.#peaks.slice(own);
    return peaks.length === 0 ? EMPTY : peaks.reduceRight((right, left) => nodeHash(left, right));
  }
  /** Where its perfect subtrees lie. */
  ranges(): readonly Range[] {
    return subtreesOf(this.#size);
  }
  copy(): Frontier {
    return new Frontier(this.#size, this.#peaks);
  }
}
/** The perfect subtrees of a tree, the largest first. */
export function subtreesOf(size: number): readonly Range[] {
  const ranges: Range[] = [];
  for (let lo = 0; lo < size; ) {
    const width = 2 ** Math.floor(Math.log2(size - lo));
    ranges.push({ lo, hi: lo + width });
    lo += width;
  }
  return ranges;
}

/** The largest power of two below `n`. */
const splitOf = (n: number): number => 2 ** Math.ceil(Math.log2(n) - 1);

/** What an inclusion proof of a leaf is made of: the hash of each, in this order. */
export function inclusionRanges(index: number, { lo, hi }: Range): readonly Range[] {
  if (hi - lo === 1) return [];
  const middle = lo + splitOf(hi - lo);
  return index < middle
    ? [...inclusionRanges(index, { lo, hi: middle }), { lo: middle, hi }]
    : [...inclusionRanges(index, { lo: middle, hi }), { lo, hi: middle }];
}
/** The same of a proof that a tree of `first` leaves is the beginning of one of `second`; 0 < first < second. */
export function consistencyRanges(first: number, second: number): readonly Range[] {
  const sub = (lo: number, hi: number, whole: boolean): readonly Range[] => {
    if (first === hi) return whole ? [] : [{ lo, hi }];
    const middle = lo + splitOf(hi - lo);
    return first <= middle
      ? [...sub(lo, middle, whole), { lo: middle, hi }]
      : [...sub(middle, hi, false), { lo, hi: middle }];
  };
  return sub(0, second, true);
}

/** Picks the hashes of ranges out of a tree that is built leaf by leaf. */
export class Collector {
  readonly #found = new Map<string, string | null>();
  constructor(readonly wanted: readonly Range[]) {
    for (const { lo, hi } of wanted) this.#found.set(keyOf(lo, hi), null);
  }
  readonly node = ({ lo, hi }: Range, hash: string): void => {
    const key = keyOf(lo, hi);
    if (this.#found.has(key)) this.#found.set(key, hash);
  };
  /** Subtrees that are there before the first leaf passes by. */
  seed(tree: Frontier): void {
    for (const [i, range] of tree.ranges().entries()) this.node(range, tree.peaks[i] as string);
  }
  /** @param tree as it is at the end; ranges that end there may be ragged */
  hashes(tree: Frontier): readonly string[] {
    return this.wanted.map(({ lo, hi }) => {
      const found = this.#found.get(keyOf(lo, hi)) ?? (hi === tree.size ? tree.rootFrom(lo) : null);
      if (found === null) throw new Error(`no hash of leaves ${lo} to ${hi}`);
      return found;
    });
  }
}

const isOdd = (n: number): boolean => n % 2 === 1;
const half = (n: number): number => Math.floor(n / 2);

/** Whether a leaf is at that place of the tree with that root. */
export function isIncluded(leaf: string, index: number, size: number, path: readonly string[], root: string): boolean {
  if (!(Number.isSafeInteger(index) && Number.isSafeInteger(size) && index >= 0 && index < size)) return false;
  let fn = index,
    sn = size - 1,
    r = leaf;
  for (const p of path) {
    if (sn === 0) return false;
    if (isOdd(fn) || fn === sn) {
      r = nodeHash(p, r);
      while (!isOdd(fn) && fn !== 0) {
        fn = half(fn);
        sn = half(sn);
      }
    } else r = nodeHash(r, p);
    fn = half(fn);
    sn = half(sn);
  }
  return sn === 0 && r === root;
}

/** Whether the tree of `first` leaves with `firstRoot` is the beginning of that of `second` with `secondRoot`. */
export function isConsistent(
  first: number,
  second: number,
  path: readonly string[],
  firstRoot: string,
  secondRoot: string,
): boolean {
  if (!(Number.isSafeInteger(first) && Number.isSafeInteger(second) && first > 0 && first <= second)) return false;
  if (first === second) return path.length === 0 && firstRoot === secondRoot;
  const nodes = Number.isInteger(Math.log2(first)) ? [firstRoot, ...path] : path;
  const [begin, ...rest] = nodes;
  if (begin === undefined || path.length === 0) return false;
  let fn = first - 1,
    sn = second - 1;
  while (isOdd(fn)) {
    fn = half(fn);
    sn = half(sn);
  }
  let fr = begin,
    sr = begin;
  for (const c of rest) {
    if (sn === 0) return false;
    if (isOdd(fn) || fn === sn) {
      fr = nodeHash(c, fr);
      sr = nodeHash(c, sr);
      while (!isOdd(fn) && fn !== 0) {
        fn = half(fn);
        sn = half(sn);
      }
    } else sr = nodeHash(sr, c);
    fn = half(fn);
    sn = half(sn);
  }
  return fr === firstRoot && sr === secondRoot && sn === 0;
}

// How much of a pass is done before it may stop for others. A pass is cut into slices of rows (of tokens, of queries,
// of routed rows, of the head's weights), as long as a slice may take by the speed that slices of its kind had before.
// Where it is cut changes no bit: a product of many rows gives each the bits that it has among any others, as long as
// they stay many, and attention takes each query by itself, the head each token of the vocabulary.
import type { Tensor } from '../native/tensor.js';

/** Rows that no slice of a product goes below: fewer may be summed in another order (native/cpu/matmul/matmul.h). */
export const MANY_ROWS = 32;
/** Queries of a slice, at least. */
export const FEW_QUERIES = 4;

export type PaceKind = 'dense' | 'attention' | 'experts' | 'swiglu' | 'head';

/** Weight of what was measured last. */
const FRESH = 0.3;
/** Slices are not asked to be shorter than a few calls of an op. */
const SHORTEST_MS = 0.05;

/** Says how long slices are. */
export interface Pace {
  /** Rows of the next slice. @param work of one row, in the kind's own unit · @param least rows that it has anyway */
  rows(kind: PaceKind, work: number, least: number): number;
  /** Told of each slice. */
  took(kind: PaceKind, work: number, ms: number): void;
}
/** By what slices took before. */
export class MeasuredPace implements Pace {
  /** Work of each kind in a millisecond; unknown at first. */
  readonly #speeds = new Map<PaceKind, number>();
  /** What a slice may take; infinite: nobody waits, and passes run whole. */
  sliceMs = Number.POSITIVE_INFINITY;

  rows(kind: PaceKind, work: number, least: number): number {
    if (this.sliceMs === Number.POSITIVE_INFINITY) return this.sliceMs;
    const speed = this.#speeds.get(kind);
    if (speed === undefined) return least;
    return Math.max(least, Math.floor((speed * Math.max(this.sliceMs, SHORTEST_MS)) / work));
  }
  took(kind: PaceKind, work: number, ms: number): void {
    if (!(work > 0 && ms > 0)) return;
    const now = work / ms,
      before = this.#speeds.get(kind) ?? now;
    this.#speeds.set(kind, before + FRESH * (now - before));
  }
}

/** Cuts n rows in slices of `size` to twice that, all alike. */
export function* slices(n: number, size: number): Generator<readonly [number, number]> {
  const count = Math.max(1, Math.floor(n / Math.min(n, size)));
  for (let i = 0; i < count; i++) yield [Math.floor((i * n) / count), Math.floor(((i + 1) * n) / count)];
}
/** Does `work` on rows [0, n), as many at a time as the pace allows, stopping after each; without one at once. */
export function* paced(
  pace: Pace | null,
  kind: PaceKind,
  n: number,
  workPerRow: number,
  least: number,
  work: (from: number, to: number) => void,
): Generator<void> {
  if (!pace) return work(0, n);
  for (const [from, to] of slices(n, pace.rows(kind, workPerRow, least))) {
    const since = performance.now();
    work(from, to);
    pace.took(kind, workPerRow * (to - from), performance.now() - since);
    yield;
  }
}

/**
 * Where rows that are sorted by expert may be cut: between experts, and inside one that keeps many rows on both sides.
 * @param offsets first row of each expert, and the end · @returns cuts from 0 to the end, `size` rows apart and more
 */
export function expertCuts(offsets: ArrayLike<number>, size: number): readonly number[] {
  const cuts = [0],
    E = offsets.length - 1;
  const last = (): number => cuts.at(-1) ?? 0;
  for (let e = 0; e < E; e++) {
    const begin = offsets[e] ?? 0,
      end = offsets[e + 1] ?? 0;
    if (begin - last() >= size) cuts.push(begin);
    for (;;) {
      const at = Math.max(last() + size, begin + MANY_ROWS, last() + MANY_ROWS);
      if (end - at < MANY_ROWS) break;
      cuts.push(at);
    }
  }
  const P = offsets[E] ?? 0;
  if (P > last()) cuts.push(P);
  return cuts;
}
/** The offsets of rows [from, to) alone. */
export const offsetsWithin = (offsets: Int32Array, from: number, to: number): Int32Array =>
  offsets.map((at) => Math.min(Math.max(at, from), to) - from);

/** Does `work` on the rows of experts as paced does; `offsets` are read where there is a pace, on the host. */
export function* pacedExperts(
  pace: Pace | null,
  P: number,
  offsets: Tensor,
  workPerRow: number,
  work: (from: number, to: number, offsets: Int32Array | null) => void,
): Generator<void> {
  const size = pace?.rows('experts', workPerRow, MANY_ROWS) ?? P;
  if (!pace || size >= P) {
    yield* paced(pace, 'experts', P, workPerRow, P, (from, to) => work(from, to, null));
    return;
  }
  const all = offsets.read() as Int32Array,
    cuts = expertCuts(all, size);
  for (let i = 1; i < cuts.length; i++) {
    const from = cuts[i - 1] ?? 0,
      to = cuts[i] ?? 0,
      since = performance.now();
    work(from, to, offsetsWithin(all, from, to));
    pace.took('experts', workPerRow * (to - from), performance.now() - since);
    yield;
  }
}

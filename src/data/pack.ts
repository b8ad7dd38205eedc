// Examples → batches. Rows are laid end to end with their own positions and boundaries, so that no row ever sees
// another.
import type { Batch, Targets } from '../model/types.js';
import { type Example, inputLength } from './example.js';

export interface PackedBatch {
  readonly batch: Batch;
  readonly targets: Targets;
  /** CHANNELS place of each target. */
  readonly channels: Uint8Array;
  /** What the batch's loss is multiplied by, where the weights do not say it already. */
  readonly scale?: number;
  /** The examples inside, in order, for error messages. */
  readonly examples: readonly Example[];
}

/** One batch of all the examples given. `scale` multiplies the weights: 1 / (Σ weights of the step). */
export function packBatch(examples: readonly Example[], scale = 1): PackedBatch {
  const lengths = examples.map(inputLength);
  const total = lengths.reduce((a, b) => a + b, 0);
  const tokens = new Int32Array(total);
  const positions = new Int32Array(total);
  const starts = new Int32Array(examples.length + 1);
  const rows: number[] = [];
  const targets: number[] = [];
  const weights: number[] = [];
  const channels: number[] = [];
  let at = 0;
  examples.forEach((example, b) => {
    const n = lengths[b] ?? 0;
    starts[b] = at;
    for (let i = 0; i < n; i++) {
      tokens[at + i] = example.tokens[i] ?? 0;
      positions[at + i] = i;
      const w = example.weights[i + 1] ?? 0;
      if (w <= 0) continue;
      rows.push(at + i);
      targets.push(example.tokens[i + 1] ?? 0);
      weights.push(w * scale);
      channels.push(example.channels?.[i + 1] ?? 0);
    }
    at += n;
  });
  starts[examples.length] = at;
  return {
    batch: { tokens, positions, starts },
    channels: Uint8Array.from(channels),
    examples,
    targets: { rows: Int32Array.from(rows), targets: Int32Array.from(targets), weights: Float32Array.from(weights) },
  };
}

/**
 * First fit in the order given: bins of at most `maxTokens` inputs (a longer item has one to itself); packing off: one
 * item each. Items of length 0 are left out.
 * @returns numbers of the items in each bin
 */
export function packLengths(lengths: ArrayLike<number>, maxTokens: number, packing: boolean): number[][] {
  const bins: { items: number[]; free: number }[] = [];
  for (let i = 0; i < lengths.length; i++) {
    const n = lengths[i] ?? 0;
    if (n === 0) continue;
    const bin = packing ? bins.find((b) => b.free >= n) : undefined;
    if (bin) {
      bin.items.push(i);
      bin.free -= n;
    } else bins.push({ items: [i], free: maxTokens - n });
  }
  return bins.map((b) => b.items);
}

/** packLengths of examples in hand. */
export const fillBins = (examples: readonly Example[], maxTokens: number, packing: boolean): Example[][] =>
  packLengths(examples.map(inputLength), maxTokens, packing).map((bin) => bin.map((i) => examples[i] as Example));

/** Σ of the weights that count, in double. */
export function weightSum(examples: readonly Example[]): number {
  let sum = 0;
  for (const e of examples) for (let i = 1; i < e.weights.length; i++) sum += e.weights[i] ?? 0;
  return sum;
}

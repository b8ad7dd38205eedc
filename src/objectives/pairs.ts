// What objectives over pairs of answers share: a sample is two examples, the chosen answer first, and both lie in one
// batch.
import { type Example, inputLength } from '../data/example.js';
import { type PackedBatch, packBatch, packLengths } from '../data/pack.js';
import type { BatchLimits } from './objective.js';

/** Number of the example that each target lies in; both lists ascend. */
export function exampleOfTargets(starts: Int32Array, rows: Int32Array): Int32Array {
  let b = 0;
  return rows.map((row) => {
    while (row >= (starts[b + 1] ?? Infinity)) b++;
    return b;
  });
}

function sumsOver({ batch, targets }: PackedBatch, value: (i: number) => number): Float64Array {
  const sums = new Float64Array(batch.starts.length - 1);
  exampleOfTargets(batch.starts, targets.rows).forEach((b, i) => {
    sums[b] = (sums[b] ?? 0) + value(i);
  });
  return sums;
}
/** Σ weight·nll of each example of the batch: its weighted log-probability, negated. */
export const answerSums = (packed: PackedBatch, nll: Float32Array): Float64Array =>
  sumsOver(packed, (i) => (packed.targets.weights[i] ?? 0) * (nll[i] ?? 0));
/** Σ weight of each example of the batch. */
export const weightSums = (packed: PackedBatch): Float64Array =>
  sumsOver(packed, (i) => packed.targets.weights[i] ?? 0);

/** Batches of whole pairs; `scale` is 1 / the pairs of the step. */
export function pairBatches(
  examples: readonly Example[],
  { tokensPerBatch, packing }: BatchLimits,
): readonly PackedBatch[] {
  const pairs = examples.length / 2;
  const lengths = Array.from({ length: pairs }, (_, p) =>
    examples.slice(2 * p, 2 * p + 2).reduce((n, e) => n + inputLength(e), 0),
  );
  return packLengths(lengths, tokensPerBatch, packing).map((bin) => ({
    ...packBatch(bin.flatMap((p) => examples.slice(2 * p, 2 * p + 2))),
    scale: 1 / pairs,
  }));
}

/** σ(x), and −log σ(x), without overflow. */
export const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
export const minusLogSigmoid = (x: number): number => Math.max(-x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

// Direct preference optimisation (arXiv:2305.18290): raises the log-probability of the chosen answer over that of the
// rejected one, relative to the base without the adapter. s is the weighted log-probability of an answer, Σ −weight·nll
// over its tokens, r the same under the base:
//   Δ = beta·((s_c − r_c) − (s_r − r_r)),  loss = mean over pairs of −log σ(Δ)
// ∂loss/∂nll of token i is weight_i·beta·σ(−Δ)/pairs in the chosen answer, minus that in the rejected one.
import { ConfigError } from '../base/errors.js';
import { inputLength } from '../data/example.js';
import { type PackedBatch, packBatch, packLengths } from '../data/pack.js';
import type { Learner } from './learner.js';
import type { Objective, Share } from './objective.js';

export const DEFAULT_BETA = 0.1;

/** Σ weight·nll of each example of the batch: −s. */
function answerSums({ batch, targets }: PackedBatch, nll: Float32Array): Float64Array {
  const sums = new Float64Array(batch.starts.length - 1);
  exampleOfTargets(batch.starts, targets.rows).forEach((b, i) => {
    sums[b] = (sums[b] ?? 0) + (targets.weights[i] ?? 0) * (nll[i] ?? 0);
  });
  return sums;
}
/** Number of the example that each target lies in; both lists ascend. */
export function exampleOfTargets(starts: Int32Array, rows: Int32Array): Int32Array {
  let b = 0;
  return rows.map((row) => {
    while (row >= (starts[b + 1] ?? Infinity)) b++;
    return b;
  });
}
/** σ and −log σ(x), without overflow. */
const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const softplusOfMinus = (x: number): number => Math.max(-x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** What the pairs of a batch add, and ∂loss/∂(Σ weight·nll) of each answer. */
function judged(
  beta: number,
  packed: PackedBatch,
  nll: Float32Array,
  reference: Float32Array,
): { readonly share: Required<Share>; readonly push: Float64Array } {
  const { scale = 1 } = packed;
  const [base, sums] = [answerSums(packed, reference), answerSums(packed, nll)];
  const push = new Float64Array(sums.length);
  let [loss, accuracy, margin] = [0, 0, 0];
  for (let c = 0; c < sums.length; c += 2) {
    const gain = (b: number): number => (base[b] ?? 0) - (sums[b] ?? 0); // s − r of an answer
    const delta = beta * (gain(c) - gain(c + 1));
    loss += scale * softplusOfMinus(delta);
    accuracy += delta > 0 ? scale : 0;
    margin += scale * delta;
    const strength = scale * beta * sigmoid(-delta);
    push[c] = strength;
    push[c + 1] = -strength;
  }
  return { share: { loss, figures: { accuracy, margin } }, push };
}

/** @param beta how strongly the base holds the adapter back */
export function dpo(beta: number): Objective {
  return {
    examplesPerSample: 2,
    batches(examples, { tokensPerBatch, packing }) {
      const pairs = examples.length / 2;
      const lengths = Array.from({ length: pairs }, (_, p) =>
        examples.slice(2 * p, 2 * p + 2).reduce((n, e) => n + inputLength(e), 0),
      );
      return packLengths(lengths, tokensPerBatch, packing).map((bin) => ({
        ...packBatch(bin.flatMap((p) => examples.slice(2 * p, 2 * p + 2))),
        scale: 1 / pairs,
      }));
    },
    gradients(learner: Learner, packed: PackedBatch, seed: number): Share {
      if (!learner.reference)
        throw new ConfigError(
          'no_reference',
          'method dpo compares with the base without the adapter: train an adapter',
        );
      const { batch, targets } = packed;
      const reference = learner.reference(batch, targets);
      let share: Share = { loss: Number.NaN };
      learner.lossAndGradients(batch, targets, seed, (nll) => {
        const found = judged(beta, packed, nll, reference);
        share = found.share;
        const of = exampleOfTargets(batch.starts, targets.rows);
        return targets.weights.map((w, i) => w * (found.push[of[i] ?? 0] ?? 0));
      });
      return share;
    },
    judge: (packed, nll, reference) => judged(beta, packed, nll, reference).share,
  };
}

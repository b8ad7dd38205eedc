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
function exampleOfTargets(starts: Int32Array, rows: Int32Array): Int32Array {
  let b = 0;
  return rows.map((row) => {
    while (row >= (starts[b + 1] ?? Infinity)) b++;
    return b;
  });
}
/** σ and −log σ(x), without overflow. */
const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const softplusOfMinus = (x: number): number => Math.max(-x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

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
      const { batch, targets, scale = 1 } = packed;
      const base = answerSums(packed, learner.reference(batch, targets));
      const share = { loss: 0, figures: { accuracy: 0, margin: 0 } };
      const weigh = (nll: Float32Array): Float32Array => {
        const sums = answerSums(packed, nll);
        const push = new Float64Array(sums.length);
        for (let c = 0; c < sums.length; c += 2) {
          const gain = (b: number): number => (base[b] ?? 0) - (sums[b] ?? 0); // s − r of an answer
          const margin = beta * (gain(c) - gain(c + 1));
          share.loss += scale * softplusOfMinus(margin);
          share.figures.accuracy += margin > 0 ? scale : 0;
          share.figures.margin += scale * margin;
          push[c] = scale * beta * sigmoid(-margin);
          push[c + 1] = -push[c]!;
        }
        const of = exampleOfTargets(batch.starts, targets.rows);
        return targets.weights.map((w, i) => w * (push[of[i] ?? 0] ?? 0));
      };
      learner.lossAndGradients(batch, targets, seed, weigh);
      return share;
    },
  };
}

// Preference tuning without a reference (ORPO, arXiv:2403.07691): trains on the chosen answer and raises its odds over
// those of the rejected one. a is the mean log-probability of an answer per weight, −Σ weight·nll / Σ weight:
//   log odds(a) = a − log(1 − exp a), Δ = log odds(a_c) − log odds(a_r), loss = −a_c − β·log σ(Δ)
// averaged over the pairs of a step. β is the paper's λ.
import type { PackedBatch } from '../data/pack.js';
import type { Learner } from './learner.js';
import type { Objective, Share } from './objective.js';
import { answerSums, exampleOfTargets, minusLogSigmoid, pairBatches, sigmoid, weightSums } from './pairs.js';

export interface OrpoSettings {
  /** How much the odds count beside the nll of the chosen answer. */
  readonly beta: number;
}

/** A certain answer has infinite odds; this is the largest f32 below 0 that a sum of nll near 1 can tell from it. */
const CERTAIN = -(2 ** -24);

/** log(1 − exp a) for a < 0. */
const logOneMinusExp = (a: number): number => (a > -Math.LN2 ? Math.log(-Math.expm1(a)) : Math.log1p(-Math.exp(a)));

/** What the pairs of a batch add, and ∂loss/∂(Σ weight·nll) of each answer. */
function judged(
  { beta }: OrpoSettings,
  packed: PackedBatch,
  nll: Float32Array,
): { readonly share: Required<Share>; readonly push: Float64Array } {
  const { scale = 1 } = packed;
  const sums = answerSums(packed, nll),
    weights = weightSums(packed);
  const push = new Float64Array(sums.length);
  const figures = { accuracy: 0, margin: 0, rewardChosen: 0, rewardRejected: 0 };
  let loss = 0;
  for (let c = 0; c < sums.length; c += 2) {
    const mean = (b: number): number => -(sums[b] ?? 0) / (weights[b] || 1);
    const below = (b: number): number => Math.min(mean(b), CERTAIN);
    const odds = (b: number): number => below(b) - logOneMinusExp(below(b));
    const gap = odds(c) - odds(c + 1);
    /** ∂(β·−log σ(Δ))/∂a of an answer, but for its sign. */
    const pull = (b: number): number => (beta * sigmoid(-gap)) / -Math.expm1(below(b));
    loss += scale * (-mean(c) + beta * minusLogSigmoid(gap));
    const [chosen, rejected] = [beta * mean(c), beta * mean(c + 1)];
    figures.accuracy += chosen > rejected ? scale : 0;
    figures.margin += scale * (chosen - rejected);
    figures.rewardChosen += scale * chosen;
    figures.rewardRejected += scale * rejected;
    push[c] = (scale * (1 + pull(c))) / (weights[c] || 1);
    push[c + 1] = (-scale * pull(c + 1)) / (weights[c + 1] || 1);
  }
  return { share: { loss, figures }, push };
}

export function orpo(settings: OrpoSettings): Objective {
  return {
    examplesPerSample: 2,
    batches: pairBatches,
    gradients(learner: Learner, packed: PackedBatch, seed: number): Share {
      const { batch, targets } = packed;
      let share: Share = { loss: Number.NaN };
      learner.lossAndGradients(batch, targets, seed, (nll) => {
        const found = judged(settings, packed, nll);
        share = found.share;
        const of = exampleOfTargets(batch.starts, targets.rows);
        return targets.weights.map((w, i) => w * (found.push[of[i] ?? 0] ?? 0));
      });
      return share;
    },
    judge: (packed, nll) => judged(settings, packed, nll).share,
  };
}

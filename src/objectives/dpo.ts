// Direct preference optimisation: raises the log-probability of the chosen answer over that of the rejected one,
// relative to the base without the adapter. s is the weighted log-probability of an answer, Σ −weight·nll over its
// tokens, r the same under the base, W the sum of its weights. With the gains g = s − r:
//   sigmoid (arXiv:2305.18290, smoothed by ε as in arXiv:2403.00409): Δ = β·(g_c − g_r),
//     loss = −(1 − ε)·log σ(Δ) − ε·log σ(−Δ)
//   ipo (arXiv:2310.12036, per token as in TRL): x = g_c / W_c − g_r / W_r, loss = (x − 1 / (2β))²
// averaged over the pairs of a step.
import type { PackedBatch } from '../data/pack.js';
import type { Recipe } from '../recipe/schema.js';
import type { Learner } from './learner.js';
import type { Objective, ReferenceSums, Share } from './objective.js';
import { answerSums, exampleOfTargets, minusLogSigmoid, pairBatches, sigmoid, weightSums } from './pairs.js';
import { referenceSums } from './references.js';

export const DEFAULT_BETA = 0.1;

export interface DpoSettings {
  /** How strongly the base holds the adapter back; of ipo the paper's τ. */
  readonly beta: number;
  /** ε: the share of pairs whose preference is taken to be the wrong way round. Of sigmoid alone; default 0. */
  readonly labelSmoothing?: number | undefined;
  readonly loss?: Recipe['train']['loss'];
}

/** Loss of a pair and ∂loss/∂(g_c − g_r), of ipo with each gain divided by its W. */
function lossOf({ beta, labelSmoothing: e = 0, loss }: DpoSettings, gap: number): readonly [number, number] {
  if (loss === 'ipo') {
    const off = gap - 1 / (2 * beta);
    return [off * off, 2 * off];
  }
  const delta = beta * gap;
  return [
    (1 - e) * minusLogSigmoid(delta) + e * minusLogSigmoid(-delta),
    beta * (e * sigmoid(delta) - (1 - e) * sigmoid(-delta)),
  ];
}

/** What the pairs of a batch add, and ∂loss/∂(Σ weight·nll) of each answer. */
function judged(
  settings: DpoSettings,
  packed: PackedBatch,
  nll: Float32Array,
  reference: Float64Array,
): { readonly share: Required<Share>; readonly push: Float64Array } {
  const { scale = 1 } = packed;
  const sums = answerSums(packed, nll);
  const weights = settings.loss === 'ipo' ? weightSums(packed) : null;
  const per = (b: number): number => weights?.[b] || 1;
  const push = new Float64Array(sums.length);
  const figures = { accuracy: 0, margin: 0, rewardChosen: 0, rewardRejected: 0 };
  let loss = 0;
  for (let c = 0; c < sums.length; c += 2) {
    const gain = (b: number): number => (reference[b] ?? 0) - (sums[b] ?? 0); // s − r of an answer
    const [pair, slope] = lossOf(settings, gain(c) / per(c) - gain(c + 1) / per(c + 1));
    const margin = settings.beta * (gain(c) - gain(c + 1));
    loss += scale * pair;
    figures.accuracy += margin > 0 ? scale : 0;
    figures.margin += scale * margin;
    figures.rewardChosen += scale * settings.beta * gain(c);
    figures.rewardRejected += scale * settings.beta * gain(c + 1);
    push[c] = (-scale * slope) / per(c);
    push[c + 1] = (scale * slope) / per(c + 1);
  }
  return { share: { loss, figures }, push };
}

export function dpo(settings: DpoSettings): Objective {
  return {
    examplesPerSample: 2,
    compares: true,
    batches: pairBatches,
    gradients(learner: Learner, packed: PackedBatch, seed: number, sumsOf?: ReferenceSums): Share {
      const reference = sumsOf?.(packed) ?? referenceSums(learner, packed);
      const { batch, targets } = packed;
      let share: Share = { loss: Number.NaN };
      learner.lossAndGradients(batch, targets, seed, (nll) => {
        const found = judged(settings, packed, nll, reference);
        share = found.share;
        const of = exampleOfTargets(batch.starts, targets.rows);
        return targets.weights.map((w, i) => w * (found.push[of[i] ?? 0] ?? 0));
      });
      return share;
    },
    judge: (packed, nll, reference) => judged(settings, packed, nll, reference).share,
  };
}

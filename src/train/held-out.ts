// Held-out rows during training: loss, and of how many answers every token is the most probable one. The batches and
// sums are those of `temper eval`, so that the loss is its loss; its exact match is stricter, as there the model writes
// the analysis before the answer itself.
import { setImmediate } from 'node:timers/promises';
import { TrainError } from '../base/errors.js';
import { CHANNELS, samplesAt } from '../data/example.js';
import type { Dataset } from '../data/load.js';
import { type PackedBatch, packBatch, packLengths } from '../data/pack.js';
import type { Learner } from '../objectives/learner.js';
import type { BatchLimits, Objective } from '../objectives/objective.js';
import { exampleOfTargets } from '../objectives/pairs.js';
import { referenceSums } from '../objectives/references.js';
import type { StepMetrics } from '../runs/metrics.js';

/** What an evaluation adds to the line of its step. */
export type HeldOutMetrics = Required<Pick<StepMetrics, 'evalLoss'>> &
  Pick<StepMetrics, 'evalMatch' | 'evalAccuracy' | 'evalMargin' | 'evalRewardChosen' | 'evalRewardRejected'>;
/** By batch: the batches of all evaluations are the same, and so is what the reference says of them. */
export type HeldOutReference = Map<number, Float64Array>;

/**
 * @param known what the reference said in evaluations before
 * @param step for the error
 * @returns null: the signal came first
 * @throws {TrainError} bad_loss: NaN or infinity
 */
export async function measureHeldOut(
  learner: Learner,
  { examples }: Dataset,
  objective: Objective,
  { tokensPerBatch, packing }: BatchLimits,
  known: HeldOutReference,
  step: number,
  signal?: AbortSignal,
): Promise<HeldOutMetrics | null> {
  const { examplesPerSample: per, judge, compares } = objective;
  let [weighted, weights, matched, rows, pairs, pairLoss] = [0, 0, 0, 0, 0, 0];
  const judged = { accuracy: 0, margin: 0, rewardChosen: 0, rewardRejected: 0 };
  for (const [b, bin] of packLengths(examples.inputLengths(per), tokensPerBatch, packing).entries()) {
    await setImmediate(); // lets messages in; native calls block this thread
    if (signal?.aborted) return null;
    const packed = packBatch(samplesAt(examples, bin, per));
    const { batch, targets } = packed;
    const hits = judge ? null : new Uint8Array(targets.rows.length);
    const nll = learner.nll(batch, targets, hits);
    if (nll.some((x) => !Number.isFinite(x))) {
      const { file, line } = packed.examples[0]?.source ?? { file: '', line: 0 };
      throw new TrainError(
        'bad_loss',
        `step ${step}: the loss of held-out rows (${file}:${line} and those beside it) is not ` +
          'finite; lower train.lr, ' +
          'and go on from the checkpoint before it in a new run (adapter.from)',
        { step, file, line },
      );
    }
    for (let i = 0; i < nll.length; i++) {
      const w = targets.weights[i] ?? 0;
      weighted += w * (nll[i] ?? 0);
      weights += w;
    }
    if (judge) {
      if (compares && !known.has(b)) known.set(b, referenceSums(learner, packed));
      const { loss, figures } = judge(packed, nll, known.get(b) ?? new Float64Array());
      pairs += packed.examples.length / 2;
      pairLoss += loss;
      for (const name of Object.keys(judged) as (keyof typeof judged)[]) judged[name] += figures?.[name] ?? 0;
    }
    if (!hits) continue;
    const found = matchedAnswers(packed, hits);
    rows += found.answers;
    matched += found.matched;
  }
  return judge
    ? {
        evalLoss: pairLoss / pairs,
        evalAccuracy: judged.accuracy / pairs,
        evalMargin: judged.margin / pairs,
        evalRewardChosen: judged.rewardChosen / pairs,
        evalRewardRejected: judged.rewardRejected / pairs,
      }
    : { evalLoss: weighted / weights, ...(rows > 0 ? { evalMatch: matched / rows } : {}) };
}

const [NONE, FINAL] = [CHANNELS.indexOf('none'), CHANNELS.indexOf('final')];
/**
 * Of each example the tokens of its last final message, up to the one that ends it; of an example without channels
 * (text, tokens) all that are trained. One of tool calls alone has no answer, as for `temper eval`.
 * @param hits of each target: whether it is the most probable token
 */
export function matchedAnswers(
  { batch, targets: { rows }, channels }: Pick<PackedBatch, 'batch' | 'targets' | 'channels'>,
  hits: Uint8Array,
): { readonly answers: number; readonly matched: number } {
  const of = exampleOfTargets(batch.starts, rows);
  let [answers, matched] = [0, 0];
  for (let from = 0, end = 0; from < rows.length; from = end) {
    while (end < rows.length && of[end] === of[from]) end++;
    let first = from;
    const last = channels.lastIndexOf(FINAL, end - 1);
    let stop = end;
    if (last >= from) {
      stop = last + 1;
      first = last;
      while (first > from && channels[first - 1] === FINAL && rows[first - 1] === (rows[first] ?? 0) - 1) first--;
    } else if (channels.subarray(from, end).some((c) => c !== NONE)) continue;
    answers++;
    if (hits.subarray(first, stop).every((hit) => hit === 1)) matched++;
  }
  return { answers, matched };
}

/** The evaluation with the lowest loss, and how many there were after it. */
export function bestOf(metrics: readonly StepMetrics[]): { readonly best: StepMetrics | null; readonly since: number } {
  let best: StepMetrics | null = null,
    since = 0;
  for (const m of metrics) {
    if (m.evalLoss === undefined) continue;
    if (best === null || m.evalLoss < (best.evalLoss ?? Infinity)) [best, since] = [m, 0];
    else since++;
  }
  return { best, since };
}

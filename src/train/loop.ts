// The training loop: steps in order, what each took and gave. It knows neither files nor models.
import { setImmediate } from 'node:timers/promises';
import { NativeError, TrainError } from '../base/errors.js';
import { type Example, type Examples, samplesAt } from '../data/example.js';
import { deriveSeed, type StepPlan } from '../data/order.js';
import type { PackedBatch } from '../data/pack.js';
import { peakBytes, takeTransfers } from '../native/device.js';
import type { Learner } from '../objectives/learner.js';
import { type BatchLimits, type Objective, type ReferenceSums, sft } from '../objectives/objective.js';
import { References } from '../objectives/references.js';
import type { StepMetrics } from '../runs/metrics.js';
import type { Moments } from './moments.js';
import { learningRate, type Schedule } from './schedule.js';
import { OptimizerStep, type StepSettings } from './step.js';
import type { StepWork } from './work.js';

export interface LoopOptions extends Schedule, BatchLimits, StepSettings {
  readonly seed: number;
  /** What the steps minimise; default: the weighted nll of the data. */
  readonly objective?: Objective;
  /** What an objective that compares is given; default: each sample's once, when it is first needed. */
  readonly sumsOf?: ReferenceSums;
  /** What steps are held to, of a device whose limit is known. */
  readonly work?: StepWork;
}

const places = (examples: readonly Example[]): string => {
  const shown = examples
    .slice(0, 8)
    .map((e) => `${e.source.file}:${e.source.line}`)
    .join(', ');
  return examples.length > 8 ? `${shown} and ${examples.length - 8} more` : shown;
};

/** Over the batches of a step. */
interface Summed {
  readonly loss: number;
  readonly tokens: number;
  readonly figures: Readonly<Record<string, number>>;
}
const ranOut = (e: unknown): boolean =>
  e instanceof NativeError && (e.code === 'out_of_device_memory' || e.code === 'out_of_memory');

/** @throws {TrainError} bad_update: what the update left gives no loss */
function requireFinite(learner: Learner, { batch, targets, examples }: PackedBatch, step: number, lr: number): void {
  const nll = learner.nll(batch, targets);
  const bad = nll.find((x) => !Number.isFinite(x));
  if (bad === undefined) return;
  throw new TrainError(
    'bad_update',
    `step ${step}: after the update the loss of rows ${places(examples)} is ${bad}: the step was too large; lower ` +
      `train.lr (it was ${lr.toExponential(2)})`,
    { step },
  );
}

/**
 * Trains steps done+1 … plan.steps and yields after each. A step in which memory runs out is begun anew with less kept
 * from forward to backward, if anything was. The caller may stop between yields; a step it saw is
 * complete. The signal is looked at between batches: a step cut off there leaves parameters and moments as they were,
 * and ends the loop without an error.
 * @throws {TrainError} bad_loss, bad_gradient: NaN or infinity; parameters and moments are as after the step before ·
 * bad_update: the last update left parameters that give no loss
 */
export async function* trainLoop(
  learner: Learner,
  moments: Moments,
  examples: Examples,
  plan: StepPlan,
  done: number,
  options: LoopOptions,
  signal?: AbortSignal,
): AsyncGenerator<StepMetrics, void, void> {
  const objective = options.objective ?? sft;
  using optimizer = new OptimizerStep(learner, moments, objective, options);
  const sumsOf =
    options.sumsOf ??
    (objective.compares && learner.reference
      ? new References(learner, examples, plan, objective, options).sumsOf
      : undefined);
  for (let step = done + 1; step <= plan.steps; step++) {
    const began = performance.now();
    const lr = learningRate(step, plan.steps, options);
    const rows = samplesAt(examples, plan.rows(step - 1).indices, objective.examplesPerSample);
    const batches = objective.batches(rows, options);
    /** Gradients of the whole step; null: the signal cut it off. */
    const summed = async (): Promise<Summed | null> => {
      optimizer.begin();
      const sum = { loss: 0, tokens: 0, figures: {} as Record<string, number> };
      for (const [b, batch] of batches.entries()) {
        // Lets messages and signals in; native calls block this thread.
        await setImmediate();
        if (signal?.aborted) return null;
        const share = optimizer.add(batch, deriveSeed(options.seed, step, b), sumsOf);
        if (!Number.isFinite(share.loss))
          throw new TrainError(
            'bad_loss',
            `step ${step}: the loss of batch ${b + 1} of ${batches.length} is ${share.loss}, rows ` +
              `${places(batch.examples)}; look at these rows, or lower train.lr (it was ${lr.toExponential(2)})`,
            { step, batch: b + 1, rows: batch.examples.map((e) => e.source) },
          );
        sum.loss += share.loss;
        for (const [name, x] of Object.entries(share.figures ?? {})) sum.figures[name] = (sum.figures[name] ?? 0) + x;
        sum.tokens += batch.batch.tokens.length;
      }
      return sum;
    };
    takeTransfers(); // what came between the steps
    let again = false;
    const found = await summed().catch((e: unknown) => {
      again = ranOut(e) && learner.keepLess?.() === true;
      if (!again) throw e;
      return summed();
    });
    if (!found) return;
    const { loss, tokens, figures } = found;
    const gradNorm = optimizer.gradNorm();
    if (!Number.isFinite(gradNorm))
      throw new TrainError(
        'bad_gradient',
        `step ${step}: the gradient norm is ${gradNorm}, rows ${places(rows)}; look at these rows, or lower train.lr`,
        { step, rows: rows.map((e) => e.source) },
      );
    optimizer.update(step, lr, gradNorm);
    const imbalance = learner.expertImbalance?.() ?? null;
    const copied = takeTransfers(); // the norm was waited for, and so were they
    // No later step would notice what the last update broke.
    if (step === plan.steps && batches[0]) requireFinite(learner, batches[0], step, lr);
    const seconds = (performance.now() - began) / 1000;
    yield {
      step,
      loss,
      lr,
      gradNorm,
      tokens,
      tokensPerSecond: tokens / seconds,
      peakBytes: peakBytes(learner.params.place),
      ...(options.work ? { percentOfLimit: options.work.percentOfLimit(batches, seconds) } : {}),
      ...(imbalance === null ? {} : { expertImbalance: imbalance }),
      ...(copied.bytes > 0 ? { copiedBytes: copied.bytes, copiesHidden: copied.hiddenPercent } : {}),
      ...(again ? { ranOut: true } : {}),
      ...figures,
    };
  }
}

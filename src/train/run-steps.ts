// The steps of a run one after the other: what each leaves in the run's folder, and when it is evaluated.
import type { Dataset } from '../data/load.js';
import type { StepPlan } from '../data/order.js';
import { describeDevice } from '../native/device.js';
import { objectiveOf } from '../objectives/objective.js';
import type { References } from '../objectives/references.js';
import type { Recipe } from '../recipe/schema.js';
import { appendMetrics, readMetrics, replaceMetrics, type StepMetrics } from '../runs/metrics.js';
import { appendEvents, beginEvents } from '../runs/tensorboard.js';
import type { Checkpoints } from './checkpoints.js';
import { bestOf, type HeldOutMetrics, type HeldOutReference, measureHeldOut } from './held-out.js';
import type { TrainedLearner } from './learners.js';
import { trainLoop } from './loop.js';
import type { StepWork } from './work.js';

export interface TrainProgress extends StepMetrics {
  readonly steps: number;
  readonly epoch: number;
  readonly etaSeconds: number;
  /** What it computes on, in words. */
  readonly device: string;
}
/** Pairs whose reference is known, before the first step (train.precomputeReference). */
export interface ReferenceProgress {
  readonly done: number;
  readonly total: number;
  readonly seconds: number;
}
export interface TrainHooks {
  readonly onProgress?: (progress: TrainProgress) => void;
  readonly onReference?: (progress: ReferenceProgress) => void;
  /** What the user should know before it runs for hours, a sentence each. */
  readonly onNotice?: (notice: string) => void;
  /** Aborting ends the run after the batch in hand, with a checkpoint. */
  readonly signal?: AbortSignal;
}

export const tokensPerBatch = (recipe: Recipe): number => recipe.train.tokensPerBatch ?? recipe.data.maxTokens;

/** What the loop goes by. */
export const stepOptions = (recipe: Recipe) => ({
  ...recipe.train,
  ...recipe.train.optimizer,
  packing: recipe.data.packing,
  tokensPerBatch: tokensPerBatch(recipe),
  objective: objectiveOf(recipe),
});

/** What the steps are made of. */
export interface Steps {
  readonly data: Dataset;
  readonly plan: StepPlan;
  /** Held-out rows, where the run is evaluated on them. */
  readonly heldOut: Dataset | null;
  /** Called when memory ran out in a step, which was begun anew and is done. */
  readonly onRanOut?: (step: number) => void;
  /** What steps are held to, on a device whose limit is known. */
  readonly work?: StepWork;
}

/**
 * @param references of an objective that compares
 * @returns the step after which train.patience ended the run; null: it went on to its end, or was stopped
 */
export async function runSteps(
  recipe: Recipe,
  run: string,
  learner: TrainedLearner,
  { data, plan, heldOut, onRanOut, work }: Steps,
  references: References | null,
  checkpoints: Checkpoints,
  hooks: TrainHooks,
): Promise<number | null> {
  const t = recipe.train;
  const first = checkpoints.done;
  const options = {
    ...stepOptions(recipe),
    ...(references ? { sumsOf: references.sumsOf } : {}),
    ...(work ? { work } : {}),
  };
  const heldOutReference: HeldOutReference = new Map();
  const evaluated = async (step: number): Promise<HeldOutMetrics | null> => {
    const due = t.evalEvery !== undefined && (step % t.evalEvery === 0 || step === plan.steps);
    if (!due || !heldOut) return null;
    return measureHeldOut(learner, heldOut, options.objective, options, heldOutReference, step, hooks.signal);
  };
  // An evaluation that was cut off is made up for.
  const last = readMetrics(run).at(-1);
  if (last?.step === first && last.evalLoss === undefined) {
    const found = await evaluated(first);
    if (found) replaceMetrics(run, { ...last, ...found });
  }
  const before = readMetrics(run);
  let { best, since } = bestOf(before);
  checkpoints.best = best?.step ?? null;
  if (t.tensorBoard) beginEvents(run, before);
  const patient = (): boolean => t.patience === undefined || since < t.patience;
  if (!patient() && first < plan.steps) return first;

  const began = performance.now();
  const steps = trainLoop(learner, checkpoints.moments, data.examples, plan, first, options, hooks.signal);
  for await (const measured of steps) {
    const done = measured.step;
    checkpoints.done = done;
    if (measured.ranOut) onRanOut?.(done);
    const found = await evaluated(done);
    const metrics: StepMetrics = found ? { ...measured, ...found } : measured;
    appendMetrics(run, metrics);
    if (t.tensorBoard) appendEvents(run, metrics);
    const seconds = (performance.now() - began) / 1000;
    hooks.onProgress?.({
      ...metrics,
      steps: plan.steps,
      epoch: plan.rows(done - 1).epoch + 1,
      etaSeconds: (seconds / (done - first)) * (plan.steps - done),
      device: describeDevice(learner.device),
    });
    const isBest = found !== null && found.evalLoss < (best?.evalLoss ?? Infinity);
    if (isBest) [best, since] = [metrics, 0];
    else if (found) since++;
    checkpoints.best = best?.step ?? null;
    if (isBest || done % t.checkpointEvery === 0) await checkpoints.save();
    if (!patient() && done < plan.steps) return done;
    if (hooks.signal?.aborted) break;
  }
  return null;
}

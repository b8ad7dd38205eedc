// One optimizer step run dry: what it would allocate and call. The plan reports it; `device: auto` asks whether it
// fits.
import { formatBytes } from '../base/units.js';
import { type Examples, samplesAt } from '../data/example.js';
import type { StepPlan } from '../data/order.js';
import type { PackedBatch } from '../data/pack.js';
import { backendOf, type Device, describeDevice, HOST, hostDevice } from '../native/backends.js';
import { deviceMemory, deviceRoom, useDevice } from '../native/device.js';
import { ops } from '../native/ops.js';
import { type DryRunReport, dryRun } from '../native/plan.js';
import { Scope } from '../native/tensor.js';
import { objectiveOf, type ReferenceSums } from '../objectives/objective.js';
import { referenceSums } from '../objectives/references.js';
import { memoryLimitOf, onHost } from '../recipe/place.js';
import type { Recipe } from '../recipe/schema.js';
import { createLearner } from './learners.js';
import { OptimizerStep } from './step.js';

export interface DryStep {
  readonly report: DryRunReport;
  /** Calls of the step alone. */
  readonly step: DryRunReport['ops'];
  readonly trainedParameters: number;
}
/**
 * Allocations and op calls of one step over the given batches: the loop's own step, run dry.
 * @param part `known`: what the reference says is known already; `reference`: the passes alone that tell;
 * `evaluation`: no step, the batches are held out
 * @param heldOut batches that are evaluated after the step
 */
export function dryStep(
  recipe: Recipe,
  run: string,
  batches: readonly PackedBatch[],
  part: 'whole' | 'known' | 'reference' | 'evaluation' = 'whole',
  heldOut: readonly PackedBatch[] = [],
): DryStep {
  let trainedParameters = 0;
  const { report } = dryRun(() => {
    const learner = createLearner(recipe, run);
    trainedParameters = learner.trainedParameters;
    using scope = new Scope('optimizer', learner.momentsPlace);
    using small = new Scope('workspace', learner.params.place);
    const moments = { m: scope.zeros('f32', learner.params.shape), v: scope.zeros('f32', learner.params.shape) };
    const { train: t } = recipe;
    using optimizer = new OptimizerStep(learner, moments, objectiveOf(recipe), { ...t, ...t.optimizer });
    // Everything called so far is set-up; a mark among the calls tells where the step begins.
    ops.fill(small.empty('f32', [1]), 0);
    const { judge } = objectiveOf(recipe);
    const evaluate = ({ batch, targets }: PackedBatch): void => {
      learner.nll(batch, targets, judge ? null : new Uint8Array(targets.rows.length));
    };
    if (part === 'whole' || part === 'known') optimizer.begin();
    const known: ReferenceSums = ({ examples }) => new Float64Array(examples.length);
    if (part === 'reference') for (const batch of batches) referenceSums(learner, batch);
    else if (part === 'evaluation') batches.forEach(evaluate);
    else {
      for (const batch of batches) optimizer.add(batch, 1, part === 'known' ? known : undefined);
      optimizer.gradNorm();
      optimizer.update(1, 1e-3, 1);
    }
    heldOut.forEach(evaluate);
    learner.close();
  });
  const mark = report.ops.findIndex(
    (c) =>
      c.op === 'fill' && typeof c.args[0] === 'object' && c.args[0]?.shape.length === 1 && c.args[0].shape[0] === 1,
  );
  return { report, step: report.ops.slice(mark + 1), trainedParameters };
}

/** Steps whose batches are looked at for the largest one. */
const LOOKED_AT = 1000;
/** Batches of a typical step, which give the time, and the largest one of the first steps, which gives the memory. */
export function plannedBatches(
  recipe: Recipe,
  examples: Examples,
  steps: StepPlan,
  signal?: AbortSignal,
): { readonly typical: readonly PackedBatch[]; readonly largest: readonly PackedBatch[] } {
  const t = recipe.train,
    objective = objectiveOf(recipe),
    limits = { tokensPerBatch: t.tokensPerBatch ?? recipe.data.maxTokens, packing: recipe.data.packing };
  const batchesOf = (step: number): readonly PackedBatch[] =>
    objective.batches(samplesAt(examples, steps.rows(step).indices, objective.examplesPerSample), limits);
  const looked = Math.min(steps.steps, LOOKED_AT);
  const typical = batchesOf(Math.floor(looked / 2));
  let largest = typical[0];
  for (let s = 0; s < looked; s++) {
    signal?.throwIfAborted();
    for (const b of batchesOf(s)) if (b.batch.tokens.length > (largest?.batch.tokens.length ?? 0)) largest = b;
  }
  return { typical, largest: largest ? [largest] : [] };
}

/** Of a device that is open: all that may be taken of it, by whomever. */
const limitOf = (): number => Math.floor(deviceRoom() + deviceMemory().held);
/** The CPU, because a step does not fit. */
const tooLarge = (device: Device, limit: number, needed: number): Device =>
  hostDevice(`no GPU: ${describeDevice(device)} may take ${formatBytes(limit)}, a step needs ${formatBytes(needed)}`);

/**
 * A dry step of the recipe on the device that it would take. One that it names need not be there; `auto` opens what it
 * finds, and takes the CPU when the step does not fit.
 */
export function dryStepOnDevice(
  recipe: Recipe,
  run: string,
  batches: readonly PackedBatch[],
  heldOut: readonly PackedBatch[] = [],
): { readonly recipe: Recipe; readonly computesOn: string; readonly dry: DryStep } {
  const dryOf = (there: Recipe): DryStep => dryStep(there, run, batches, 'whole', heldOut);
  if (recipe.device !== 'auto') return { recipe, computesOn: recipe.device, dry: dryOf(recipe) };
  const found = useDevice('auto', memoryLimitOf(recipe));
  const on = (device: Device, limit: number): ReturnType<typeof dryStepOnDevice> => {
    const there =
      device.place === HOST
        ? onHost(recipe)
        : { ...recipe, device: device.name, ...(limit > 0 ? { memoryLimit: `${limit}` } : {}) };
    return { recipe: there, computesOn: describeDevice(device), dry: dryOf(there) };
  };
  if (!backendOf(found.place).ownMemory) return on(found, 0);
  const limit = limitOf(),
    there = on(found, limit),
    needed = there.dry.report.device.totalPeak;
  return needed > limit ? on(tooLarge(found, limit, needed), 0) : there;
}

/**
 * The device itself, or the CPU with the reason where a step does not fit.
 * @param device that `auto` found, open
 */
export function deviceThatFits(recipe: Recipe, run: string, batches: readonly PackedBatch[], device: Device): Device {
  const limit = limitOf(),
    there = { ...recipe, device: device.name, memoryLimit: `${limit}` },
    needed = dryStep(there, run, batches).report.device.totalPeak;
  return needed > limit ? tooLarge(device, limit, needed) : device;
}

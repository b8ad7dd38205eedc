// One optimizer step run dry: what it would allocate and call. The plan reports it; a run decides by it what lies
// where, and `device: auto` whether it fits.
import { formatBytes } from '../base/units.js';
import { type Examples, samplesAt } from '../data/example.js';
import type { StepPlan } from '../data/order.js';
import type { PackedBatch } from '../data/pack.js';
import { backendOf, type Device, describeDevice, HOST, hostDevice, parseDevice } from '../native/backends.js';
import { deviceLimit, useDevice } from '../native/device.js';
import { ops } from '../native/ops.js';
import { type DryRunReport, dryRun } from '../native/plan.js';
import { type Place, Scope } from '../native/tensor.js';
import { objectiveOf, type ReferenceSums } from '../objectives/objective.js';
import { referenceSums } from '../objectives/references.js';
import { memoryLimitOf, onHost } from '../recipe/place.js';
import type { Recipe } from '../recipe/schema.js';
import type { MemoryLayout } from '../runs/run-folder.js';
import { createLearner, type TrainedLearner } from './learners.js';
import type { MemoryUse } from './memory-use.js';
import { createMoments } from './moments.js';
import { chooseUse, type Room } from './room.js';
import { OptimizerStep } from './step.js';

export interface DryStep {
  readonly report: DryRunReport;
  /** Calls of the step alone. */
  readonly step: DryRunReport['ops'];
  readonly trainedParameters: number;
  readonly layout: MemoryLayout;
}
/** @param tokens of the largest batch; default: of that which it was decided for */
export const layoutOf = ({ config, memory }: TrainedLearner, tokens = memory.use.tokens): MemoryLayout => ({
  moments: memory.momentsPlace,
  layers: config.num_hidden_layers,
  kept: memory.keep(tokens),
});
const mostTokens = (batches: readonly PackedBatch[]): number =>
  batches.reduce((most, { batch }) => Math.max(most, batch.tokens.length), 0);

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
  use: MemoryUse,
  part: 'whole' | 'known' | 'reference' | 'evaluation' = 'whole',
  heldOut: readonly PackedBatch[] = [],
): DryStep {
  const { value, report } = dryRun(() => {
    const learner = createLearner(recipe, run);
    learner.memory.settle(use);
    const { trainedParameters } = learner,
      layout = layoutOf(learner, mostTokens(batches));
    using scope = new Scope('optimizer', learner.memory.momentsPlace);
    using small = new Scope('workspace', learner.params.place);
    const { train: t } = recipe;
    const moments = createMoments(t.optimizer.name, scope, learner.params);
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
    return { trainedParameters, layout };
  });
  const mark = report.ops.findIndex(
    (c) =>
      c.op === 'fill' && typeof c.args[0] === 'object' && c.args[0]?.shape.length === 1 && c.args[0].shape[0] === 1,
  );
  return { ...value, report, step: report.ops.slice(mark + 1) };
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

/** The CPU, because a step does not fit. */
const tooLarge = (device: Device, limit: number, needed: number): Device =>
  hostDevice(`no GPU: ${describeDevice(device)} may take ${formatBytes(limit)}, a step needs ${formatBytes(needed)}`);

interface Settled {
  readonly device: Device;
  /** The recipe on that device alone. */
  readonly recipe: Recipe;
  readonly use: MemoryUse;
}
/** On a device that is open, or named only. */
function settledOn(recipe: Recipe, run: string, batches: readonly PackedBatch[], device: Device, room: Room): Settled {
  const limit = room.device > 0 && Number.isFinite(room.device) ? { memoryLimit: `${room.device}` } : {},
    there =
      device.place === HOST
        ? onHost(recipe)
        : { ...recipe, device: device.name, ...(backendOf(device.place).ownMemory ? limit : {}) };
  const dry = (use: MemoryUse): DryRunReport => dryStep(there, run, batches, use).report;
  const { use, needed } = chooseUse(recipe.train, device.place, mostTokens(batches), room, dry);
  if (recipe.device === 'auto' && needed > room.device)
    return settledOn(recipe, run, batches, tooLarge(device, room.device, needed), room);
  return { device, recipe: there, use };
}

/**
 * How a run uses the memory of a device. The CPU with the reason in its place where the recipe leaves the choice and no
 * way to use it is enough for a step.
 * @param device the recipe's, open
 * @param host bytes that may be taken of the host's memory
 */
export const settle = (
  recipe: Recipe,
  run: string,
  batches: readonly PackedBatch[],
  device: Device,
  host: number,
): Settled => settledOn(recipe, run, batches, device, { host, device: deviceLimit() });

/**
 * A dry step of the recipe on the device that it would take. One that it names need not be there; `auto` opens what it
 * finds, and takes the CPU when the step does not fit.
 * @param host as for `settle`
 */
export function dryStepOnDevice(
  recipe: Recipe,
  run: string,
  batches: readonly PackedBatch[],
  heldOut: readonly PackedBatch[],
  host: number,
): Settled & { readonly computesOn: string; readonly dry: DryStep } {
  const wanted = parseDevice(recipe.device);
  const settled =
    wanted === 'auto'
      ? settle(recipe, run, batches, useDevice('auto', memoryLimitOf(recipe)), host)
      : settledOn(recipe, run, batches, named(recipe.device, wanted.place), {
          host,
          device: memoryLimitOf(recipe) || Number.NaN,
        });
  const { device, recipe: there, use } = settled;
  const computesOn = wanted === 'auto' ? describeDevice(device) : recipe.device;
  return { ...settled, computesOn, dry: dryStep(there, run, batches, use, 'whole', heldOut) };
}
const named = (name: string, place: Place): Device => ({ place, name, hardware: null, reason: null });

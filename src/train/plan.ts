// What a recipe will cost, before a weight is loaded: peak memory by category from a dry run of the very code that
// trains, and the time of a step from timing each of its distinct op calls once on this machine.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { anonymousBytes, availableBytes, embedded } from '../base/machine.js';
import { formatBytes } from '../base/units.js';
import { samplesAt } from '../data/example.js';
import { type LoadContext, loadDataset, rowSettings } from '../data/load.js';
import { planSteps } from '../data/order.js';
import { type PackedBatch, packBatch, packLengths } from '../data/pack.js';
import { parseConfig, readConfig } from '../model/config.js';
import { besideModel, standIn } from '../model/stand-in.js';
import { type Backend, backendOf, HOST, parseDevice } from '../native/backends.js';
import { type Timing, timeCalls } from '../native/op-timing.js';
import type { DryRunReport } from '../native/plan.js';
import type { Category, Place } from '../native/tensor.js';
import { objectiveOf } from '../objectives/objective.js';
import { heldOutFiles, trainFiles } from '../recipe/data-files.js';
import { loadRecipe } from '../recipe/load.js';
import { memoryLimitOf } from '../recipe/place.js';
import type { Recipe } from '../recipe/schema.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import { defaultRunFolder, type MemoryLayout } from '../runs/run-folder.js';
import { type DryStep, dryStep, dryStepOnDevice, plannedBatches } from './dry-step.js';
import type { MemoryUse } from './memory-use.js';
import { momentBytes, type OptimizerName } from './moments.js';
import { freeDiskBytes } from './offload.js';

export interface TrainPlan {
  /** What the plan stands on that is not the recipe's own: a shape in the place of weights, another tokenizer. */
  readonly notes: readonly string[];
  readonly steps: number;
  readonly tokensPerStep: number;
  readonly trainedParameters: number;
  /**
   * Bytes at the peak of each category of counted memory, and of their sum. Mapped weights are the page cache's and not
   * in it.
   */
  readonly peakBytes: Readonly<Record<Category, number>>;
  readonly totalPeakBytes: number;
  /** Anonymous memory of the runtime itself before any of it, bytes. */
  readonly runtimeBytes: number;
  /** Bytes of the checkpoint's files, read through the page cache. */
  readonly mappedBytes: number;
  /**
   * Bytes that each pass over the model may have to read from disk again, because the files do not stay in memory
   * beside all this; 0: they do.
   */
  readonly rereadBytes: number;
  readonly availableBytes: number;
  /** What it would compute on, in words. */
  readonly computesOn: string;
  /**
   * On a GPU: its memory at the peak of each category and of their sum, the most that is taken from its driver for
   * them (rounding and gaps included), and the most that may be (recipe's memoryLimit, or what `auto` found; NaN: not
   * known). Null on the CPU.
   */
  readonly device: {
    readonly peakBytes: Readonly<Record<Category, number>>;
    readonly totalPeakBytes: number;
    readonly heldPeakBytes: number;
    readonly limitBytes: number;
  } | null;
  /** What the largest batch keeps in place of computing it again, and where the moments of AdamW lie. */
  readonly layout: MemoryLayout;
  /** Bytes of AdamW's two moments, and what they would be in 8 bits (train.optimizer.name). */
  readonly moments: { readonly optimizer: OptimizerName; readonly bytes: number; readonly bytesIn8Bits: number };
  /** Activations offloaded to the run folder's disk, and what is free there. */
  readonly offloadedBytes: number;
  readonly diskFreeBytes: number;
  readonly fits: boolean;
  /** What to change first, when it does not fit. */
  readonly advice: string;
  /** Of a step, the mean over the run; what is computed before the first one is not in it. */
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
  /** Of all passes over the base without the adapter (method dpo), each pair once; 0: there are none. */
  readonly referenceSeconds: number;
  /** Evaluations on held-out rows (train.evalEvery), and what all of them take. */
  readonly evaluations: number;
  readonly evalSeconds: number;
  readonly totalSeconds: number;
  readonly byOp: Timing['byOp'];
}

const ADVICE: Readonly<Record<Category, string>> = {
  weights: 'a smaller model.init',
  adapter: 'a lower adapter.rank, fewer adapter.targets or fewer adapter.layers',
  optimizer: 'a lower adapter.rank, fewer adapter.targets or fewer adapter.layers',
  activations: 'train.offloadActivations: always, a lower train.tokensPerBatch or data.maxTokens',
  workspace: 'a lower train.tokensPerBatch or data.maxTokens',
  kv: 'a shorter context or fewer sequences',
};

export interface PlanRequest {
  /** Recipe file. */
  readonly path: string;
  readonly set?: readonly string[];
  /** Run folder, for the disk that activations would go to; default as for training. */
  readonly out?: string;
  /** False leaves out the timing (times are then NaN). */
  readonly measure?: boolean;
  /**
   * Shape of the base whose weights are not at hand: a preset's name, or a config.json. Without it a base that is not
   * there is planned by its folder's name (gpt-oss-20b), one without weights by its config.json.
   */
  readonly shape?: string;
  /** Memory the run may take; default: what the system has available. */
  readonly availableBytes?: number;
}

interface PlannedSteps {
  readonly steps: number;
  /** Steps in which samples are met for the first time: then the reference is computed. */
  readonly firstSteps: number;
  /** Batches of a typical step: they give the time. */
  readonly typical: readonly PackedBatch[];
  /** The largest batch of the first steps: it gives the memory. */
  readonly largest: readonly PackedBatch[];
  readonly evaluations: number;
  readonly heldOut: HeldOutPlan;
}
/** Of one evaluation: inputs in all, its middle batch, its largest one. */
interface HeldOutPlan {
  readonly tokens: number;
  readonly middle: readonly PackedBatch[];
  readonly largest: readonly PackedBatch[];
}
/** Batches of one evaluation, as training packs them; none where a run is not evaluated. */
async function heldOutPlan(recipe: Recipe, context: LoadContext): Promise<HeldOutPlan> {
  const files = heldOutFiles(recipe.data);
  if (recipe.train.evalEvery === undefined || files.length === 0) return { tokens: 0, middle: [], largest: [] };
  const per = objectiveOf(recipe).examplesPerSample;
  const { examples } = await loadDataset(files, context);
  const lengths = examples.inputLengths(per);
  const most = recipe.train.tokensPerBatch ?? recipe.data.maxTokens;
  const bins = packLengths(lengths, most, recipe.data.packing);
  const sizes = bins.map((bin) => bin.reduce((n, i) => n + (lengths[i] ?? 0), 0));
  const batch = (at: number): PackedBatch[] => (bins[at] ? [packBatch(samplesAt(examples, bins[at], per))] : []);
  return {
    tokens: sizes.reduce((a, b) => a + b, 0),
    middle: batch(Math.floor(bins.length / 2)),
    largest: batch(sizes.indexOf(sizes.reduce((a, b) => Math.max(a, b), 0))),
  };
}
async function planned(recipe: Recipe, file: string, signal?: AbortSignal): Promise<PlannedSteps> {
  const t = recipe.train;
  const objective = objectiveOf(recipe);
  const config =
    t.method === 'pretrain' ? parseConfig(recipe.model.init, 'model.init') : readConfig(recipe.model.base ?? '');
  const tokenizer = lazyTokenizer(recipe, config.vocab_size);
  const context: LoadContext = {
    tokenizer: tokenizer.get,
    vocabSize: config.vocab_size,
    ...rowSettings(recipe.data),
    positions: config.max_position_embeddings,
    examplesPerSample: objective.examplesPerSample,
    ...(signal ? { signal } : {}),
  };
  const data = await loadDataset(trainFiles(recipe.data), context);
  const heldOut = await heldOutPlan(recipe, context);
  tokenizer.close();
  const steps = planSteps(data.examples.inputLengths(objective.examplesPerSample), {
    seed: t.seed,
    epochs: t.epochs,
    steps: t.steps,
    tokensPerStep: t.tokensPerStep,
    rowsPerStep: t.rowsPerStep,
  });
  if (steps.steps === 0)
    throw new ConfigError('no_steps', `${file}: the data gives no training step; check data.train`);
  let firstSteps = steps.steps;
  if (objective.compares)
    for (firstSteps = 0; firstSteps < steps.steps; firstSteps++) if (steps.rows(firstSteps).epoch > 0) break;
  const evaluations = heldOut.tokens > 0 ? Math.ceil(steps.steps / (t.evalEvery ?? Infinity)) : 0;
  const batches = plannedBatches(recipe, data.examples, steps, signal);
  return { steps: steps.steps, firstSteps, ...batches, evaluations, heldOut };
}

/** Seconds of a step on this machine's CPU: its distinct op calls timed, and what TypeScript needs between them. */
function timeStep(
  recipe: Recipe,
  run: string,
  typical: readonly PackedBatch[],
  use: MemoryUse,
  part: Parameters<typeof dryStep>[4],
  signal?: AbortSignal,
): Timing {
  // A dry step is TypeScript alone; set-up alone is taken off.
  const clock = (batches: readonly PackedBatch[]): { readonly ms: number; readonly calls: DryRunReport['ops'] } => {
    signal?.throwIfAborted();
    const from = performance.now();
    const { step } = dryStep(recipe, run, batches, use, part);
    return { ms: performance.now() - from, calls: step };
  };
  const idle = clock([]),
    step = clock(typical);
  const timed = timeCalls(step.calls, signal ? { signal } : {});
  return { seconds: timed.seconds + Math.max(0, step.ms - idle.ms) / 1000, byOp: timed.byOp };
}

interface Times extends Pick<TrainPlan, 'stepSeconds' | 'referenceSeconds' | 'evalSeconds' | 'totalSeconds'> {
  readonly byOp: Timing['byOp'];
}
/** Of all evaluations, by their middle batch. */
function evalTime(
  recipe: Recipe,
  run: string,
  { evaluations, heldOut }: PlannedSteps,
  use: MemoryUse,
  signal?: AbortSignal,
): number {
  if (evaluations === 0) return 0;
  const { seconds } = timeStep(recipe, run, heldOut.middle, use, 'evaluation', signal);
  const tokens = heldOut.middle.reduce((n, b) => n + b.batch.tokens.length, 0);
  return evaluations * seconds * (heldOut.tokens / tokens);
}

/** Of all steps, those of the first epoch with what they ask of the reference. */
function timesOf(recipe: Recipe, run: string, found: PlannedSteps, use: MemoryUse, signal?: AbortSignal): Times {
  const { steps, firstSteps, typical } = found;
  const step = timeStep(recipe, run, typical, use, 'known', signal);
  const evalSeconds = evalTime(recipe, run, found, use, signal);
  const withEval = (t: Omit<Times, 'evalSeconds'>): Times => ({
    ...t,
    evalSeconds,
    totalSeconds: t.totalSeconds + evalSeconds,
  });
  if (!objectiveOf(recipe).compares) {
    const { seconds: stepSeconds, byOp } = step;
    return withEval({ stepSeconds, referenceSeconds: 0, totalSeconds: steps * stepSeconds, byOp });
  }
  const reference = timeStep(recipe, run, typical, use, 'reference', signal);
  const referenceSeconds = firstSteps * reference.seconds;
  const totalSeconds = steps * step.seconds + referenceSeconds;
  return withEval(
    recipe.train.precomputeReference
      ? { stepSeconds: step.seconds, referenceSeconds, totalSeconds, byOp: step.byOp }
      : {
          stepSeconds: totalSeconds / steps,
          referenceSeconds,
          totalSeconds,
          byOp: together(step.byOp, reference.byOp),
        },
  );
}
/** Both, by op. */
function together(a: Timing['byOp'], b: Timing['byOp']): Timing['byOp'] {
  const sum: Record<string, Timing['byOp'][string]> = { ...a };
  for (const [op, { calls, seconds, flops }] of Object.entries(b)) {
    const { calls: c = 0, seconds: s = 0, flops: f = 0 } = sum[op] ?? {};
    sum[op] = { calls: c + calls, seconds: s + seconds, flops: f + flops };
  }
  return sum;
}

/** Of a recipe whose device is known. */
function placeOfRecipe({ device }: Recipe): Place {
  const named = parseDevice(device);
  return named === 'auto' ? HOST : named.place;
}
const backendOfRecipe = (recipe: Recipe): Backend => backendOf(placeOfRecipe(recipe));

type Memory = Omit<
  TrainPlan,
  | 'notes'
  | 'steps'
  | 'tokensPerStep'
  | 'computesOn'
  | 'layout'
  | 'moments'
  | 'trainedParameters'
  | 'stepSeconds'
  | 'tokensPerSecond'
  | 'referenceSeconds'
  | 'evaluations'
  | 'evalSeconds'
  | 'totalSeconds'
  | 'byOp'
>;
/** What the dry step took, against what there is. */
function memoryOf(
  recipe: Recipe,
  run: string,
  { report, layout }: DryStep,
  moments: TrainPlan['moments'],
  availableBytes: number,
): Memory {
  const { ownMemory } = backendOfRecipe(recipe);
  const device = ownMemory
    ? {
        peakBytes: report.device.peak,
        totalPeakBytes: report.device.totalPeak,
        heldPeakBytes: report.device.heldPeak,
        limitBytes: memoryLimitOf(recipe) || Number.NaN,
      }
    : null;
  const diskFreeBytes = freeDiskBytes(run);
  const deviceFits = !device || !(device.heldPeakBytes > device.limitBytes);
  const diskFits = report.offloadedPeak <= diskFreeBytes;
  const fits = !(report.totalPeak > availableBytes) && diskFits && deviceFits;
  const [worst] = (Object.entries(deviceFits ? report.peak : report.device.peak) as [Category, number][])
    .filter(([c]) => deviceFits || c !== 'weights')
    .sort((a, b) => b[1] - a[1]);
  // Named, never taken: it is another optimizer.
  const saved = moments.bytes - moments.bytesIn8Bits;
  const shorter = (place: Place): string =>
    moments.optimizer === 'adamw_8bit' || layout.moments !== place
      ? ''
      : `; train.optimizer.name: adamw_8bit takes ${formatBytes(saved)} less for its moments, with other results`;
  const advice = (): string => {
    if (fits || !worst) return '';
    if (!diskFits)
      return (
        `the offloaded activations need more disk than ${run} has: free some, try another disk ` +
        'with --out, a lower train.tokensPerBatch or data.maxTokens'
      );
    if (!deviceFits)
      return (
        `the device may take ${formatBytes(device?.limitBytes ?? 0)}, ` +
        `${formatBytes(device?.heldPeakBytes ?? 0)} are needed: try train.offloadOptimizer: always, ` +
        `train.offloadActivations: always, or ${ADVICE[worst[0]]}${shorter(placeOfRecipe(recipe))}`
      );
    return `${worst[0]} is the largest part: try ${ADVICE[worst[0]]}${shorter(HOST)}`;
  };
  return {
    peakBytes: report.peak,
    totalPeakBytes: report.totalPeak,
    runtimeBytes: anonymousBytes(),
    mappedBytes: report.mappedBytes,
    rereadBytes: report.totalPeak + report.mappedBytes > availableBytes ? report.mappedBytes : 0,
    availableBytes,
    device,
    offloadedBytes: report.offloadedPeak,
    diskFreeBytes,
    fits,
    advice: advice(),
  };
}

/** @throws {TemperError} whatever is wrong with recipe, data or base · the signal's reason */
export async function planRecipe(options: PlanRequest, signal?: AbortSignal): Promise<TrainPlan> {
  const set = options.set ?? [];
  const { recipe } = loadRecipe(options.path, { set, checkPaths: false });
  using shape = recipe.model.base === undefined ? null : standIn(recipe.model.base, options.shape);
  if (!shape) return planWith(options, set, [], signal);
  const { base = '', tokenizer } = recipe.model;
  const own = tokenizer ?? besideModel(base);
  const nano = tokenizer === undefined && !existsSync(join(own, 'tokenizer.json'));
  const edits = [
    `model.base=${JSON.stringify(shape.dir)}`,
    `model.tokenizer=${JSON.stringify(nano ? embedded('models/nano') : own)}`,
  ];
  const notes = [
    `the weights of ${base} are not read: planned for the shape of ${shape.from}`,
    ...(nano ? ["tokens are counted with the tokenizer of models/nano, which makes more of them than gpt-oss's"] : []),
  ];
  return await planWith(options, [...set, ...edits], notes, signal);
}

async function planWith(
  options: PlanRequest,
  set: readonly string[],
  notes: readonly string[],
  signal?: AbortSignal,
): Promise<TrainPlan> {
  const { recipe: written, file, name } = loadRecipe(options.path, { set });
  const run = options.out ?? defaultRunFolder(name);
  const found = await planned(written, file, signal);
  const { steps, typical, largest, evaluations, heldOut } = found;
  const available = options.availableBytes ?? availableBytes();
  const { recipe, computesOn, use, dry } = dryStepOnDevice(written, run, largest, heldOut.largest, available);
  const { trainedParameters, layout } = dry;
  const { name: optimizer } = recipe.train.optimizer;
  const moments = {
    optimizer,
    bytes: momentBytes(optimizer, trainedParameters),
    bytesIn8Bits: momentBytes('adamw_8bit', trainedParameters),
  };
  const memory = memoryOf(recipe, run, dry, moments, available);
  const tokensPerStep = typical.reduce((n, b) => n + b.batch.tokens.length, 0);
  const timed = options.measure !== false && backendOfRecipe(recipe).timedByPlan;
  const times: Times = timed
    ? timesOf(recipe, run, found, use, signal)
    : {
        stepSeconds: Number.NaN,
        referenceSeconds: Number.NaN,
        evalSeconds: evaluations === 0 ? 0 : Number.NaN,
        totalSeconds: Number.NaN,
        byOp: {},
      };
  return {
    notes,
    steps,
    evaluations,
    tokensPerStep,
    trainedParameters,
    computesOn,
    layout,
    moments,
    ...memory,
    ...times,
    tokensPerSecond: tokensPerStep / times.stepSeconds,
  };
}

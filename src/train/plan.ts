// What a recipe will cost, before a weight is loaded: peak memory by category from a dry run of the very code that
// trains, and the time of a step from timing each of its distinct op calls once on this machine.
import { ConfigError } from '../base/errors.js';
import { anonymousBytes, availableBytes } from '../base/machine.js';
import { formatBytes, parseBytes } from '../base/units.js';
import { loadDataset } from '../data/load.js';
import { planSteps } from '../data/order.js';
import { fillBins, inputLength, packBatch } from '../data/pack.js';
import { parseConfig, readConfig } from '../model/config.js';
import { type DryRunReport, dryRun } from '../native/dry-run.js';
import { type Timing, timeCalls } from '../native/op-timing.js';
import { ops } from '../native/ops.js';
import { type Category, Scope } from '../native/tensor.js';
import { loadRecipe } from '../recipe/load.js';
import type { Recipe } from '../recipe/schema.js';
import { lazyTokenizer } from '../recipe/tokenizer.js';
import { createLearner } from './learners.js';
import { defaultRunFolder, freeDiskBytes } from './session.js';

export interface TrainPlan {
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
  /**
   * On a GPU: its memory at the peak of each category and of their sum, and the most it may take (recipe's memoryLimit;
   * NaN: none is set). Null on the CPU.
   */
  readonly device: {
    readonly peakBytes: Readonly<Record<Category, number>>;
    readonly totalPeakBytes: number;
    readonly limitBytes: number;
  } | null;
  /** Activations offloaded to the run folder's disk, and what is free there. */
  readonly offloadedBytes: number;
  readonly diskFreeBytes: number;
  readonly fits: boolean;
  /** What to change first, when it does not fit. */
  readonly advice: string;
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
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

/** Allocations and op calls of one step over the given batches, as trainLoop makes them. */
function dryStep(
  recipe: Recipe,
  run: string,
  batches: readonly ReturnType<typeof packBatch>[],
): { report: DryRunReport; step: DryRunReport['ops']; trainedParameters: number } {
  let trainedParameters = 0;
  const { report } = dryRun(() => {
    const learner = createLearner(recipe, run);
    trainedParameters = learner.trainedParameters;
    using scope = new Scope('optimizer', learner.momentsPlace);
    using small = new Scope('workspace', learner.params.place);
    const m = scope.zeros('f32', learner.params.shape),
      v = scope.zeros('f32', learner.params.shape),
      squares = small.empty('f32', [1]);
    // Everything called so far is set-up; a mark among the calls tells where the step begins.
    ops.fill(squares, 0);
    ops.fill(learner.grads, 0);
    for (const { batch, targets } of batches) learner.lossAndGradients(batch, targets, 1);
    ops.sum_squares(squares, learner.grads);
    ops.adamw(learner.params, m, v, learner.grads, 1e-3, 0.9, 0.999, 1e-8, 0, 1, 1);
    learner.refresh();
    learner.close();
  });
  const mark = report.ops.findIndex(
    (c) =>
      c.op === 'fill' && typeof c.args[0] === 'object' && c.args[0]?.shape.length === 1 && c.args[0].shape[0] === 1,
  );
  return { report, step: report.ops.slice(mark + 1), trainedParameters };
}

export interface PlanRequest {
  /** Recipe file. */
  readonly path: string;
  readonly set?: readonly string[];
  /** Run folder, for the disk that activations would go to; default as for training. */
  readonly out?: string;
  /** False leaves out the timing (times are then NaN). */
  readonly measure?: boolean;
  /** Memory the run may take; default: what the system has available. */
  readonly availableBytes?: number;
}

/** @throws {TemperError} whatever is wrong with recipe, data or base · the signal's reason */
export async function planRecipe(options: PlanRequest, signal?: AbortSignal): Promise<TrainPlan> {
  const { recipe, file, name } = loadRecipe(options.path, options.set ? { set: options.set } : {});
  const t = recipe.train;
  const config =
    t.method === 'sft' ? readConfig(recipe.model.base ?? '') : parseConfig(recipe.model.init, 'model.init');
  const tokenizer = lazyTokenizer(recipe, config.vocab_size);
  const data = await loadDataset(recipe.data.train, {
    tokenizer: tokenizer.get,
    vocabSize: config.vocab_size,
    maxTokens: recipe.data.maxTokens,
    loss: recipe.data.loss,
    ...(signal ? { signal } : {}),
  });
  tokenizer.close();
  const steps = planSteps(data.examples.map(inputLength), {
    seed: t.seed,
    epochs: t.epochs,
    steps: t.steps,
    tokensPerStep: t.tokensPerStep,
    rowsPerStep: t.rowsPerStep,
  });
  if (steps.steps === 0)
    throw new ConfigError('no_steps', `${file}: the data gives no training step; check data.train`);
  const batchesOf = (step: number): ReturnType<typeof packBatch>[] => {
    const rows = steps.rows(step).indices.flatMap((i) => data.examples[i] ?? []);
    return fillBins(rows, t.tokensPerBatch ?? recipe.data.maxTokens, recipe.data.packing).map((bin) => packBatch(bin));
  };
  // A typical step gives the time; the largest batch of the first epoch (up to 1,000 steps of it) the memory.
  const typical = batchesOf(Math.floor(Math.min(steps.steps, 1000) / 2));
  let largest = typical[0];
  for (let s = 0; s < Math.min(steps.steps, 1000); s++)
    for (const b of batchesOf(s)) if (b.batch.tokens.length > (largest?.batch.tokens.length ?? 0)) largest = b;
  const run = options.out ?? defaultRunFolder(name);
  const memory = dryStep(recipe, run, largest ? [largest] : []);
  const runtimeBytes = anonymousBytes();
  const available = options.availableBytes ?? availableBytes();
  const needed = memory.report.totalPeak;
  const disk = memory.report.offloadedPeak,
    diskFree = freeDiskBytes(run);
  const onDevice = recipe.device.startsWith('cuda');
  const device = onDevice
    ? {
        peakBytes: memory.report.device.peak,
        totalPeakBytes: memory.report.device.totalPeak,
        limitBytes: recipe.memoryLimit === undefined ? Number.NaN : parseBytes(recipe.memoryLimit),
      }
    : null;
  const deviceFits = !device || !(device.totalPeakBytes > device.limitBytes);
  const fits = !(needed > available) && disk <= diskFree && deviceFits;
  const worst = (Object.entries(deviceFits ? memory.report.peak : memory.report.device.peak) as [Category, number][])
    .filter(([c]) => deviceFits || c !== 'weights')
    .sort((a, b) => b[1] - a[1])[0];
  let timing: Timing = { seconds: Number.NaN, byOp: {} };
  if (options.measure !== false && !onDevice) {
    // the CPU's op timings say nothing about a GPU
    // What a dry step takes is what TypeScript itself needs between the ops; set-up alone is taken off.
    const clock = (batches: typeof typical): { ms: number; calls: DryRunReport['ops'] } => {
      const from = performance.now();
      const { step } = dryStep(recipe, run, batches);
      return { ms: performance.now() - from, calls: step };
    };
    const idle = clock([]),
      step = clock(typical);
    const ops = timeCalls(step.calls, signal ? { signal } : {});
    timing = { seconds: ops.seconds + Math.max(0, step.ms - idle.ms) / 1000, byOp: ops.byOp };
  }
  const tokensPerStep = typical.reduce((n, b) => n + b.batch.tokens.length, 0);
  return {
    steps: steps.steps,
    tokensPerStep,
    trainedParameters: memory.trainedParameters,
    peakBytes: memory.report.peak,
    totalPeakBytes: needed,
    runtimeBytes,
    mappedBytes: memory.report.mappedBytes,
    rereadBytes: needed + memory.report.mappedBytes > available ? memory.report.mappedBytes : 0,
    availableBytes: available,
    device,
    offloadedBytes: disk,
    diskFreeBytes: diskFree,
    fits,
    advice:
      fits || !worst
        ? ''
        : disk > diskFree
          ? `the offloaded activations need more disk than ${run} has: free some, try another disk ` +
            'with --out, a lower train.tokensPerBatch or data.maxTokens'
          : !deviceFits && worst
            ? `the device may take ${formatBytes(device?.limitBytes ?? 0)}, ` +
              `${formatBytes(device?.totalPeakBytes ?? 0)} are needed: ` +
              'try train.offloadOptimizer: always, train.offloadActivations: always, or ' +
              `${ADVICE[worst[0]]}`
            : `${worst[0]} is the largest part: try ${ADVICE[worst[0]]}`,
    stepSeconds: timing.seconds,
    tokensPerSecond: tokensPerStep / timing.seconds,
    totalSeconds: timing.seconds * steps.steps,
    byOp: timing.byOp,
  };
}

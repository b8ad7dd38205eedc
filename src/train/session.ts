// One run from recipe to result, on the thread it is called on (worker.ts puts it off the main one). Start reading at
// `runTraining`.
import { rmSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { sha256, sha256File } from '../base/digest.js';
import { IntegrityError, NativeError, TemperError } from '../base/errors.js';
import { writeFileAtomic, writeFolderAtomic } from '../base/files.js';
import { availableBytes, versions } from '../base/machine.js';
import { type Dataset, type LoadContext, loadDataset, rowSettings } from '../data/load.js';
import { noticesOf } from '../data/notes.js';
import { planSteps } from '../data/order.js';
import { overlapOf, overlapText } from '../data/overlap.js';
import type { PackedBatch } from '../data/pack.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { backendOf, HOST } from '../native/backends.js';
import { type Device, describeDevice, kernelsOf, nativeFiles, peakBytes } from '../native/device.js';
import { measureDeviceLimits } from '../native/device-limits.js';
import { PRECISION } from '../native/ops.js';
import { getThreads, resetPeaks, Scope, setThreads } from '../native/tensor.js';
import { objectiveOf } from '../objectives/objective.js';
import { heldOutFiles, trainFiles } from '../recipe/data-files.js';
import { loadRecipe, recipeDigest, writeResolved } from '../recipe/load.js';
import type { Recipe } from '../recipe/schema.js';
import { lazyTokenizer, tokenizerFile } from '../recipe/tokenizer.js';
import { checkAdapterBase } from '../runs/adapter-base.js';
import { codeDigest } from '../runs/code-digest.js';
import { lockRun } from '../runs/lock.js';
import { readMetrics, type StepMetrics, truncateMetrics } from '../runs/metrics.js';
import { writeReport } from '../runs/report.js';
import { checkSameInputs, checkSameRecipe, extensionOf, runToResume } from '../runs/resume.js';
import {
  asDiskError,
  checkpointFolder,
  checkpointSteps,
  defaultRunFolder,
  deviceOf,
  openRunFolder,
  type RunDigests,
  type RunRecord,
  requireRunPlace,
  writeRun,
} from '../runs/run-folder.js';
import { Checkpoints } from './checkpoints.js';
import { dryStep, layoutOf, plannedBatches, settle } from './dry-step.js';
import { bestOf } from './held-out.js';
import { checkFrom, createLearner, type TrainedLearner } from './learners.js';
import { createMoments } from './moments.js';
import { requireOffloadRoom } from './offload.js';
import { referencePass } from './reference-pass.js';
import { runSteps, type Steps, type TrainHooks, tokensPerBatch } from './run-steps.js';
import { learningRate } from './schedule.js';
import { StepWork } from './work.js';

export interface TrainRequest {
  readonly recipe: string;
  readonly set?: readonly string[];
  /** Run folder; default runs/NAME of the recipe. */
  readonly out?: string;
  readonly resume?: boolean;
  /** Threads of the CPU pool; changes no bit of the result. Default: what the machine has. */
  readonly threads?: number;
  /** Commits of the recipe's hf:// references, which are in the cache. */
  readonly pins?: Readonly<Record<string, string>>;
}
export interface TrainResult {
  readonly run: string;
  readonly status: 'done' | 'stopped';
  readonly step: number;
  readonly steps: number;
  /** Loss of the first step and mean of the last tenth, nats per weighted token. */
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** The PEFT adapter or the checkpoint that was trained; null when stopped before the end. */
  readonly output: string | null;
  /**
   * Of its evaluations (train.evalEvery) the one with the lowest held-out loss, and the checkpoint that is kept of it.
   */
  readonly best:
    | (NonNullable<RunRecord['best']> & {
        readonly checkpoint: string;
      })
    | null;
  /** The step after which train.patience ended it. */
  readonly endedEarly: number | null;
  readonly report: string;
  readonly seconds: number;
  readonly tokens: number;
  readonly peakBytes: number;
  readonly device: Device;
  readonly digests: RunDigests;
}
export type { ReferenceProgress, TrainHooks, TrainProgress } from './run-steps.js';

const meanOfLast = (losses: readonly number[]): number => {
  const tail = losses.slice(-Math.max(1, Math.round(losses.length / 10)));
  return tail.length ? tail.reduce((a, b) => a + b, 0) / tail.length : Number.NaN;
};

/** Tokens of the largest batch there can be. */
function largestBatch(lengths: Iterable<number>, tokensPerBatch: number, packing: boolean): number {
  let [longest, total] = [0, 0];
  for (const n of lengths) {
    longest = Math.max(longest, n);
    total += n;
  }
  return packing ? Math.max(longest, Math.min(tokensPerBatch, total)) : longest;
}

/** What a run is made of, all of it checked. */
interface Prepared extends Steps {
  readonly digests: RunDigests;
  /** Tokens of the largest batch there can be. */
  readonly largest: number;
}

async function digestsOf(recipe: Recipe, data: Dataset, signal?: AbortSignal): Promise<RunDigests> {
  const options = signal ? { signal } : {};
  const tokenizer = tokenizerFile(recipe);
  const { base, init } = recipe.model;
  return {
    recipe: recipeDigest(recipe),
    data: sha256(data.files.map((f) => f.sha256).join('\n')),
    base: base ? await digestCheckpoint(base, options) : sha256(JSON.stringify(init)),
    tokenizer: tokenizer ? await sha256File(tokenizer, options) : '',
  };
}

/**
 * Held-out rows. What is wrong with them is an error where the run is evaluated on them, and otherwise a notice, as are
 * rows that are trained on too.
 */
async function loadHeldOut(
  { data: rows, train: t }: Recipe,
  data: Dataset,
  context: LoadContext,
  { onNotice }: TrainHooks,
): Promise<Dataset | null> {
  const files = heldOutFiles(rows);
  if (files.length === 0) return null;
  try {
    const heldOut = await loadDataset(files, context);
    const found = overlapOf(data.examples, heldOut.examples);
    if (found) onNotice?.(overlapText(found));
    return t.evalEvery === undefined ? null : heldOut;
  } catch (e) {
    if (t.evalEvery !== undefined || !(e instanceof TemperError)) throw e;
    onNotice?.(`data.eval cannot be used as it is, temper eval would end with: ${e.message}`);
    return null;
  }
}

/** Reads the data and plans the steps. Nothing is written yet, and an abort rejects. */
async function prepare(recipe: Recipe, learner: TrainedLearner, hooks: TrainHooks): Promise<Prepared> {
  const { signal } = hooks;
  const { vocab_size: vocabSize, max_position_embeddings: positions } = learner.config;
  const { examplesPerSample } = objectiveOf(recipe);
  const { from } = recipe.adapter;
  if (from && recipe.model.base) await checkAdapterBase(from, recipe.model.base, signal);
  const tokenizer = lazyTokenizer(recipe, vocabSize);
  const context: LoadContext = {
    tokenizer: tokenizer.get,
    vocabSize,
    ...rowSettings(recipe.data),
    positions,
    examplesPerSample,
    ...(signal ? { signal } : {}),
  };
  const data = await loadDataset(trainFiles(recipe.data), context);
  const heldOut = await loadHeldOut(recipe, data, context, hooks);
  tokenizer.close();
  const t = recipe.train;
  const lengths = data.examples.inputLengths(examplesPerSample);
  const plan = planSteps(lengths, {
    seed: t.seed,
    epochs: t.epochs,
    steps: t.steps,
    tokensPerStep: t.tokensPerStep,
    rowsPerStep: t.rowsPerStep,
  });
  const digests = await digestsOf(recipe, data, signal);
  return { data, plan, heldOut, digests, largest: largestBatch(lengths, tokensPerBatch(recipe), recipe.data.packing) };
}

/** @param code digest of what computes it */
function recordOf(recipe: Recipe, name: string, learner: TrainedLearner, prepared: Prepared, code: string): RunRecord {
  const t = recipe.train;
  return {
    version: 1,
    name,
    about: recipe.about,
    status: 'running',
    method: t.method,
    seed: t.seed,
    steps: prepared.plan.steps,
    digests: prepared.digests,
    data: prepared.data.files.map((f) => ({
      file: basename(f.path),
      format: f.format,
      sha256: f.sha256,
      rows: f.rows,
      tokens: f.tokens,
      trainedTokens: f.trainedTokens,
      untrainedRows: f.untrainedRows,
      ...(f.dropped ? { dropped: f.dropped } : {}),
      ...(f.truncated ? { truncated: f.truncated } : {}),
    })),
    versions: { ...versions(), code },
    machine: { isa: kernelsOf(learner.device.place), threads: getThreads(), device: learner.device },
    trainedParameters: learner.trainedParameters,
    memory: layoutOf(learner),
    ...(learner.spec?.mergeAware ? { mergeAware: learner.spec.mergeAware } : {}),
    output: t.method === 'pretrain' ? 'model' : 'adapter',
  };
}

/**
 * The learner of a run that goes on: `auto` is what the run began on, as another backend has other bits.
 * @throws {IntegrityError} run_changed: that is no longer there
 */
function resumedLearner(recipe: Recipe, run: string, before: RunRecord): TrainedLearner {
  if (recipe.device !== 'auto') return createLearner(recipe, run);
  const began = deviceOf(before);
  try {
    return createLearner(recipe, run, began.name);
  } catch (e) {
    if (!(e instanceof NativeError) || began.place === HOST) throw e;
    throw new IntegrityError(
      'run_changed',
      `${run}: the run began on ${describeDevice(began)}, which cannot be used now: ${e.message}; its bits are that ` +
        "backend's alone, so go on there, or start a new run with --out",
      { run, what: 'device', wanted: began.place },
      { cause: e },
    );
  }
}

/** @throws {ConfigError | DataError | CheckpointError | TrainError | IntegrityError} each in one line */
export async function runTraining(request: TrainRequest, hooks: TrainHooks = {}): Promise<TrainResult> {
  const { set = [], pins } = request;
  const loaded = loadRecipe(request.recipe, { set, pins }),
    { name, adapterGiven } = loaded;
  let { recipe } = loaded;
  if (request.threads !== undefined) setThreads(request.threads);
  const run = request.out ? resolve(request.out) : defaultRunFolder(name);
  using _lock = lockRun(run);
  requireRunPlace(run, request.resume === true);
  const before = request.resume ? runToResume(run) : null;
  const wentBy = before && checkSameRecipe(run, before, recipe);
  let learner = before ? resumedLearner(recipe, run, before) : createLearner(recipe, run);
  try {
    checkFrom(recipe, adapterGiven, learner);
    let prepared = await prepare(recipe, learner, hooks);
    const done = checkpointSteps(run).at(-1) ?? 0;
    if (wentBy && before.status === 'done' && prepared.plan.steps < done) {
      hooks.onNotice?.(
        `the run is done with ${done} steps, more than the ${prepared.plan.steps} that are asked ` +
          'for: nothing is left to ' +
          'train',
      );
      const { steps, epochs } = wentBy.train;
      recipe = { ...recipe, train: { ...recipe.train, steps, epochs } };
      prepared = await prepare(recipe, learner, hooks.signal ? { signal: hooks.signal } : {});
    }
    for (const file of prepared.data.files)
      for (const line of noticesOf(file)) hooks.onNotice?.(`${basename(file.path)}: ${line}`);
    const { largest, typical } = plannedBatches(recipe, prepared.data.examples, prepared.plan, hooks.signal);
    const there = before ? { ...recipe, device: learner.device.name } : recipe;
    const { device, use } = settle(there, run, largest, learner.device, availableBytes());
    if (device !== learner.device) {
      learner.close();
      learner = { ...createLearner(recipe, run, device.name), device };
    }
    learner.memory.settle(use);
    requireOffloadRoom(learner, run, prepared.largest);
    const work = workOnDevice({ ...recipe, device: learner.device.name }, run, learner, typical);
    if (work) prepared = { ...prepared, work };
    // Everything that can be wrong with the input was found by now: only then does the folder appear.
    openRunFolder(run, request.resume === true);
    const code = await codeDigest(nativeFiles(learner.device.place));
    let record: RunRecord = { ...recordOf(recipe, name, learner, prepared, code), ...(pins ? { hub: pins } : {}) };
    if (before) record = goesOn(recipe, run, before, record, learner.device, hooks);
    return await train(recipe, run, record, learner, prepared, hooks, request.resume === true);
  } finally {
    learner.close();
  }
}

/** What steps on a GPU are held to; undefined on the host, whose limits take seconds to measure. */
function workOnDevice(
  recipe: Recipe,
  run: string,
  { config, memory, device }: TrainedLearner,
  typical: readonly PackedBatch[],
): StepWork | undefined {
  const [first, ...others] = typical;
  if (!backendOf(device.place).library || !first) return undefined;
  const limits = measureDeviceLimits(device.place, PRECISION[recipe.train.precision]);
  const dry = (batches: readonly PackedBatch[]) => dryStep(recipe, run, batches, memory.use, 'known').step;
  return new StepWork(config, dry, [first, ...others], limits);
}

/** The record of a run that goes on. @throws {IntegrityError} it is not the same run */
function goesOn(
  { train }: Recipe,
  run: string,
  before: RunRecord,
  now: RunRecord,
  device: Device,
  hooks: TrainHooks,
): RunRecord {
  checkSameInputs(run, before, now, device);
  const done = checkpointSteps(run).at(-1) ?? 0;
  const { earlier, notice } = extensionOf(run, before, now, done, (step, steps) => learningRate(step, steps, train));
  if (notice) hooks.onNotice?.(notice);
  // What a shorter run came to is not what this one will come to; its last checkpoint holds it.
  if (done < now.steps) rmSync(join(run, now.output), { recursive: true, force: true });
  return earlier.length > 0 ? { ...now, earlier } : now;
}

async function train(
  recipe: Recipe,
  run: string,
  begun: RunRecord,
  learner: TrainedLearner,
  prepared: Prepared,
  hooks: TrainHooks,
  resume: boolean,
): Promise<TrainResult> {
  let record = begun;
  const onRanOut = (step: number): void => {
    record = { ...record, memory: { ...layoutOf(learner), ranOutAt: step } };
    writeRun(run, record);
    hooks.onNotice?.(
      `step ${step}: memory ran out and the step was begun anew; from here on nothing is kept from forward to ` +
        'backward, which takes longer and changes no bit.',
    );
  };
  using scope = new Scope('optimizer', learner.memory.momentsPlace);
  const moments = createMoments(recipe.train.optimizer.name, scope, learner.params);
  const checkpoints = new Checkpoints(run, learner, moments, prepared.digests, recipe.train.keepCheckpoints);
  if (resume) await checkpoints.resume(record.earlier);
  truncateMetrics(run, checkpoints.done);
  const began = performance.now();
  try {
    // The record first: it says which recipe is the run's, should the other not be there any more.
    writeRun(run, record);
    writeFileAtomic(join(run, 'recipe.yaml'), writeResolved(recipe, run));
    resetPeaks();
    const references = await referencePass(recipe, run, prepared.digests, learner, prepared, hooks);
    const steps = { ...prepared, onRanOut };
    const endedEarly = await runSteps(recipe, run, learner, steps, references, checkpoints, hooks);
    await checkpoints.save();
    return await finish(recipe, run, record, learner, checkpoints.done, endedEarly, began);
  } catch (e) {
    const error = await checkpoints.keptAfter(asDiskError(e, run, basename(run)), tokensPerBatch(recipe));
    try {
      const failure = error instanceof Error ? error.message : String(error);
      writeRun(run, { ...record, status: 'failed', failure });
    } catch {
      /* the first error is the one that matters */
    }
    throw error;
  }
}

/** The best evaluation of which there is a checkpoint. */
function bestCheckpoint(run: string, metrics: readonly StepMetrics[]): RunRecord['best'] | null {
  const { best } = bestOf(metrics);
  if (!best || best.evalLoss === undefined || !checkpointSteps(run).includes(best.step)) return null;
  const { step, evalLoss, evalMatch, evalAccuracy } = best;
  return {
    step,
    evalLoss,
    ...(evalMatch === undefined ? {} : { evalMatch }),
    ...(evalAccuracy === undefined ? {} : { evalAccuracy }),
  };
}

/** Writes what was trained, when it is, and the report. */
async function finish(
  recipe: Recipe,
  run: string,
  record: RunRecord,
  learner: TrainedLearner,
  done: number,
  endedEarly: number | null,
  began: number,
): Promise<TrainResult> {
  const finished = done >= record.steps || endedEarly !== null;
  const written = recipe.train.method === 'pretrain' || recipe.export.includes('peft');
  const output = written ? join(run, record.output) : join(checkpointFolder(run, done), record.output);
  if (finished && written) await writeFolderAtomic(output, (folder) => learner.save(folder));
  const status = finished ? 'done' : 'stopped';
  const metrics = readMetrics(run);
  const best = bestCheckpoint(run, metrics);
  const ended: RunRecord = {
    ...record,
    status,
    ...(best ? { best } : {}),
    ...(endedEarly === null ? {} : { endedEarly }),
  };
  writeRun(run, ended);
  const report = join(run, 'report.html');
  writeReport(report, ended, metrics);
  return {
    run,
    status,
    step: done,
    steps: record.steps,
    firstLoss: metrics[0]?.loss ?? Number.NaN,
    lastLoss: meanOfLast(metrics.map((m) => m.loss)),
    output: finished ? output : null,
    best: best ? { ...best, checkpoint: checkpointFolder(run, best.step) } : null,
    endedEarly,
    report,
    seconds: (performance.now() - began) / 1000,
    tokens: metrics.reduce((n, m) => n + m.tokens, 0),
    peakBytes: peakBytes(learner.device.place),
    device: learner.device,
    digests: record.digests,
  };
}

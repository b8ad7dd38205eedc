// One run from recipe to result, on the thread it is called on (worker.ts puts it off the main one). Start reading at
// `runTraining`.
import { existsSync, statfsSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { sha256, sha256File } from '../base/digest.js';
import { NativeError, TrainError } from '../base/errors.js';
import { writeFileAtomic, writeFolderAtomic } from '../base/files.js';
import { versions } from '../base/machine.js';
import { loadDataset } from '../data/load.js';
import { planSteps } from '../data/order.js';
import { inputLength } from '../data/pack.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { peakBytes } from '../native/device.js';
import { cpuInfo } from '../native/machine.js';
import { getThreads, resetPeaks, Scope, setThreads } from '../native/tensor.js';
import { loadRecipe, recipeDigest, writeResolved } from '../recipe/load.js';
import type { Recipe } from '../recipe/schema.js';
import { lazyTokenizer, tokenizerFolder } from '../recipe/tokenizer.js';
import { loadState, saveCheckpoint } from '../runs/checkpoint.js';
import { appendMetrics, readMetrics, type StepMetrics, truncateMetrics } from '../runs/metrics.js';
import {
  asDiskError,
  checkpointFolder,
  checkpointSteps,
  checkSameRun,
  openRunFolder,
  type RunDigests,
  type RunRecord,
  readRun,
  removeOldCheckpoints,
  writeRun,
} from '../runs/run-folder.js';
import { createLearner, type TrainedLearner } from './learners.js';
import { trainLoop } from './loop.js';
import { writeReport } from './report.js';

export interface TrainRequest {
  readonly recipe: string;
  readonly set?: readonly string[];
  /** Run folder; default runs/NAME of the recipe. */
  readonly out?: string;
  readonly resume?: boolean;
  /** Threads of the CPU pool; changes no bit of the result. Default: what the machine has. */
  readonly threads?: number;
}
export interface TrainProgress extends StepMetrics {
  readonly steps: number;
  readonly epoch: number;
  readonly etaSeconds: number;
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
  readonly report: string;
  readonly seconds: number;
  readonly tokens: number;
  readonly peakBytes: number;
  readonly digests: RunDigests;
}
export interface TrainHooks {
  readonly onProgress?: (progress: TrainProgress) => void;
  /** Aborting ends the run after the batch in hand, with a checkpoint. */
  readonly signal?: AbortSignal;
}

export const defaultRunFolder = (recipeName: string): string => resolve('runs', recipeName);
/** Tokens of the largest batch there can be. */
export const largestBatch = (lengths: readonly number[], tokensPerBatch: number, packing: boolean): number => {
  const longest = lengths.reduce((a, b) => Math.max(a, b), 0);
  return packing
    ? Math.max(
        longest,
        Math.min(
          tokensPerBatch,
          lengths.reduce((a, b) => a + b, 0),
        ),
      )
    : longest;
};
/** Bytes free on the disk that `path` is or will be on. */
export function freeDiskBytes(path: string): number {
  let at = resolve(path);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  const { bavail, bsize } = statfsSync(at);
  return bavail * bsize;
}
const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
/** @throws {TrainError} offload_disk_full */
function requireOffloadRoom(learner: TrainedLearner, run: string, tokens: number): void {
  const needed = learner.params.place === 'cpu' ? learner.offloadBytes(tokens) : 0; // a GPU's go to host memory
  if (needed === 0) return;
  const free = freeDiskBytes(run);
  if (free < needed) {
    throw new TrainError(
      'offload_disk_full',
      `${run}: the activations of a batch of ${tokens} tokens take ${gib(needed)} of disk, ` +
        `${gib(free)} are free; free some, choose another disk with --out, or lower ` +
        'train.tokensPerBatch or data.maxTokens',
      { run, tokens, needed, free },
    );
  }
}

/**
 * After memory ran out in a step, parameters and moments are still those of the step before: they are saved, and the
 * error says so and what to change.
 */
async function keptAfter(
  e: unknown,
  run: string,
  done: number,
  tokensPerBatch: number,
  save: () => Promise<void>,
): Promise<unknown> {
  if (!(e instanceof NativeError) || (e.code !== 'out_of_device_memory' && e.code !== 'out_of_memory')) return e;
  try {
    await save();
  } catch {
    return e;
  }
  const kept =
    done > 0
      ? `step ${done} is saved: --resume goes on with a higher memoryLimit or offloaded ` +
        `activations, a new run with adapter.from=${join(checkpointFolder(run, done), 'adapter')} ` +
        'with smaller batches'
      : 'no step was done yet';
  return new NativeError(
    e.code,
    `step ${done + 1}: ${e.message}; ${kept}. Batches have up to ${tokensPerBatch} tokens ` +
      '(train.tokensPerBatch); `temper plan` counts what fewer take',
    { ...e.details, step: done },
  );
}

const meanOfLast = (losses: readonly number[]): number => {
  const tail = losses.slice(-Math.max(1, Math.round(losses.length / 10)));
  return tail.length ? tail.reduce((a, b) => a + b, 0) / tail.length : Number.NaN;
};

/** @throws {ConfigError | DataError | CheckpointError | TrainError | IntegrityError} each in one line */
export async function runTraining(request: TrainRequest, hooks: TrainHooks = {}): Promise<TrainResult> {
  const { recipe, name } = loadRecipe(request.recipe, request.set ? { set: request.set } : {});
  if (request.threads !== undefined) setThreads(request.threads);
  const run = request.out ? resolve(request.out) : defaultRunFolder(name);
  const resume = request.resume === true;
  const learner = createLearner(recipe, run);
  try {
    return await train(recipe, name, run, resume, learner, hooks);
  } finally {
    learner.close();
  }
}

async function train(
  recipe: Recipe,
  name: string,
  run: string,
  resume: boolean,
  learner: TrainedLearner,
  hooks: TrainHooks,
): Promise<TrainResult> {
  const { config } = learner;
  const tokenizer = lazyTokenizer(recipe, config.vocab_size);
  const data = await loadDataset(recipe.data.train, {
    tokenizer: tokenizer.get,
    vocabSize: config.vocab_size,
    maxTokens: recipe.data.maxTokens,
    loss: recipe.data.loss,
  });
  tokenizer.close();
  const t = recipe.train;
  const lengths = data.examples.map(inputLength);
  const plan = planSteps(lengths, {
    seed: t.seed,
    epochs: t.epochs,
    steps: t.steps,
    tokensPerStep: t.tokensPerStep,
    rowsPerStep: t.rowsPerStep,
  });

  const tokenizerAt = tokenizerFolder(recipe);
  const digests: RunDigests = {
    recipe: recipeDigest(recipe),
    data: sha256(data.files.map((f) => f.sha256).join('\n')),
    base: recipe.model.base ? await digestCheckpoint(recipe.model.base) : sha256(JSON.stringify(recipe.model.init)),
    tokenizer: tokenizerAt
      ? await sha256File(tokenizerAt.endsWith('.json') ? tokenizerAt : join(tokenizerAt, 'tokenizer.json'))
      : '',
  };
  requireOffloadRoom(
    learner,
    run,
    largestBatch(lengths, t.tokensPerBatch ?? recipe.data.maxTokens, recipe.data.packing),
  );
  // Everything that can be wrong with the input was found by now: only then does the folder appear.
  openRunFolder(run, resume);
  const before = resume ? readRun(run) : null;
  if (before) checkSameRun(run, before, digests);
  const outputFolder = join(run, t.method === 'sft' ? 'adapter' : 'model');
  const cpu = cpuInfo();
  const record: RunRecord = {
    version: 1,
    name,
    about: recipe.about,
    status: 'running',
    method: t.method,
    seed: t.seed,
    steps: plan.steps,
    digests,
    data: data.files.map((f) => ({
      file: basename(f.path),
      format: f.format,
      sha256: f.sha256,
      rows: f.rows,
      tokens: f.tokens,
      trainedTokens: f.trainedTokens,
      untrainedRows: f.untrainedRows,
    })),
    versions: versions(),
    machine: { isa: learner.params.place === 'cuda' ? 'cuda' : cpu.isa, threads: getThreads() },
    trainedParameters: learner.trainedParameters,
    output: relative(run, outputFolder),
  };

  using scope = new Scope('optimizer', learner.momentsPlace);
  const m = scope.zeros('f32', learner.params.shape);
  const v = scope.zeros('f32', learner.params.shape);
  let done = 0;
  let saved = 0;
  const from = resume ? checkpointSteps(run).at(-1) : undefined;
  if (from !== undefined) {
    await loadState(run, from, { params: learner.params, m, v }, digests);
    learner.refresh();
    done = saved = from;
  }
  truncateMetrics(run, done);
  const losses = readMetrics(run).map((x) => x.loss);
  let tokens = readMetrics(run).reduce((a, x) => a + x.tokens, 0);
  const save = async (): Promise<void> => {
    if (saved === done) return;
    try {
      await saveCheckpoint(run, done, { params: learner.params, m, v }, digests, learner);
    } catch (e) {
      throw asDiskError(e, run, `the checkpoint of step ${done}`);
    }
    saved = done;
    removeOldCheckpoints(run, t.keepCheckpoints);
  };
  const began = performance.now();
  try {
    writeFileAtomic(join(run, 'recipe.yaml'), writeResolved(recipe, run));
    writeRun(run, record);
    resetPeaks();
    const first = done;
    for await (const metrics of trainLoop(
      learner,
      { m, v },
      data.examples,
      plan,
      done,
      {
        ...t,
        packing: recipe.data.packing,
        tokensPerBatch: t.tokensPerBatch ?? recipe.data.maxTokens,
        betas: t.optimizer.betas,
        eps: t.optimizer.eps,
        weightDecay: t.optimizer.weightDecay,
      },
      () => hooks.signal?.aborted === true,
    )) {
      done = metrics.step;
      losses.push(metrics.loss);
      tokens += metrics.tokens;
      appendMetrics(run, metrics);
      const seconds = (performance.now() - began) / 1000;
      hooks.onProgress?.({
        ...metrics,
        steps: plan.steps,
        epoch: plan.rows(done - 1).epoch + 1,
        etaSeconds: (seconds / (done - first)) * (plan.steps - done),
      });
      if (done % t.checkpointEvery === 0) await save();
      if (hooks.signal?.aborted) break;
    }
    await save();
    const finished = done >= plan.steps;
    if (finished) await writeFolderAtomic(outputFolder, (folder) => learner.save(folder));
    const status = finished ? 'done' : 'stopped';
    writeRun(run, { ...record, status });
    const report = join(run, 'report.html');
    writeReport(report, { ...record, status }, readMetrics(run));
    return {
      run,
      status,
      step: done,
      steps: plan.steps,
      firstLoss: losses[0] ?? Number.NaN,
      lastLoss: meanOfLast(losses),
      output: finished ? outputFolder : null,
      report,
      seconds: (performance.now() - began) / 1000,
      tokens,
      peakBytes: peakBytes(learner.params.place),
      digests,
    };
  } catch (e) {
    const error = await keptAfter(
      asDiskError(e, run, basename(run)),
      run,
      done,
      t.tokensPerBatch ?? recipe.data.maxTokens,
      save,
    );
    try {
      writeRun(run, { ...record, status: 'failed' });
    } catch {
      /* the first error is the one that matters */
    }
    throw error;
  }
}

// The project's headline numbers on one checkpoint: load, prefill, decode, one LoRA step. Every row says what share of
// this machine's own limit it reached; operations and bytes come from a dry run of the same call. Blocks its thread:
// the CLI runs nothing else beside it.
import { tmpdir } from 'node:os';
import { collectorOf } from '../base/collector.js';
import { anonymousBytes, availableBytes } from '../base/machine.js';
import { packBatch } from '../data/pack.js';
import { createAdapter } from '../lora/adapter.js';
import { adapterSpec } from '../lora/spec.js';
import { openCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import { DecodeSteps } from '../model/decode-step.js';
import { forwardHidden, logits } from '../model/gpt-oss.js';
import { madeUpModel } from '../model/init.js';
import { KvCache } from '../model/kv-cache.js';
import { type CacheDigests, cachedDense, quantizeDense } from '../model/q8.js';
import { type Batch, type ModelWeights, placeOf } from '../model/types.js';
import { backendOf, HOST } from '../native/backends.js';
import {
  deviceLimit,
  deviceMemory,
  kernelsOf,
  peakBytes as peakBytesOf,
  synchronize,
  takeTransfers,
} from '../native/device.js';
import { measureDeviceLimits } from '../native/device-limits.js';
import { cpuInfo, type Limits, measureLimits } from '../native/machine.js';
import { timeEachOp } from '../native/op-timing.js';
import { ops, type PRECISION } from '../native/ops.js';
import { type DryRunReport, dryRun } from '../native/plan.js';
import { type Category, memoryStats, type Place, releaseCached, resetPeaks, Scope } from '../native/tensor.js';
import { sft } from '../objectives/objective.js';
import { learnAdapter } from '../train/adapter-learner.js';
import type { MemoryUse, RecomputeMode } from '../train/memory-use.js';
import { createMoments, type OptimizerName } from '../train/moments.js';
import { chooseUse } from '../train/room.js';
import { OptimizerStep } from '../train/step.js';
import { type Peer, type PeerTest, runPeer } from './peer.js';
import { PrivateMemory } from './private-memory.js';

export interface BenchRow {
  readonly name: string;
  /** Tokens of one repetition. */
  readonly tokens: number;
  readonly repetitions: number;
  /** Median of the repetitions, seconds. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly gflops: number;
  readonly gbPerSecond: number;
  /** Share of the larger of the two limits, percent: arithmetic or bandwidth, whichever this work needs longer for. */
  readonly percentOfLimit: number;
  readonly bound: 'arithmetic' | 'bandwidth';
  /** LoRA steps: rows of the busiest expert of a layer ÷ those of the mean one, the mean over the layers. */
  readonly expertImbalance?: number;
  /** On a GPU, of a repetition: bytes copied from and to host memory beside the ops; percent that none waited for. */
  readonly copiedBytes?: number;
  readonly copiesHidden?: number;
  /** Peak of counted memory, bytes. */
  readonly peakBytes: number;
  /**
   * Peak of private memory as the kernel counts it, and what of it is the runtime's own (heap, code, stacks: what is
   * left when all counted memory is given back), bytes. NaN where the system does not tell.
   */
  readonly privateBytes: number;
  readonly runtimeBytes: number;
  /** On a GPU: peak of its memory by category, bytes; `peakBytes` is then its sum. */
  readonly deviceBytes?: Readonly<Record<Category, number>>;
  /** Time of each kind of op when the device is waited for after every call, and its share of the limit; with `ops`. */
  readonly byOp?: readonly OpShare[];
  /** The peer's tokens/s right after, and ours ÷ its; only for rows that it can run. */
  readonly peerTokensPerSecond?: number;
  readonly ratio?: number;
}
export interface OpShare {
  readonly op: string;
  readonly calls: number;
  readonly seconds: number;
  readonly percentOfLimit: number;
}
export interface BenchOptions {
  /** Where the model computes; the device must be open. Default: the host. */
  readonly place?: Place;
  /** What the machine can do at most, where it was measured before. */
  readonly limits?: Limits;
  /** One more repetition of each row with every op timed by itself. */
  readonly ops?: boolean;
  readonly precision: keyof typeof PRECISION;
  /** q8: prefill and decode with attention and head in 8 bits; there are no LoRA steps then, as they train on bf16. */
  readonly denseDtype?: 'bf16' | 'q8';
  /** 8-bit weights from the cache beside the checkpoint, which is held to these. */
  readonly denseCache?: CacheDigests | null;
  readonly prefill: readonly number[];
  /** Decode at these depths, for each batch size. */
  readonly depths: readonly number[];
  readonly batches: readonly number[];
  /** Tokens of a LoRA step. */
  readonly lora: readonly number[];
  readonly rank: number;
  /** As train.recompute of a recipe. */
  readonly recompute?: RecomputeMode;
  /** Of LoRA steps, as train.optimizer.name of a recipe; default adamw. */
  readonly optimizer?: OptimizerName;
  /** At least this long on each row, and at least 3 repetitions (1 where one takes longer than 20 s). */
  readonly secondsPerRow: number;
  /** Measured after each row that it can run. */
  readonly peer?: Omit<Peer, 'threads'>;
  readonly signal?: AbortSignal;
  readonly onRow?: (row: BenchRow) => void;
}
export const BENCH_DEFAULTS: BenchOptions = {
  precision: 'bf16',
  prefill: [128, 512, 2048],
  depths: [0, 2048],
  batches: [1, 4, 16],
  lora: [512, 2048, 8192],
  rank: 16,
  secondsPerRow: 3,
};
/** Tokens of one repetition, and repetitions at most (the cache must hold them all). */
const DECODE_TOKENS = 8;
const MOST_REPETITIONS = 40;

export interface BenchResult {
  readonly model: string;
  readonly limits: Limits;
  readonly isa: string;
  readonly cpu: string;
  readonly loadSeconds: number;
  readonly rows: readonly BenchRow[];
}

const oneSequence = (tokens: Int32Array, from = 0): Batch => ({
  tokens,
  positions: Int32Array.from(tokens, (_, i) => from + i),
  starts: Int32Array.of(0, tokens.length),
});
const someTokens = (n: number, vocab: number, salt = 0): Int32Array =>
  Int32Array.from({ length: n }, (_, i) => (((i + salt) * 2654435761) >>> 8) % vocab);

/**
 * @param source folder of a checkpoint, or the shape of a model that is made up in memory
 * @throws {CheckpointError} as openCheckpoint
 */
export function bench(source: string | ModelConfig, options: BenchOptions = BENCH_DEFAULTS): BenchResult {
  // What is wrong with a checkpoint is said before seconds are measured.
  if (typeof source === 'string') openCheckpoint(source).close();
  const place = options.place ?? HOST,
    limits = options.limits ?? (backendOf(place).library ? measureDeviceLimits(place) : measureLimits());
  releaseCached();
  using privately = new PrivateMemory();
  const began = performance.now();
  const model = open(source, options, options.denseCache ?? null);
  try {
    embedOne(model);
    const loadSeconds = (performance.now() - began) / 1000;
    const { vocab_size: V } = model.config;
    const rows: BenchRow[] = [];
    const add = (name: string, tokens: number, prepare: (model: ModelWeights) => Work, peerTest?: PeerTest): void => {
      options.signal?.throwIfAborted();
      const own = measure(
        name,
        tokens,
        limits,
        () => prepare(model),
        () => dryCost(source, options, prepare),
        options,
        privately,
      );
      const theirs =
        options.peer && peerTest ? runPeer({ ...options.peer, threads: limits.threads }, peerTest) : undefined;
      const row: BenchRow =
        theirs === undefined ? own : { ...own, peerTokensPerSecond: theirs, ratio: own.tokensPerSecond / theirs };
      rows.push(row);
      options.onRow?.(row);
    };
    for (const n of options.prefill)
      add(
        `prefill ${n}`,
        n,
        (model) => {
          const batch = oneSequence(someTokens(n, V));
          return () => {
            using scope = new Scope('activations', placeOf(model));
            using cache = new KvCache(model.config, 1, n, placeOf(model));
            logits(
              scope,
              model,
              forwardHidden(scope, model, null, batch, {
                precision: options.precision,
                cache,
                rows: Int32Array.of(n - 1),
              }),
              options.precision,
            );
          };
        },
        { prefill: n },
      );
    for (const depth of options.depths)
      for (const B of options.batches)
        add(`decode ${B} at ${depth}`, B * DECODE_TOKENS, (model) => decoder(model, B, depth, options.precision), {
          decode: 4 * DECODE_TOKENS,
          depth,
          sequences: B,
        });
    for (const n of options.denseDtype === 'q8' ? [] : options.lora)
      add(`LoRA step ${n}`, n, loraSteps(source, n, options));
    return {
      model: typeof source === 'string' ? source : 'made up',
      limits,
      isa: kernelsOf(place),
      cpu: cpuInfo().model,
      loadSeconds,
      rows,
    };
  } finally {
    model.close();
  }
}

/** Speed does not depend on what a model was trained to: rows may be longer than its positions. */
function open(source: string | ModelConfig, options: BenchOptions, cache: CacheDigests | null): ModelWeights {
  const model = opened(source, options, cache);
  return { ...model, config: { ...model.config, max_position_embeddings: 2 ** 31 - 1 } };
}
function opened(source: string | ModelConfig, options: BenchOptions, cache: CacheDigests | null): ModelWeights {
  const place = options.place ?? HOST,
    embed = HOST;
  if (typeof source !== 'string') {
    const model = madeUpModel(source, { seed: 5, place, embed });
    return options.denseDtype === 'q8' ? quantizeDense(model) : model;
  }
  const checkpoint = openCheckpoint(source, { place, embed });
  if (options.denseDtype !== 'q8') return checkpoint;
  try {
    return cache ? cachedDense(checkpoint, cache) : quantizeDense(checkpoint);
  } catch (e) {
    checkpoint.close();
    throw e;
  }
}

function embedOne(model: ModelWeights): void {
  using s = new Scope('activations', model.embed.place);
  ops.embedding_fwd(s.empty('f32', [1, model.config.hidden_size]), model.embed, s.from(Int32Array.of(0)));
}

/**
 * Greedy decoding of B sequences from `depth` on. One prompt fills the cache of all: what is in it does not matter to
 * the time.
 */
function decoder(model: ModelWeights, B: number, depth: number, precision: keyof typeof PRECISION): Work {
  const V = model.config.vocab_size;
  const place = placeOf(model),
    cache = new KvCache(model.config, B, depth + DECODE_TOKENS * (MOST_REPETITIONS + 2), place);
  if (depth > 0) {
    using scope = new Scope('activations', place);
    forwardHidden(scope, model, null, oneSequence(someTokens(depth, V)), {
      precision,
      cache,
      rows: Int32Array.of(depth - 1),
    });
    for (let b = 1; b < B; b++) cache.copy(0, b);
  }
  let at = depth;
  let last = someTokens(B, V);
  const steps = new DecodeSteps(model, cache, precision, !model.streamsExperts);
  const params = new Float32Array(4 * B),
    u = new Float32Array(B);
  const step = (batch: Batch): Int32Array => {
    if (!timingOps) return steps.run(null, batch, { params, u }).tokens;
    using scope = new Scope('activations', place);
    const hidden = forwardHidden(scope, model, null, batch, { precision, cache, byRow: true });
    const out = logits(scope, model, hidden, precision, true);
    const tokens = scope.empty('i32', [B]);
    ops.sample(tokens, scope.empty('f32', [B]), out, scope.from(params, [B, 4]), scope.from(u), null);
    return tokens.read() as Int32Array;
  };
  const run = (): void => {
    for (let i = 0; i < DECODE_TOKENS; i++, at++)
      last = step({
        tokens: last,
        positions: new Int32Array(B).fill(at),
        starts: Int32Array.from({ length: B + 1 }, (_, b) => b),
      });
  };
  return Object.assign(run, {
    close: () => {
      steps.close();
      cache.close();
    },
  });
}

/** LoRA steps that use this machine's memory as the trainer would. */
function loraSteps(source: string | ModelConfig, n: number, options: BenchOptions): (model: ModelWeights) => Work {
  const { place = HOST, recompute } = options;
  const room = { host: availableBytes(), device: deviceLimit() };
  const { use } = chooseUse({ recompute }, place, n, room, (use) => {
    const { report } = dryRun(() => {
      const model = open(source, options, null);
      const work = loraStep(model, n, options, use);
      work();
      work.close?.();
      model.close();
    });
    return report;
  });
  return (model) => loraStep(model, n, options, use);
}
/** The trainer's own step: what a recipe that leaves memory to it would run; the temporary folder for the run's. */
function loraStep(model: ModelWeights, n: number, options: BenchOptions, use: MemoryUse): Work {
  const spec = adapterSpec(model.config, {
    rank: options.rank,
    alpha: 2 * options.rank,
    targets: ['attention', 'experts'],
    rsLora: false,
    dropout: 0,
  });
  const adapter = createAdapter(model.config, spec, { seed: 1, trainable: true, place: placeOf(model) });
  const learner = learnAdapter(model, adapter, { precision: options.precision, folder: tmpdir() });
  learner.memory.settle(use);
  const scope = new Scope('optimizer', learner.memory.momentsPlace);
  const moments = createMoments(options.optimizer ?? 'adamw', scope, adapter.params);
  const optimizer = new OptimizerStep(learner, moments, sft, {
    clipGradNorm: null,
    betas: [0.9, 0.999],
    eps: 1e-8,
    weightDecay: 0,
  });
  const tokens = someTokens(n + 1, model.config.vocab_size);
  const batch = packBatch(
    [{ tokens, weights: new Float32Array(n + 1).fill(1), source: { file: 'bench', line: 1 } }],
    1 / n,
  );
  let step = 0;
  const run = (): void => {
    optimizer.begin();
    optimizer.add(batch, 1);
    optimizer.update(++step, 1e-4, optimizer.gradNorm());
  };
  return Object.assign(run, {
    expertImbalance: () => learner.expertImbalance?.() ?? null,
    close: () => {
      optimizer.close();
      scope.close();
      adapter.close();
    },
  });
}

type Work = (() => void) & { close?: () => void; expertImbalance?: () => number | null };
/** Operations of the work alone: those of opening, set-up and work, less those of opening and set-up. */
function dryCost(
  source: string | ModelConfig,
  options: BenchOptions,
  prepare: (model: ModelWeights) => Work,
): DryRunReport['ops'] {
  const calls = (run: boolean): DryRunReport['ops'] =>
    dryRun(() => {
      const model = open(source, options, null);
      const work = prepare(model);
      if (run) work();
      work.close?.();
      model.close();
    }).report.ops;
  return calls(true).slice(calls(false).length);
}

function measure(
  name: string,
  tokens: number,
  limits: Limits,
  prepare: () => Work,
  cost: () => DryRunReport['ops'],
  options: BenchOptions,
  privately: PrivateMemory,
): BenchRow {
  const place = options.place ?? HOST,
    { asynchronous, ownMemory } = backendOf(place),
    finish = (): void => {
      if (asynchronous) synchronize();
    };
  const calls = cost();
  releaseCached(); // blocks that rows before left are no part of this one
  const live = memoryStats().totalLive;
  const work = prepare();
  let closed = false;
  const close = (): void => {
    if (!closed) work.close?.();
    closed = true;
  };
  try {
    releaseCached(); // nor what the preparation left
    collectorOf()?.(); // nor its garbage, which would be there at the peak and perhaps not at the end
    options.signal?.throwIfAborted();
    work(); // pages, caches, clocks
    finish();
    resetPeaks();
    privately.reset();
    takeTransfers();
    const times: number[] = [];
    const end = performance.now() + options.secondsPerRow * 1000;
    do {
      options.signal?.throwIfAborted();
      const from = performance.now();
      work();
      finish();
      times.push((performance.now() - from) / 1000);
    } while (
      times.length < MOST_REPETITIONS &&
      (performance.now() < end || (times.length < 3 && (times[0] ?? 0) < 20))
    );
    const seconds = times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN;
    const copied = takeTransfers(),
      peakBytes = peakBytesOf(place),
      privateBytes = privately.peak();
    const onDevice = ownMemory ? { deviceBytes: deviceMemory().peak } : {},
      byOp = options.ops ? { byOp: timeOps(work, calls, limits) } : {};
    const expertImbalance = work.expertImbalance?.() ?? null;
    close();
    releaseCached();
    const runtimeBytes = anonymousBytes() - live;
    const flops = calls.reduce((a, c) => a + c.cost.flops, 0),
      bytes = calls.reduce((a, c) => a + c.cost.bytes, 0);
    const arithmetic = flops / (limits.gflops * 1e9),
      bandwidth = bytes / (limits.gbPerSecond * 1e9);
    return {
      name,
      tokens,
      repetitions: times.length,
      seconds,
      tokensPerSecond: tokens / seconds,
      gflops: flops / seconds / 1e9,
      gbPerSecond: bytes / seconds / 1e9,
      percentOfLimit: (100 * Math.max(arithmetic, bandwidth)) / seconds,
      bound: arithmetic > bandwidth ? 'arithmetic' : 'bandwidth',
      ...(expertImbalance === null ? {} : { expertImbalance }),
      ...(copied.bytes > 0 ? { copiedBytes: copied.bytes / times.length, copiesHidden: copied.hiddenPercent } : {}),
      peakBytes,
      privateBytes,
      runtimeBytes,
      ...onDevice,
      ...byOp,
    };
  } finally {
    close();
  }
}

let timingOps = false;
function timeOps(work: Work, calls: DryRunReport['ops'], limits: Limits): readonly OpShare[] {
  timingOps = true;
  let sums: ReturnType<typeof timeEachOp>;
  try {
    sums = timeEachOp(work);
  } finally {
    timingOps = false;
  }
  const least = (op: string): number =>
    calls.reduce(
      (sum, c) =>
        c.op === op
          ? sum + Math.max(c.cost.flops / (limits.gflops * 1e9), c.cost.bytes / (limits.gbPerSecond * 1e9))
          : sum,
      0,
    );
  return [...sums]
    .map(([op, { calls: n, seconds }]) => ({ op, calls: n, seconds, percentOfLimit: (100 * least(op)) / seconds }))
    .sort((a, b) => b.seconds - a.seconds);
}

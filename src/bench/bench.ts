// The project's headline numbers on one checkpoint: load, prefill, decode, one LoRA step. Every row says what share of this machine's own limit it reached;
// operations and bytes come from a dry run of the same call. Blocks its thread: the CLI runs nothing else beside it.
import { createAdapter } from '../lora/adapter.js';
import { adapterSpec } from '../lora/spec.js';
import { openCheckpoint } from '../model/checkpoint.js';
import { forwardHidden, logits, lossAndGradients } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { cachedDense, quantizeDense } from '../model/q8.js';
import type { Batch, ModelWeights } from '../model/types.js';
import { addon } from '../native/addon.js';
import { dryRun, type DryRunReport } from '../native/dry-run.js';
import { ops, type PRECISION } from '../native/ops.js';
import { getThreads, memoryStats, resetPeaks, Scope } from '../native/tensor.js';
import { anonymousBytes, PrivateMemory } from './private-memory.js';
import { type Peer, type PeerTest, runPeer } from './peer.js';

export interface Limits { readonly threads: number; readonly gflops: number; readonly gbPerSecond: number }
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
  /** Peak of counted memory, bytes. */
  readonly peakBytes: number;
  /** Peak of private memory as the kernel counts it, and what of it is the runtime's own (heap, code, stacks: what is left when all counted memory is given back), bytes. NaN where the system does not tell. */
  readonly privateBytes: number;
  readonly runtimeBytes: number;
  /** The peer's tokens/s right after, and ours ÷ its; only for rows that it can run. */
  readonly peerTokensPerSecond?: number;
  readonly ratio?: number;
}
export interface BenchOptions {
  readonly precision: keyof typeof PRECISION;
  /** q8: prefill and decode with attention and head in 8 bits; there are no LoRA steps then, as they train on bf16. */
  readonly denseDtype?: 'bf16' | 'q8';
  readonly denseCache?: boolean;
  readonly prefill: readonly number[];
  /** Decode at these depths, for each batch size. */
  readonly depths: readonly number[];
  readonly batches: readonly number[];
  /** Tokens of a LoRA step. */
  readonly lora: readonly number[];
  readonly rank: number;
  /** At least this long on each row, and at least 3 repetitions (1 where one takes longer than 20 s). */
  readonly secondsPerRow: number;
  /** Measured after each row that it can run. */
  readonly peer?: Omit<Peer, 'threads'>;
  readonly signal?: AbortSignal;
  readonly onRow?: (row: BenchRow) => void;
}
export const BENCH_DEFAULTS: BenchOptions = { precision: 'bf16', prefill: [128, 512, 2048], depths: [0, 2048], batches: [1, 4, 16], lora: [512, 2048, 8192], rank: 16, secondsPerRow: 3 };
/** Tokens of one repetition, and repetitions at most (the cache must hold them all). */
const DECODE_TOKENS = 8;
const MOST_REPETITIONS = 40;

export interface BenchResult { readonly model: string; readonly limits: Limits; readonly isa: string; readonly cpu: string; readonly loadSeconds: number;
  readonly rows: readonly BenchRow[] }

export const measureLimits = (threads = getThreads()): Limits => {
  const [gflops, gbPerSecond] = addon.measureLimits(threads, 2 ** 30);
  return { threads, gflops, gbPerSecond };
};

const oneSequence = (tokens: Int32Array, from = 0): Batch => ({ tokens, positions: Int32Array.from(tokens, (_, i) => from + i), starts: Int32Array.of(0, tokens.length) });
const someTokens = (n: number, vocab: number, salt = 0): Int32Array => Int32Array.from({ length: n }, (_, i) => (((i + salt) * 2654435761) >>> 8) % vocab);

/** @throws {CheckpointError} as openCheckpoint */
export function bench(dir: string, options: BenchOptions = BENCH_DEFAULTS): BenchResult {
  const limits = measureLimits();
  addon.releaseCached();
  using privately = new PrivateMemory();
  const began = performance.now();
  const model = open(dir, options, options.denseCache ?? false);
  try {
    embedOne(model);
    const loadSeconds = (performance.now() - began) / 1000;
    const { vocab_size: V } = model.config;
    const rows: BenchRow[] = [];
    const add = (name: string, tokens: number, prepare: (model: ModelWeights) => Work, peerTest?: PeerTest): void => {
      options.signal?.throwIfAborted();
      const own = measure(name, tokens, limits, () => prepare(model), () => dryCost(dir, options, prepare), options.secondsPerRow, privately);
      const theirs = options.peer && peerTest ? runPeer({ ...options.peer, threads: limits.threads }, peerTest) : undefined;
      const row: BenchRow = theirs === undefined ? own : { ...own, peerTokensPerSecond: theirs, ratio: own.tokensPerSecond / theirs };
      rows.push(row);
      options.onRow?.(row);
    };
    for (const n of options.prefill) add(`prefill ${n}`, n, (model) => {
      const batch = oneSequence(someTokens(n, V));
      return () => {
        using scope = new Scope();
        using cache = new KvCache(model.config, 1, n);
        logits(scope, model, forwardHidden(scope, model, null, batch, { precision: options.precision, cache, rows: Int32Array.of(n - 1) }), options.precision);
      };
    }, { prefill: n });
    for (const depth of options.depths) for (const B of options.batches) add(`decode ${B} at ${depth}`, B * DECODE_TOKENS, (model) => decoder(model, B, depth, options.precision), { decode: 4 * DECODE_TOKENS, depth, sequences: B });
    for (const n of options.denseDtype === 'q8' ? [] : options.lora) add(`LoRA step ${n}`, n, (model) => loraStep(model, n, options));
    return { model: dir, limits, isa: addon.cpuInfo().isa, cpu: addon.cpuInfo().model, loadSeconds, rows };
  } finally { model.close(); }
}

function open(dir: string, options: BenchOptions, cache: boolean): ModelWeights {
  const checkpoint = openCheckpoint(dir);
  if (options.denseDtype !== 'q8') return checkpoint;
  try { return cache ? cachedDense(checkpoint) : quantizeDense(checkpoint); } catch (e) { checkpoint.close(); throw e; }
}

function embedOne(model: ModelWeights): void {
  using s = new Scope();
  ops.embedding_fwd(s.empty('f32', [1, model.config.hidden_size]), model.embed, s.from(Int32Array.of(0)));
}

/** Greedy decoding of B sequences from `depth` on. One prompt fills the cache of all: what is in it does not matter to the time. */
function decoder(model: ModelWeights, B: number, depth: number, precision: keyof typeof PRECISION): Work {
  const V = model.config.vocab_size;
  const cache = new KvCache(model.config, B, depth + DECODE_TOKENS * (MOST_REPETITIONS + 1));
  if (depth > 0) {
    using scope = new Scope();
    forwardHidden(scope, model, null, oneSequence(someTokens(depth, V)), { precision, cache, rows: Int32Array.of(depth - 1) });
    for (let b = 1; b < B; b++) cache.copy(0, b);
  }
  let at = depth;
  let last = someTokens(B, V);
  const run = (): void => {
    for (let i = 0; i < DECODE_TOKENS; i++, at++) {
      using scope = new Scope();
      const batch: Batch = { tokens: last, positions: new Int32Array(B).fill(at), starts: Int32Array.from({ length: B + 1 }, (_, b) => b) };
      const out = logits(scope, model, forwardHidden(scope, model, null, batch, { precision, cache }), precision);
      const tokens = scope.empty('i32', [B]);
      ops.sample(tokens, scope.empty('f32', [B]), out, scope.from(new Float32Array(4 * B), [B, 4]), scope.from(new Float32Array(B)), null);
      last = tokens.read() as Int32Array;
    }
  };
  return Object.assign(run, { close: () => cache.close() });
}

function loraStep(model: ModelWeights, n: number, options: BenchOptions): Work {
  const spec = adapterSpec(model.config, { rank: options.rank, alpha: 2 * options.rank, targets: ['attention', 'experts'], rsLora: false, dropout: 0 });
  const adapter = createAdapter(model.config, spec, { seed: 1, trainable: true });
  const scope = new Scope('optimizer');
  const m = scope.zeros('f32', adapter.params.shape), v = scope.zeros('f32', adapter.params.shape);
  const tokens = someTokens(n + 1, model.config.vocab_size);
  const batch = oneSequence(tokens.slice(0, n));
  const targets = { rows: Int32Array.from({ length: n }, (_, i) => i), targets: tokens.slice(1), weights: new Float32Array(n).fill(1 / n) };
  let step = 0;
  const run = (): void => {
    const grads = adapter.grads;
    if (!grads) return;
    ops.fill(grads, 0);
    lossAndGradients(model, adapter.model, batch, targets, { precision: options.precision, seed: 1, grads: null, gradients: true });
    ops.adamw(adapter.params, m, v, grads, 1e-4, 0.9, 0.999, 1e-8, 0, ++step, 1);
  };
  return Object.assign(run, { close: () => { scope.close(); adapter.close(); } });
}

type Work = (() => void) & { close?: () => void };
/** Operations of the work alone: those of opening, set-up and work, less those of opening and set-up. */
function dryCost(dir: string, options: BenchOptions, prepare: (model: ModelWeights) => Work): DryRunReport['ops'] {
  const calls = (run: boolean): DryRunReport['ops'] => dryRun(() => {
    const model = open(dir, options, false);
    const work = prepare(model);
    if (run) work();
    work.close?.();
    model.close();
  }).report.ops;
  return calls(true).slice(calls(false).length);
}

function measure(name: string, tokens: number, limits: Limits, prepare: () => Work, cost: () => DryRunReport['ops'], secondsPerRow: number, privately: PrivateMemory): BenchRow {
  const calls = cost();
  addon.releaseCached(); // blocks that rows before left are no part of this one
  const live = memoryStats().totalLive;
  const work = prepare();
  let closed = false;
  const close = (): void => { if (!closed) work.close?.(); closed = true; };
  try {
    addon.releaseCached(); // nor what the preparation left
    work(); // pages, caches, clocks
    resetPeaks();
    privately.reset();
    const times: number[] = [];
    const end = performance.now() + secondsPerRow * 1000;
    do {
      const from = performance.now();
      work();
      times.push((performance.now() - from) / 1000);
    } while (times.length < MOST_REPETITIONS && (performance.now() < end || (times.length < 3 && (times[0] ?? 0) < 20)));
    const seconds = times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN;
    const peakBytes = memoryStats().totalPeak, privateBytes = privately.peak();
    close();
    addon.releaseCached();
    const runtimeBytes = anonymousBytes() - live;
    const flops = calls.reduce((a, c) => a + c.cost.flops, 0), bytes = calls.reduce((a, c) => a + c.cost.bytes, 0);
    const arithmetic = flops / (limits.gflops * 1e9), bandwidth = bytes / (limits.gbPerSecond * 1e9);
    return {
      name, tokens, repetitions: times.length, seconds, tokensPerSecond: tokens / seconds, gflops: flops / seconds / 1e9, gbPerSecond: bytes / seconds / 1e9,
      percentOfLimit: (100 * Math.max(arithmetic, bandwidth)) / seconds, bound: arithmetic > bandwidth ? 'arithmetic' : 'bandwidth', peakBytes, privateBytes, runtimeBytes,
    };
  } finally { close(); }
}

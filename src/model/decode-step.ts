// A decode step of B sequences as one launch. Some four hundred ops make a token; called one by one they cost more than
// their work on a GPU, and 1 to 4 % of a 20b token on a CPU, where the weights that stream by empty the caches between
// two calls.

import { NativeError } from '../base/errors.js';
import { backendOf } from '../native/backends.js';
import { Graph } from '../native/graph.js';
import { ops, type PRECISION } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { forwardHidden, logits, StepInputs } from './gpt-oss.js';
import type { KvCache } from './kv-cache.js';
import { StepThreads } from './step-threads.js';
import { type AdapterPool, type Batch, type ModelAdapter, type ModelWeights, placeOf } from './types.js';

/** One adapter for all sequences, or a pool of which each has its own. */
export type StepAdapter = ModelAdapter | AdapterPool | null;
const isPool = (adapter: StepAdapter): adapter is AdapterPool => adapter !== null && 'params' in adapter;

const noAdapters = (B: number): Int32Array => new Int32Array(B).fill(-1);

/** What a step takes for each row. */
export interface StepValues {
  /** Sampling parameters as op `sample` takes them: f32 [B,4]. */
  readonly params: Float32Array;
  /** f32 [B], likewise. */
  readonly u: Float32Array;
  /** With a pool: rows of the adapters, −1: none. */
  readonly adapterRows?: Int32Array;
}
/** Good until the next step. */
export interface StepResult {
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  /** f32 [B,V]; null: not kept. */
  readonly logits: Tensor | null;
  /** Rows that have no number among their logits, and what is said of each; absent: there are none. */
  readonly unsound?: ReadonlyMap<number, NativeError>;
}
/** Whether a pass failed by the logits of a row alone: weights whose sums are no numbers any more. */
export const isUnsound = (e: unknown): e is NativeError => e instanceof NativeError && e.code === 'bad_logits';

/**
 * Steps of one batch size and one adapter or pool. The first runs op by op, which takes all memory it needs; the second
 * is recorded; from then on it is launched.
 */
export class DecodeStep implements Disposable {
  readonly batchSize: number;
  readonly #scope: Scope;
  readonly #inputs: StepInputs;
  readonly #params: Tensor;
  readonly #u: Tensor;
  readonly #adapterRows: Tensor | null;
  readonly #tokens: Tensor;
  readonly #logprobs: Tensor;
  readonly #logits: Tensor | null;
  readonly #threads = new StepThreads();
  #graph: Graph | null = null;
  #runs = 0;

  /**
   * @param record false: every step runs op by op, for comparison and for models whose passes may not be recorded
   * @param shares where recordings share memory: steps that never run at once with this one, whose memory it uses too
   * @param keepsLogits the result has them
   * @param byRow false: a row's bits may depend on the others, for comparison
   */
  constructor(
    readonly model: ModelWeights,
    readonly adapter: StepAdapter,
    readonly cache: KvCache,
    readonly precision: keyof typeof PRECISION,
    batch: Batch,
    readonly record: boolean,
    readonly shares: readonly DecodeStep[] = [],
    readonly keepsLogits = false,
    readonly byRow = true,
  ) {
    const B = batch.tokens.length;
    this.batchSize = B;
    this.#inputs = new StepInputs(model, cache, batch);
    this.#scope = new Scope('workspace', placeOf(model));
    try {
      this.#params = this.#scope.empty('f32', [B, 4]);
      this.#u = this.#scope.empty('f32', [B]);
      this.#adapterRows = isPool(adapter) ? this.#scope.empty('i32', [B]) : null;
      this.#tokens = this.#scope.empty('i32', [B]);
      this.#logprobs = this.#scope.empty('f32', [B]);
      this.#logits = keepsLogits ? this.#scope.empty('f32', [B, model.config.vocab_size]) : null;
    } catch (e) {
      this.close();
      throw e;
    }
  }

  /** @param crowded a core has other work just now */
  run(batch: Batch, values: StepValues, crowded = false): StepResult {
    this.#inputs.set(batch);
    this.#params.write(values.params);
    this.#u.write(values.u);
    this.#adapterRows?.write(values.adapterRows ?? noAdapters(this.batchSize));
    const place = placeOf(this.model),
      { asynchronous, recordsSteps, sharesRecordings } = backendOf(place);
    const graph = this.#graph;
    if (graph) {
      if (asynchronous) graph.launch();
      else this.#threads.run(() => graph.launch(), crowded);
      this.cache.advance(this.#inputs.plan);
    } else if (this.record && recordsSteps && this.#runs > 0) {
      const shared = sharesRecordings ? (this.shares.find((s) => s.#graph !== null) ?? null) : null;
      // the pass itself advances the cache
      this.#graph = Graph.record(() => this.#step(batch), place, shared === null ? null : shared.#graph);
      this.#graph.launch();
    } else this.#step(batch);
    this.#runs++;
    return {
      tokens: this.#tokens.read() as Int32Array,
      logprobs: this.#logprobs.toFloat32(),
      logits: this.#logits,
    };
  }

  #step(batch: Batch): void {
    using s = new Scope('workspace', placeOf(this.model));
    const { adapter } = this,
      rows = this.#adapterRows;
    const hidden = forwardHidden(s, this.model, isPool(adapter) ? null : adapter, batch, {
      precision: this.precision,
      cache: this.cache,
      inputs: this.#inputs,
      byRow: this.byRow,
      mixed: isPool(adapter) && rows ? { pool: adapter, rows } : null,
    });
    ops.sample(
      this.#tokens,
      this.#logprobs,
      logits(s, this.model, hidden, this.precision, this.byRow, this.#logits ?? undefined),
      this.#params,
      this.#u,
      null,
    );
  }

  close(): void {
    this.#graph?.close();
    this.#graph = null;
    this.#inputs.close();
    this.#scope.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Steps by batch size and adapter or pool; the least recently used make room. Where recordings share no memory each
 * keeps its own; where they do, all use that of the largest, and a larger one than ever before begins anew.
 */
export class DecodeSteps implements Disposable {
  readonly #steps: DecodeStep[] = [];
  /** Whether a core has other work just now. */
  crowded: () => boolean = () => false;
  /** Logits of the last one of more rows than are kept. */
  #large: Scope | null = null;
  /**
   * @param mostRows larger steps are rare and run op by op: their batches may have several tokens of a sequence, which
   * read its keys together; what they take is given back with the next step
   */
  constructor(
    readonly model: ModelWeights,
    readonly cache: KvCache,
    readonly precision: keyof typeof PRECISION,
    readonly record = true,
    readonly most = 16,
    readonly mostRows = Number.POSITIVE_INFINITY,
  ) {}

  run(adapter: StepAdapter, batch: Batch, values: StepValues, keeps = false): StepResult {
    const B = batch.tokens.length;
    this.#closeLarge();
    if (B > this.mostRows) return this.#runLarge(adapter, batch, values, keeps);
    const at = this.#steps.findIndex((s) => s.adapter === adapter && s.batchSize === B && s.keepsLogits === keeps);
    if (backendOf(placeOf(this.model)).sharesRecordings && this.#steps.every((s) => s.batchSize < B)) this.close();
    const step =
      at >= 0
        ? (this.#steps.splice(at, 1)[0] as DecodeStep)
        : new DecodeStep(this.model, adapter, this.cache, this.precision, batch, this.record, this.#steps, keeps);
    this.#steps.push(step);
    if (this.#steps.length > this.most) this.#steps.shift()?.close();
    try {
      return step.run(batch, values, this.crowded());
    } catch (e) {
      // what it holds is undefined now
      this.#steps.splice(this.#steps.indexOf(step), 1);
      step.close();
      throw e;
    }
  }
  #runLarge(adapter: StepAdapter, batch: Batch, values: StepValues, keeps: boolean): StepResult {
    using s = new Scope('workspace', placeOf(this.model));
    const B = batch.tokens.length,
      tokens = s.empty('i32', [B]),
      logprobs = s.empty('f32', [B]);
    const mixed = isPool(adapter) ? { pool: adapter, rows: s.from(values.adapterRows ?? noAdapters(B)) } : null;
    const hidden = forwardHidden(s, this.model, isPool(adapter) ? null : adapter, batch, {
      precision: this.precision,
      cache: this.cache,
      byRow: true,
      mixed,
    });
    if (keeps) this.#large = new Scope('workspace', placeOf(this.model));
    const z = logits(this.#large ?? s, this.model, hidden, this.precision, true);
    ops.sample(tokens, logprobs, z, s.from(values.params, [B, 4]), s.from(values.u), null);
    return { tokens: tokens.read() as Int32Array, logprobs: logprobs.toFloat32(), logits: keeps ? z : null };
  }
  /** Drops what was recorded with an adapter, before its tensors are freed. */
  forget(adapter: ModelAdapter): void {
    for (const step of this.#steps.filter((s) => s.adapter === adapter)) {
      this.#steps.splice(this.#steps.indexOf(step), 1);
      step.close();
    }
  }
  #closeLarge(): void {
    this.#large?.close();
    this.#large = null;
  }
  close(): void {
    this.#closeLarge();
    for (const step of this.#steps.splice(0)) step.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

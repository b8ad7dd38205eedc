// Sampling over the model: sequences share one KV cache, each has its prompt read in pieces and then decodes together
// with the others. A synchronous stepper: whoever drives it (a worker, a test) decides what happens between two steps.
// Start reading at `step`; who takes part in one is decided in scheduler.ts.
//
// A sequence's bits are its own. The pieces of its prompt are cut at places that depend on it alone, and each is a pass
// by itself; streams decode in one pass, whose ops give a row the same bits in any company.

import { NativeError } from '../base/errors.js';
import { DecodeSteps, type StepAdapter, type StepResult } from '../model/decode-step.js';
import { forwardLayers, logits } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { PAGE_TOKENS, pagesFor } from '../model/kv-pages.js';
import { type Batch, isPooled, type ModelAdapter, type ModelWeights, placeOf } from '../model/types.js';
import { ops, type PRECISION } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import { type Cut, Prefixes } from './prefixes.js';
import { uniform } from './random.js';
import { admit, type Job, prompts, streams } from './scheduler.js';
import {
  type Candidate,
  checkSequence,
  type Finish,
  type Sampled,
  type Sequence,
  type SequenceOptions,
} from './sequence.js';
import { largest, type Wish } from './steer.js';

interface State extends Sequence, Job {
  readonly adapter: ModelAdapter | null;
  /** −1 while waiting for a slot. */
  slot: number;
  /** Where pieces of the prompt end that others may share: all others go from cut to cut, a budget at a time. */
  readonly cuts: readonly number[];
  /** Prompt tokens in the cache. */
  prefilled: number;
  /** Of them, those that were there before it began. */
  cached: number;
  sampled: number;
  last: number;
}

/** Pages are of PAGE_TOKENS tokens. When nothing runs, those in use are those of kept prefixes. */
export interface SessionUsage {
  readonly running: number;
  readonly waiting: number;
  readonly freeSlots: number;
  readonly pages: number;
  readonly usedPages: number;
  /** Neither in use nor promised. */
  readonly freePages: number;
  /** Held by kept prefixes, shared ones once. */
  readonly keptPages: number;
  readonly prefixes: number;
}
export interface SessionOptions {
  readonly precision: keyof typeof PRECISION;
  /** Sequences that run at once; more wait. */
  readonly slots: number;
  /** Most tokens of one sequence, prompt and answer. */
  readonly capacity: number;
  /** Prompt tokens per step, and of one piece: bounds the workspace and how long others wait. */
  readonly prefillTokens?: number;
  /** Shared prefixes that are kept, each in a slot of its own. */
  readonly prefixes?: number;
  /**
   * Tokens that the cache holds of all sequences and prefixes together; a sequence begins when there is room for all of
   * it. Default: enough for each to be as long as it may.
   */
  readonly cacheTokens?: number;
  /** What keys and values of full layers are kept in; bf16 halves them and rounds. Default f32. */
  readonly kvDtype?: 'f32' | 'bf16';
  /**
   * A piece of a prompt stops between two of its layers when it has taken as long as the streams beside it, and goes on
   * in the next step. Bits stay. Default: false, a step ends with its pieces.
   */
  readonly yields?: boolean;
  /** Decode steps are recorded once and launched whole. Default: true. */
  readonly graphs?: boolean;
}
export const DEFAULT_PREFILL_TOKENS = 512;
/** Kept prefixes that the cache has room of their own for, where its size is not given. */
const ROOMY_PREFIXES = 2;

const rowOf = ({ adapter }: State): number => (isPooled(adapter) ? adapter.row : -1);
/** Sampling of each: the parameters and the uniform number. */
const valuesOf = (states: readonly State[]): { readonly params: Float32Array; readonly u: Float32Array } => ({
  params: Float32Array.from(states.flatMap(({ options: { sampling: p } }) => [p.temperature, p.topK, p.topP, p.minP])),
  u: Float32Array.from(states, (q) => uniform(q.options.sampling.seed, q.sampled)),
});

/** null: none of them is steered now. */
function wishesOf(states: readonly State[]): readonly (Wish | null)[] | null {
  const wishes = states.map((q) => q.options.steer?.wish() ?? null);
  return wishes.some((w) => w !== null) ? wishes : null;
}

export class Session implements Disposable {
  readonly capacity: number;
  readonly #cache: KvCache;
  readonly #free: number[];
  readonly #waiting: State[] = [];
  /** In the order of arrival. */
  readonly #running: State[] = [];
  readonly #prefillTokens: number;
  readonly #prefixes: Prefixes;
  readonly #steps: DecodeSteps;
  /** A piece of a prompt, some layers of which are computed. */
  #reading: { readonly state: State; readonly work: Generator<void, readonly Sampled[]> } | null = null;
  /** Sampled between two steps: told by the next. */
  readonly #late: Sampled[] = [];

  constructor(
    readonly model: ModelWeights,
    readonly options: SessionOptions,
  ) {
    this.capacity = options.capacity;
    this.#prefillTokens = options.prefillTokens ?? DEFAULT_PREFILL_TOKENS;
    const { slots, prefixes = 0 } = options;
    this.#cache = new KvCache(model.config, slots + prefixes, options.capacity, placeOf(model), {
      // What is kept takes what sequences leave.
      pages:
        options.cacheTokens === undefined
          ? (slots + Math.min(prefixes, ROOMY_PREFIXES)) * pagesFor(options.capacity)
          : pagesFor(options.cacheTokens),
      ...(options.kvDtype === undefined ? {} : { dtype: options.kvDtype }),
    });
    this.#prefixes = new Prefixes(
      this.#cache,
      Array.from({ length: prefixes }, (_, i) => slots + i),
    );
    const record = !model.streamsExperts && (options.graphs ?? true);
    this.#steps = new DecodeSteps(model, this.#cache, options.precision, record);
    this.#free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
  }

  /**
   * Queues a sequence.
   * @throws {ConfigError} prompt_empty, prompt_too_long, token_range, max_tokens
   * @throws {NativeError} cache_full: the cache is too small for it, even if nothing else ran
   */
  start(options: SequenceOptions): Sequence {
    checkSequence(options, this.capacity, this.model.config.vocab_size);
    const pages = pagesFor(this.#mostTokens(options));
    if (pages > this.#cache.pages)
      throw new NativeError(
        'cache_full',
        `prompt and answer: ${pages} pages of ${PAGE_TOKENS} tokens, the cache has ${this.#cache.pages}; lower ` +
          'maxTokens or make the cache larger',
        { need: pages, limit: this.#cache.pages },
      );
    const { sharedTokens = 0, tokens } = options;
    const state: State = {
      options,
      adapter: options.adapter ?? null,
      slot: -1,
      // The last token is always run, as its row is what is sampled from.
      cuts: [Math.min(sharedTokens, tokens.length - 1), ...(options.cuts ?? [])].filter(
        (c, i, all) => c > (i === 0 ? 0 : (all[i - 1] ?? 0)) && c <= tokens.length,
      ),
      prefilled: 0,
      cached: 0,
      sampled: 0,
      last: -1,
      get decoding() {
        return this.prefilled === options.tokens.length;
      },
      piece: () => this.#piece(state),
    };
    this.#waiting.push(state);
    return state;
  }
  /** Ends a sequence at once; unknown or ended ones are ignored. */
  cancel(sequence: Sequence): void {
    const waiting = this.#waiting.indexOf(sequence as State);
    if (waiting >= 0) {
      this.#waiting.splice(waiting, 1);
      return;
    }
    if (this.#reading?.state === sequence) {
      this.#reading.work.return([]);
      this.#reading = null;
    }
    const running = this.#running.indexOf(sequence as State);
    if (running >= 0) this.#release(this.#running[running] as State);
  }
  /** Drops all that was kept of an adapter, before it is freed; no sequence may run with it any more. */
  forget(adapter: ModelAdapter): void {
    this.#prefixes.forget(adapter);
    this.#steps.forget(adapter);
  }
  /** Drops recorded steps, before tensors of adapters are freed as they move. */
  forgetSteps(): void {
    // A piece that is being read has these tensors too, and cannot begin anew: rings have its keys already.
    this.#read(this.#late, Number.POSITIVE_INFINITY);
    this.#steps.close();
  }
  get idle(): boolean {
    return this.#waiting.length + this.#running.length + this.#late.length === 0;
  }

  /** One token of every stream, and beside them pieces of prompts; the last piece of a prompt gives a first token. */
  step(): readonly Sampled[] {
    this.#running.push(...admit(this.#waiting, (state) => this.#begin(state)));
    const since = performance.now(),
      decoding = streams(this.#running);
    const sampled = [...this.#late.splice(0), ...this.#decode(decoding)];
    const until = this.options.yields && decoding.length > 0 ? 2 * performance.now() - since : Number.POSITIVE_INFINITY;
    if (!this.#read(sampled, until)) return sampled;
    for (const state of prompts([...this.#running], this.#prefillTokens)) {
      this.#reading = { state, work: this.#prefill(state) };
      if (!this.#read(sampled, until) || performance.now() >= until) break;
    }
    return sampled;
  }
  /** Goes on with the piece that is being read, until it is done or it is time. @returns whether it is done */
  #read(sampled: Sampled[], until: number): boolean {
    if (!this.#reading) return true;
    const { work } = this.#reading;
    try {
      for (;;) {
        const part = work.next();
        if (!part.done && performance.now() < until) continue;
        if (!part.done) return false;
        sampled.push(...part.value);
        break;
      }
    } catch (e) {
      this.#reading = null;
      throw e;
    }
    this.#reading = null;
    return true;
  }

  /** Pages of the cache: all of them, and those that nothing runs in and nobody was promised. */
  get cachePages(): { readonly all: number; readonly free: number; readonly pageTokens: number } {
    return { all: this.#cache.pages, free: this.#cache.freePages, pageTokens: PAGE_TOKENS };
  }
  /** What is taken now. */
  get usage(): SessionUsage {
    const { pages, usedPages, freePages } = this.#cache,
      kept = this.#prefixes.slots;
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      freeSlots: this.#free.length,
      pages,
      usedPages,
      freePages,
      keptPages: this.#cache.pagesOf(kept),
      prefixes: kept.length,
    };
  }
  /** Prompt tokens of a sequence that were in the cache before it began, and whether it has begun. */
  progress(sequence: Sequence): { readonly begun: boolean; readonly cached: number } {
    const { slot, prefilled, cached } = sequence as State;
    return { begun: slot >= 0 || prefilled > 0, cached };
  }
  /** Counts the whole cache as in use from now on. */
  commitCache(): void {
    this.#cache.commitAll();
  }

  /** Tokens of a sequence when it is over. */
  #mostTokens({ tokens, maxTokens }: SequenceOptions): number {
    return Math.min(tokens.length + maxTokens, this.capacity);
  }
  #begin(state: State): boolean {
    const slot = this.#free.at(-1);
    if (slot === undefined) return false;
    while (!this.#cache.promise(slot, this.#mostTokens(state.options))) if (!this.#prefixes.drop()) return false;
    state.slot = slot;
    this.#free.pop();
    return true;
  }
  /** The prompt as it is cut. */
  #cut({ options: { tokens }, cuts, adapter }: State): Cut {
    return { tokens, cuts, adapter };
  }
  /** Tokens of the next piece; takes a kept prefix first. It ends at the next cut, or where the prompt does. */
  #piece(state: State): number {
    const { tokens } = state.options;
    if (state.prefilled === 0 && state.cuts.length > 0)
      state.prefilled = state.cached = this.#prefixes.take(state.slot, this.#cut(state));
    const from = state.prefilled;
    return Math.min((state.cuts.find((c) => c > from) ?? tokens.length) - from, this.#prefillTokens);
  }
  *#prefill(state: State): Generator<void, readonly Sampled[]> {
    const { tokens } = state.options;
    const from = state.prefilled,
      n = this.#piece(state),
      to = from + n;
    const batch: Batch = {
      tokens: tokens.slice(from, to),
      positions: Int32Array.from({ length: n }, (_, i) => from + i),
      starts: Int32Array.of(0, n),
      slots: Int32Array.of(state.slot),
    };
    const last = to === tokens.length;
    const sampled = yield* this.#run(batch, state.adapter, last ? [state] : []);
    state.prefilled = to;
    // An answer of one token has given its slot back. Of the cuts, the first is many prompts' and the last the next's.
    if (state.slot >= 0 && (to === state.cuts[0] || to === state.cuts.at(-1)))
      this.#prefixes.keep(state.slot, this.#cut(state), to);
    return sampled;
  }

  /** One token of each: a pass, and one for each adapter that lies in no pool. */
  #decode(all: readonly State[]): readonly Sampled[] {
    const base = all.map((s) => s.adapter).find(isPooled)?.pool ?? null; // where those without an adapter go along
    const keyOf = ({ adapter }: State): StepAdapter => (isPooled(adapter) ? adapter.pool : (adapter ?? base));
    return [...new Set(all.map(keyOf))].flatMap((adapter) => {
      // Rows of one adapter side by side: they are one product in each op.
      const states = all.filter((s) => keyOf(s) === adapter).sort((a, b) => rowOf(a) - rowOf(b));
      const batch: Batch = {
        tokens: Int32Array.from(states, (s) => s.last),
        positions: Int32Array.from(states, (s) => this.#cache.length(s.slot)),
        starts: Int32Array.from({ length: states.length + 1 }, (_, i) => i),
        slots: Int32Array.from(states, (s) => s.slot),
      };
      const values = { ...valuesOf(states), adapterRows: Int32Array.from(states, rowOf) };
      const wishes = wishesOf(states);
      return this.#take(states, this.#steps.run(adapter, batch, values, wishes !== null), wishes);
    });
  }

  /** Runs the end of a prompt or a part before it, and samples a token for each of `states`: one, or none. */
  *#run(batch: Batch, adapter: ModelAdapter | null, states: readonly State[]): Generator<void, readonly Sampled[]> {
    using s = new Scope('workspace', placeOf(this.model));
    const { precision } = this.options,
      { params, u } = valuesOf(states);
    const rows = Int32Array.of(batch.tokens.length - 1);
    const hidden = yield* forwardLayers(s, this.model, adapter, batch, { precision, cache: this.#cache, rows });
    if (states.length === 0) return [];
    const tokens = s.empty('i32', [1]),
      logprobs = s.empty('f32', [1]);
    const z = logits(s, this.model, hidden, precision, true);
    ops.sample(tokens, logprobs, z, s.from(params, [1, 4]), s.from(u), null);
    const result = { tokens: tokens.read() as Int32Array, logprobs: logprobs.toFloat32(), logits: z };
    return this.#take(states, result, wishesOf(states));
  }
  #take(
    states: readonly State[],
    { tokens, logprobs, logits: rows }: StepResult,
    wishes: readonly (Wish | null)[] | null,
  ): readonly Sampled[] {
    return states.map((state, b) => {
      const plain = { token: tokens[b] as number, logprob: logprobs[b] as number };
      const wish = wishes?.[b] ?? null;
      const { token, logprob, top } = wish && rows ? this.#steered(state, wish, rows, b, plain) : { ...plain, top: [] };
      state.last = token;
      state.sampled++;
      state.options.steer?.took(token);
      const { stop, maxTokens } = state.options;
      const full = this.#cache.length(state.slot) >= this.capacity;
      const finish: Finish | null = stop.has(token) ? 'stop' : state.sampled >= maxTokens || full ? 'length' : null;
      if (finish) this.#release(state);
      return { sequence: state, token, logprob, finish, ...(top.length > 0 ? { top } : {}) };
    });
  }
  /** Takes a row's token again, as it is wished. @param plain what the row gave by itself */
  #steered(
    state: State,
    { mask, add, top }: Wish,
    rows: Tensor,
    b: number,
    plain: Candidate,
  ): Candidate & { readonly top: readonly Candidate[] } {
    using s = new Scope('workspace', placeOf(this.model));
    const row = rows.slice(s, b, b + 1);
    const raw = add || top > 0 ? row.toFloat32() : null;
    // log Σ exp of the row, as the op found it for the token that it took.
    const normal = raw ? (raw[plain.token] as number) - plain.logprob : 0;
    const told = raw ? largest(raw, top).map((t) => ({ token: t, logprob: Math.fround(raw[t]! - normal) })) : [];
    if (!mask && !add) return { ...plain, top: told };
    const { params, u } = valuesOf([state]);
    let from = row;
    if (raw && add) {
      const changed = raw.slice();
      for (const [token, by] of add) if (token < changed.length) changed[token] = changed[token]! + by;
      from = s.from(changed, [1, changed.length]);
    }
    const token = s.empty('i32', [1]),
      logprob = s.empty('f32', [1]);
    ops.sample(token, logprob, from, s.from(params, [1, 4]), s.from(u), mask ? s.from(mask, [1, mask.length]) : null);
    const taken = (token.read() as Int32Array)[0] as number;
    if (taken === plain.token) return { ...plain, top: told };
    const own = raw && add ? Math.fround(raw[taken]! - normal) : (logprob.toFloat32()[0] as number);
    return { token: taken, logprob: own, top: told };
  }
  #release(state: State): void {
    this.#running.splice(this.#running.indexOf(state), 1);
    this.#cache.reset(state.slot);
    this.#free.push(state.slot);
    state.slot = -1;
  }

  close(): void {
    this.#reading?.work.return([]);
    this.#reading = null;
    this.#steps.close();
    this.#cache.close();
    this.#running.length = 0;
    this.#waiting.length = 0;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

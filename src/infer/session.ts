// Sampling over the model: sequences share one KV cache, each prefills in pieces and then decodes together with the
// others. A synchronous stepper: whoever drives it (a worker, a test) decides what happens between two steps. Start
// reading at `step`.

import { DecodeSteps, type StepResult } from '../model/decode-step.js';
import { forwardHidden, logits } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { type Batch, type ModelAdapter, type ModelWeights, placeOf } from '../model/types.js';
import { ConfigError } from '../base/errors.js';
import { ops, type PRECISION } from '../native/ops.js';
import { Scope } from '../native/tensor.js';
import { uniform } from './random.js';

export interface Sampling {
  /** 0 takes the most probable token. */
  readonly temperature: number;
  /** 0: all tokens. */
  readonly topK: number;
  /** 1: all tokens. */
  readonly topP: number;
  /** 0: all tokens. */
  readonly minP: number;
  /** Integer in [0, 2^53). */
  readonly seed: number;
}
export const GREEDY: Sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, seed: 0 };

export interface SequenceOptions {
  /** Prompt, at least one token. */
  readonly tokens: Int32Array;
  /** Most tokens to sample. */
  readonly maxTokens: number;
  /** Sampling one of these ends the sequence; it is the last token. */
  readonly stop: ReadonlySet<number>;
  readonly sampling: Sampling;
  readonly adapter?: ModelAdapter | null;
  /**
   * Leading tokens that other sequences are likely to share (system and developer message, a policy): kept, and
   * computed once for all of them.
   */
  readonly sharedTokens?: number;
}
/** `length`: maxTokens or the cache is full. */
export type Finish = 'stop' | 'length';
/** One sampled token. logprob: log-softmax of the raw logits, nats. */
export interface Sampled {
  readonly sequence: Sequence;
  readonly token: number;
  readonly logprob: number;
  readonly finish: Finish | null;
}
/** Handle of a running sequence. */
export interface Sequence {
  readonly options: SequenceOptions;
}

interface State extends Sequence {
  /** −1 while waiting for a slot. */
  slot: number;
  /** Prompt tokens in the cache. */
  prefilled: number;
  sampled: number;
  last: number;
}

export interface SessionOptions {
  readonly precision: keyof typeof PRECISION;
  /** Sequences that run at once; more wait. */
  readonly slots: number;
  /** Most tokens of one sequence, prompt and answer. */
  readonly capacity: number;
  /** Prompt tokens per step: bounds the workspace and how long others wait. */
  readonly prefillTokens?: number;
  /** Shared prefixes that are kept, each in a slot of its own; the least recently used one makes room. */
  readonly prefixes?: number;
  /** Decode steps are recorded once and launched whole. Default: true. */
  readonly graphs?: boolean;
}
export const DEFAULT_PREFILL_TOKENS = 512;
/** Shorter prefixes are not worth a copy. */
const MIN_PREFIX_TOKENS = 32;

interface Prefix {
  readonly slot: number;
  readonly tokens: Int32Array;
  readonly adapter: ModelAdapter | null;
}

export class Session implements Disposable {
  readonly capacity: number;
  readonly #cache: KvCache;
  readonly #free: number[];
  readonly #waiting: State[] = [];
  readonly #running: State[] = [];
  readonly #prefillTokens: number;
  /** Least recently used first. */
  readonly #prefixes: Prefix[] = [];
  readonly #freePrefixSlots: number[];
  readonly #steps: DecodeSteps | null;

  constructor(
    readonly model: ModelWeights,
    readonly options: SessionOptions,
  ) {
    this.capacity = options.capacity;
    this.#prefillTokens = options.prefillTokens ?? DEFAULT_PREFILL_TOKENS;
    const prefixes = options.prefixes ?? 0;
    this.#cache = new KvCache(model.config, options.slots + prefixes, options.capacity, placeOf(model));
    this.#freePrefixSlots = Array.from({ length: prefixes }, (_, i) => options.slots + i);
    this.#steps =
      !model.streamsExperts && (options.graphs ?? true) ? new DecodeSteps(model, this.#cache, options.precision) : null;
    this.#free = Array.from({ length: options.slots }, (_, i) => options.slots - 1 - i);
  }

  /**
   * Queues a sequence.
   * @throws {ConfigError} prompt_empty, prompt_too_long, token_range
   */
  start(options: SequenceOptions): Sequence {
    const { tokens, maxTokens } = options;
    const V = this.model.config.vocab_size;
    if (tokens.length === 0) throw new ConfigError('prompt_empty', 'prompt: no tokens; wanted at least one');
    if (tokens.length >= this.capacity) {
      throw new ConfigError(
        'prompt_too_long',
        `prompt: ${tokens.length} tokens, the context holds ${this.capacity} with the answer; ` +
          'shorten the prompt or raise the context',
        { tokens: tokens.length, context: this.capacity },
      );
    }
    const bad = tokens.find((t) => t < 0 || t >= V);
    if (bad !== undefined)
      throw new ConfigError(
        'token_range',
        `prompt: token ${bad} is not in the model's vocabulary of ${V}; tokenizer and checkpoint ` +
          'do not belong together',
      );
    if (!(maxTokens >= 1)) throw new ConfigError('max_tokens', `maxTokens: got ${maxTokens}, wanted at least 1`);
    const state: State = { options, slot: -1, prefilled: 0, sampled: 0, last: -1 };
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
    const running = this.#running.indexOf(sequence as State);
    if (running >= 0) this.#release(this.#running[running] as State);
  }
  get idle(): boolean {
    return this.#waiting.length + this.#running.length === 0;
  }

  /** One forward pass: a piece of one prompt if any waits, else one token of every running sequence (per adapter). */
  step(): readonly Sampled[] {
    while (this.#free.length > 0 && this.#waiting.length > 0) {
      const state = this.#waiting.shift() as State;
      state.slot = this.#free.pop() as number;
      this.#cache.reset(state.slot);
      this.#running.push(state);
    }
    const prefilling = this.#running.find((s) => s.prefilled < s.options.tokens.length);
    if (prefilling) return this.#prefill(prefilling);
    const adapters = new Set(this.#running.map((s) => s.options.adapter ?? null));
    return [...adapters].flatMap((adapter) =>
      this.#decode(
        adapter,
        this.#running.filter((s) => (s.options.adapter ?? null) === adapter),
      ),
    );
  }

  #prefill(state: State): readonly Sampled[] {
    const { tokens, adapter } = state.options;
    // The last token is always run, as its row is what is sampled from.
    const shared = Math.min(state.options.sharedTokens ?? 0, tokens.length - 1);
    if (state.prefilled === 0) state.prefilled = this.#takePrefix(state, shared);
    const from = state.prefilled;
    const to = Math.min(from < shared ? shared : tokens.length, from + this.#prefillTokens);
    const n = to - from;
    const batch: Batch = {
      tokens: tokens.slice(from, to),
      positions: Int32Array.from({ length: n }, (_, i) => from + i),
      starts: Int32Array.of(0, n),
      slots: Int32Array.of(state.slot),
    };
    const last = to === tokens.length;
    const sampled = this.#forward(batch, adapter ?? null, Int32Array.of(n - 1), last ? [state] : []);
    state.prefilled = to;
    if (to === shared) this.#keepPrefix(state, shared);
    return sampled;
  }
  /**
   * Copies a kept prefix of `length` tokens into the sequence's slot. @returns tokens now in the cache: length, or 0 if
   * there is none
   */
  #takePrefix(state: State, length: number): number {
    const { tokens, adapter } = state.options;
    const at = this.#prefixes.findIndex(
      (p) => p.adapter === (adapter ?? null) && p.tokens.length === length && p.tokens.every((t, i) => t === tokens[i]),
    );
    const [prefix] = at >= 0 ? this.#prefixes.splice(at, 1) : [];
    if (!prefix) return 0;
    this.#prefixes.push(prefix);
    this.#cache.copy(prefix.slot, state.slot);
    return length;
  }
  #keepPrefix(state: State, length: number): void {
    if (length < MIN_PREFIX_TOKENS) return;
    const slot = this.#freePrefixSlots.pop() ?? this.#prefixes.shift()?.slot;
    if (slot === undefined) return;
    this.#cache.copy(state.slot, slot);
    this.#prefixes.push({
      slot,
      tokens: state.options.tokens.slice(0, length),
      adapter: state.options.adapter ?? null,
    });
  }
  #decode(adapter: ModelAdapter | null, states: readonly State[]): readonly Sampled[] {
    if (states.length === 0) return [];
    const B = states.length;
    const batch: Batch = {
      tokens: Int32Array.from(states, (s) => s.last),
      positions: Int32Array.from(states, (s) => this.#cache.length(s.slot)),
      starts: Int32Array.from({ length: B + 1 }, (_, i) => i),
      slots: Int32Array.from(states, (s) => s.slot),
    };
    return this.#forward(batch, adapter, null, states);
  }

  /** Runs the batch and samples one token for each of `states`, which stand for the wanted rows in order. */
  #forward(
    batch: Batch,
    adapter: ModelAdapter | null,
    rows: Int32Array | null,
    states: readonly State[],
  ): readonly Sampled[] {
    const params = Float32Array.from(
      states.flatMap(({ options: { sampling: p } }) => [p.temperature, p.topK, p.topP, p.minP]),
    );
    const u = Float32Array.from(states, (q) => uniform(q.options.sampling.seed, q.sampled));
    const recorded = this.#steps && rows === null;
    const drawn = recorded ? this.#steps.run(adapter, batch, params, u) : this.#draw(batch, adapter, rows, params, u);
    return this.#take(states, drawn);
  }
  /** Op by op. No sampling where `u` is empty. */
  #draw(
    batch: Batch,
    adapter: ModelAdapter | null,
    rows: Int32Array | null,
    params: Float32Array,
    u: Float32Array,
  ): StepResult {
    using s = new Scope('workspace', placeOf(this.model));
    const { precision } = this.options;
    const hidden = forwardHidden(s, this.model, adapter, batch, { precision, cache: this.#cache, rows });
    const B = u.length;
    if (B === 0) return { tokens: new Int32Array(0), logprobs: new Float32Array(0) };
    const tokens = s.empty('i32', [B]),
      logprobs = s.empty('f32', [B]);
    ops.sample(tokens, logprobs, logits(s, this.model, hidden, precision), s.from(params, [B, 4]), s.from(u), null);
    return { tokens: tokens.read() as Int32Array, logprobs: logprobs.toFloat32() };
  }
  #take(states: readonly State[], { tokens, logprobs }: StepResult): readonly Sampled[] {
    return states.map((state, b) => {
      const token = tokens[b] as number;
      state.last = token;
      state.sampled++;
      const { stop, maxTokens } = state.options;
      const full = this.#cache.length(state.slot) >= this.capacity;
      const finish: Finish | null = stop.has(token) ? 'stop' : state.sampled >= maxTokens || full ? 'length' : null;
      if (finish) this.#release(state);
      return { sequence: state, token, logprob: logprobs[b] as number, finish };
    });
  }
  #release(state: State): void {
    this.#running.splice(this.#running.indexOf(state), 1);
    this.#free.push(state.slot);
    state.slot = -1;
  }

  close(): void {
    this.#steps?.close();
    this.#cache.close();
    this.#running.length = 0;
    this.#waiting.length = 0;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

export interface Completion {
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  readonly finish: Finish;
}
/** Runs sequences to their end on the calling thread. @returns completions in the order of `requests` */
export function generateAll(
  session: Session,
  requests: readonly SequenceOptions[],
  signal?: AbortSignal,
): readonly Completion[] {
  const running = new Map(
    requests.map((request) => [
      session.start(request),
      { tokens: [] as number[], logprobs: [] as number[], finish: 'length' as Finish },
    ]),
  );
  try {
    while (!session.idle) {
      signal?.throwIfAborted();
      for (const { sequence, token, logprob, finish } of session.step()) {
        const out = running.get(sequence);
        if (!out) continue;
        out.tokens.push(token);
        out.logprobs.push(logprob);
        if (finish) out.finish = finish;
      }
    }
  } finally {
    for (const sequence of running.keys()) session.cancel(sequence);
  }
  return [...running.values()].map((o) => ({
    tokens: Int32Array.from(o.tokens),
    logprobs: Float32Array.from(o.logprobs),
    finish: o.finish,
  }));
}

// Prompts are read in pieces, each a pass by itself, that stops while streams go on: the piece is cut by the prompt
// alone, how much of it is done in a step by the time that streams may wait.
import type { StepResult } from '../model/decode-step.js';
import { forwardLayers, logits } from '../model/gpt-oss.js';
import type { KvCache } from '../model/kv-cache.js';
import { MeasuredPace } from '../model/pace.js';
import { type Batch, type ModelWeights, placeOf } from '../model/types.js';
import { ops, type PRECISION } from '../native/ops.js';
import { Scope } from '../native/tensor.js';
import type { Prefixes } from './prefixes.js';
import type { Sampled } from './sequence.js';
import { cutOf, type State, valuesOf } from './state.js';

export interface PromptPassOptions {
  readonly precision: keyof typeof PRECISION;
  /** Most tokens of a piece. */
  readonly tokens: number;
  /** Takes the first token of an answer. */
  readonly take: (state: State, result: StepResult) => readonly Sampled[];
}

/** Slices that the time beside streams is cut in: a step takes one of them too long at the most. */
const SLICES = 4;

export class PromptPass {
  readonly #pace = new MeasuredPace();
  /** A piece of a prompt, some of which is computed. */
  #reading: { readonly state: State; readonly work: Generator<void, readonly Sampled[]> } | null = null;

  constructor(
    readonly model: ModelWeights,
    readonly cache: KvCache,
    readonly prefixes: Prefixes,
    readonly options: PromptPassOptions,
  ) {}

  /** Tokens of the next piece; takes a kept prefix first. It ends at the next cut, or where the prompt does. */
  piece(state: State): number {
    const { tokens } = state.options;
    if (state.prefilled === 0 && state.cuts.length > 0)
      state.prefilled = state.cached = this.prefixes.take(state.slot, cutOf(state));
    const from = state.prefilled;
    return Math.min((state.cuts.find((c) => c > from) ?? tokens.length) - from, this.options.tokens);
  }
  /** Begins the next piece of a prompt; the one before is done. */
  begin(state: State): void {
    this.#reading = { state, work: this.#piece(state) };
  }
  /**
   * Goes on with the piece that was begun, until it is done or it is time; a slice of it at least.
   * @param beside streams wait meanwhile · @returns whether it is done
   */
  run(sampled: Sampled[], until: number, beside: boolean): boolean {
    if (!this.#reading) return true;
    const { work } = this.#reading;
    this.#pace.sliceMs = beside ? Math.max(0, until - performance.now()) / SLICES : Number.POSITIVE_INFINITY;
    try {
      for (let since = performance.now(); ; ) {
        const part = work.next(),
          now = performance.now();
        // The next slice takes as long as this one, more or less: streams do not wait for most of it.
        if (!part.done && now + (now - since) / 2 < until) {
          since = now;
          continue;
        }
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
  /** Gives up what was begun of a sequence, or, without one, whatever was. */
  drop(state: State | null = null): void {
    if (state !== null && this.#reading?.state !== state) return;
    this.#reading?.work.return([]);
    this.#reading = null;
  }

  *#piece(state: State): Generator<void, readonly Sampled[]> {
    const { tokens } = state.options;
    const from = state.prefilled,
      n = this.piece(state),
      to = from + n;
    const batch: Batch = {
      tokens: tokens.slice(from, to),
      positions: Int32Array.from({ length: n }, (_, i) => from + i),
      starts: Int32Array.of(0, n),
      slots: Int32Array.of(state.slot),
    };
    const sampled = yield* this.#pass(batch, state, to === tokens.length);
    state.prefilled = to;
    // An answer of one token has given its slot back. Of the cuts, the first is many prompts' and the last the next's.
    if (state.slot >= 0 && (to === state.cuts[0] || to === state.cuts.at(-1)))
      this.prefixes.keep(state.slot, cutOf(state), to);
    return sampled;
  }
  /** The end of a prompt gives a token, a part before it none. */
  *#pass(batch: Batch, state: State, last: boolean): Generator<void, readonly Sampled[]> {
    using s = new Scope('workspace', placeOf(this.model));
    const { precision, take } = this.options;
    const rows = Int32Array.of(batch.tokens.length - 1);
    const hidden = yield* forwardLayers(s, this.model, state.adapter, batch, {
      precision,
      cache: this.cache,
      rows,
      pace: this.#pace,
    });
    if (!last) return [];
    const { params, u } = valuesOf([{ state, ahead: 0 }]);
    const tokens = s.empty('i32', [1]),
      logprobs = s.empty('f32', [1]);
    const z = logits(s, this.model, hidden, precision, true);
    ops.sample(tokens, logprobs, z, s.from(params, [1, 4]), s.from(u), null);
    return take(state, { tokens: tokens.read() as Int32Array, logprobs: logprobs.toFloat32(), logits: z });
  }
}

// Prompts are read in pieces, each cut by its prompt alone and a pass by itself; short ends are read together with
// those that stand ready, whichever adapters they have, as rows that have the same bits in any company, and so are
// longer ones of one adapter whose answers are not waited for and what others grow from. How much of a pass is done in
// a step is decided by the time that streams may wait.
import { isUnsound, type StepResult } from '../model/decode-step.js';
import { cacheLayers, forwardLayers, MOE_CHUNK_TOKENS, pacedLogits } from '../model/gpt-oss.js';
import type { KvCache } from '../model/kv-cache.js';
import { MeasuredPace } from '../model/pace.js';
import { type Batch, isPooled, type MixedAdapters, type ModelWeights, placeOf } from '../model/types.js';
import { backendOf } from '../native/backends.js';
import { ops, type PRECISION } from '../native/ops.js';
import { Scope, type Tensor } from '../native/tensor.js';
import type { Prefixes } from './prefixes.js';
import type { Sampled } from './sequence.js';
import { MOST_DRAFTS } from './speculation.js';
import { cutOf, rowOf, type State, valuesOf } from './state.js';

export interface PromptPassOptions {
  readonly precision: keyof typeof PRECISION;
  /** Most tokens of a piece. */
  readonly tokens: number;
  /** What a prompt's answer may begin with: rows beside its end, where those have the bits that they have alone. */
  readonly begins: (state: State) => readonly number[];
  /** Takes the first tokens of an answer. @param row of the result: the end's, before those of what was guessed */
  readonly take: (state: State, result: StepResult, row: number, guesses: readonly number[]) => readonly Sampled[];
}

/** Slices that the time beside streams is cut in: a step takes one of them too long at the most. */
const SLICES = 4;

/** Rows that a product takes at a time where each has the bits that it has alone (native/cpu/matmul/matmul.h). */
const FEW_ROWS = 8;

/** Tokens [from, to) of a prompt. */
interface Piece {
  readonly state: State;
  readonly from: number;
  readonly to: number;
  /** Guesses of what comes after a prompt. */
  readonly guesses: readonly number[];
}
/** Its tokens, and those that are guessed. */
const tokensOf = ({ state, from, to, guesses }: Piece): readonly number[] => [
  ...state.options.tokens.subarray(from, to),
  ...guesses,
];
/** Whether it may have rows in a pass of several adapters. */
const mixes = ({ adapter }: State): boolean => adapter === null || isPooled(adapter);
const isLast = ({ state, to }: Piece): boolean => to === state.options.tokens.length;

export class PromptPass {
  readonly #pace = new MeasuredPace();
  /** Whether any number of rows may have bits that do not depend on their company. */
  readonly #together: boolean;
  /** Pieces of prompts, some of which are computed. */
  #reading: { readonly states: readonly State[]; readonly work: Generator<void, readonly Sampled[]> } | null = null;

  constructor(
    readonly model: ModelWeights,
    readonly cache: KvCache,
    readonly prefixes: Prefixes,
    readonly options: PromptPassOptions,
  ) {
    this.#together = backendOf(placeOf(model)).rowsAlone === null;
  }

  /** Tokens of the next piece; takes a kept prefix first. It ends at the next cut, or where the prompt does. */
  piece(state: State): number {
    const { tokens } = state.options;
    if (state.prefilled === 0 && state.cuts.length > 0)
      state.prefilled = state.cached = this.prefixes.take(state.slot, cutOf(state));
    const from = state.prefilled;
    return Math.min((state.cuts.find((c) => c > from) ?? tokens.length) - from, this.options.tokens);
  }
  /**
   * What the bits of a prompt's next piece are like: those that its rows have among many, or alone, which takes less
   * time where an expert gets few of them; null: it is read by itself, as is what others may go on from at its end.
   */
  #bits(state: State): 'many' | 'alone' | null {
    const { tokens, patient } = state.options,
      n = this.piece(state),
      to = state.prefilled + n;
    if (!this.#together) return null;
    if (this.#grows(state)) return 'many';
    if (to < tokens.length || state.cuts.at(-1) === to) return null;
    const { num_experts_per_tok: K, num_local_experts: E } = this.model.config;
    if (n * K < FEW_ROWS * E) return 'alone';
    return patient ? 'many' : null;
  }
  /** Whether its next piece is one that others go on from anywhere. */
  #grows({ options, cuts, prefilled }: State): boolean {
    return this.#together && options.growing === true && prefilled >= (cuts.at(-1) ?? 0);
  }
  /** Whether the next piece of a prompt may be read together with those of these. */
  joins(state: State, group: readonly State[]): boolean {
    const bits = this.#bits(state);
    if (bits === null || state.prefilled + this.piece(state) < state.options.tokens.length) return false;
    if (!group.every((of) => this.#bits(of) === bits)) return false;
    if (group.every((of) => of.adapter === state.adapter)) return true;
    const tokens = [state, ...group].reduce((sum, of) => sum + this.piece(of) + MOST_DRAFTS, 0);
    return bits === 'alone' && tokens <= MOE_CHUNK_TOKENS && [state, ...group].every(mixes);
  }
  /** Begins the next pieces of prompts; those before are done. */
  begin(states: readonly State[]): void {
    this.#reading = { states, work: this.#pieces(states) };
  }
  /** Those that are read together with a prompt; none: it is not being read. */
  with(state: State): readonly State[] {
    const { states = [] } = this.#reading ?? {};
    return states.includes(state) ? states : [];
  }
  /**
   * Goes on with the pass that was begun, until it is done or it is time; a slice of it at least.
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
  /** Gives up what was begun. */
  drop(): void {
    this.#reading?.work.return([]);
    this.#reading = null;
  }

  *#pieces(states: readonly State[]): Generator<void, readonly Sampled[]> {
    const pieces = states.map((state): Piece => {
      const to = state.prefilled + this.piece(state);
      return {
        state,
        from: state.prefilled,
        to,
        guesses: this.#bits(state) === 'alone' ? this.options.begins(state) : [],
      };
    });
    const sampled = yield* this.#pass(pieces);
    for (const { state, to } of pieces) {
      const grows = this.#grows(state);
      state.prefilled = to;
      // An answer of one token has given its slot back.
      // Of the cuts, the first is many prompts' and the last the next's.
      if (state.slot < 0) continue;
      if (to === state.cuts[0] || to === state.cuts.at(-1)) this.prefixes.keep(state.slot, cutOf(state), to);
      else if (grows && to === state.options.tokens.length) this.prefixes.keepGrowing(state.slot, cutOf(state));
    }
    return sampled;
  }
  /** The end of a prompt gives a token, a part before it none. */
  *#pass(pieces: readonly Piece[]): Generator<void, readonly Sampled[]> {
    using s = new Scope('workspace', placeOf(this.model));
    const { precision, take } = this.options,
      { state } = pieces[0] as Piece,
      bits = this.#bits(state),
      batch = batchOf(pieces);
    const asked = pieces.flatMap(({ state, guesses }, i) =>
      [...guesses.keys(), guesses.length].map((ahead) => ({
        state,
        ahead,
        row: (batch.starts[i + 1] ?? 0) - 1 - guesses.length + ahead,
      })),
    );
    // Rows alone are in the pool's pass by themselves too: its sums are its own.
    const mixed = bits === 'alone' ? mixedOf(s, pieces) : null,
      adapter = mixed ? null : state.adapter;
    // A layer of few rows takes no longer than a slice: where nobody waits it is not cut.
    const whole = bits === 'alone' && this.#pace.sliceMs === Number.POSITIVE_INFINITY;
    const options = {
      precision,
      mixed,
      cache: this.cache,
      byRow: bits === 'alone',
      amongMany: bits === 'many',
      pace: whole ? null : this.#pace,
    };
    // Only ends are read together.
    if (!pieces.every(isLast)) {
      yield* cacheLayers(this.model, adapter, batch, options);
      return [];
    }
    const hidden = yield* forwardLayers(s, this.model, adapter, batch, {
      ...options,
      rows: Int32Array.from(asked, ({ row }) => row),
    });
    const z = yield* pacedLogits(s, this.model, hidden, precision, options.pace);
    const result = sampleEach(s, z, valuesOf(asked));
    let first = 0;
    return pieces.flatMap(({ state, guesses }) => {
      const row = first;
      first += 1 + guesses.length;
      return take(state, result, row, guesses);
    });
  }
}

/** Of each row its token; rows that have none say so and leave the others theirs. */
function sampleEach(
  s: Scope,
  z: Tensor,
  { params, u }: { readonly params: Float32Array; readonly u: Float32Array },
): StepResult {
  const B = u.length,
    tokens = s.empty('i32', [B]),
    logprobs = s.empty('f32', [B]);
  try {
    ops.sample(tokens, logprobs, z, s.from(params, [B, 4]), s.from(u), null);
    return { tokens: tokens.read() as Int32Array, logprobs: logprobs.toFloat32(), logits: z };
  } catch (e) {
    if (!isUnsound(e)) throw e;
    if (B === 1)
      return { tokens: new Int32Array(1), logprobs: new Float32Array(1), logits: z, unsound: new Map([[0, e]]) };
  }
  const rows = Array.from(u, (_, b) =>
    sampleEach(s, z.slice(s, b, b + 1), { params: params.slice(4 * b, 4 * b + 4), u: u.slice(b, b + 1) }),
  );
  return {
    tokens: Int32Array.from(rows, (r) => r.tokens[0] ?? 0),
    logprobs: Float32Array.from(rows, (r) => r.logprobs[0] ?? 0),
    logits: z,
    unsound: new Map(rows.flatMap((r, b) => [...(r.unsound?.values() ?? [])].map((e) => [b, e] as const))),
  };
}

/** The adapters of all tokens, where any of them has one of a pool. */
function mixedOf(s: Scope, pieces: readonly Piece[]): MixedAdapters | null {
  const pool = pieces.map(({ state }) => state.adapter).find(isPooled)?.pool;
  if (!pool) return null;
  const rows = pieces.flatMap((piece) => tokensOf(piece).map(() => rowOf(piece.state)));
  return { pool, rows: s.from(Int32Array.from(rows)) };
}

function batchOf(pieces: readonly Piece[]): Batch {
  const tokens = pieces.map(tokensOf),
    starts = new Int32Array(pieces.length + 1);
  tokens.forEach((of, i) => {
    starts[i + 1] = (starts[i] ?? 0) + of.length;
  });
  return {
    tokens: Int32Array.from(tokens.flat()),
    positions: Int32Array.from(pieces.flatMap(({ from }, i) => (tokens[i] ?? []).map((_, n) => from + n))),
    starts,
    slots: Int32Array.from(pieces, ({ state }) => state.slot),
  };
}

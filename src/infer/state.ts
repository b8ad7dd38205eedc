// A sequence as a session knows it: how far its prompt is read, what it was given last.
import { isPooled, type ModelAdapter } from '../model/types.js';
import type { Cut } from './prefixes.js';
import { uniform } from './random.js';
import type { Job } from './scheduler.js';
import type { Sequence, SequenceOptions } from './sequence.js';
import type { Wish } from './steer.js';

export interface State extends Sequence, Job {
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

/** @param piece tokens of the next piece of its prompt */
export function createState(options: SequenceOptions, piece: (state: State) => number): State {
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
    piece: () => piece(state),
  };
  return state;
}
/** The prompt as it is cut. */
export const cutOf = ({ options: { tokens, sharedTokens = 0 }, cuts, adapter }: State): Cut => ({
  tokens,
  cuts,
  opening: Math.min(sharedTokens, tokens.length - 1),
  adapter,
});
/** Row of its adapter in the pool; −1: it lies in none. */
export const rowOf = ({ adapter }: State): number => (isPooled(adapter) ? adapter.row : -1);

/** Sampling of each: the parameters and the uniform number. */
export const valuesOf = (states: readonly State[]): { readonly params: Float32Array; readonly u: Float32Array } => ({
  params: Float32Array.from(states.flatMap(({ options: { sampling: p } }) => [p.temperature, p.topK, p.topP, p.minP])),
  u: Float32Array.from(states, (q) => uniform(q.options.sampling.seed, q.sampled)),
});
/** null: none of them is steered now. */
export function wishesOf(states: readonly State[]): readonly (Wish | null)[] | null {
  const wishes = states.map((q) => q.options.steer?.wish() ?? null);
  return wishes.some((w) => w !== null) ? wishes : null;
}

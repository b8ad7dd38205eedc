// A sequence as a session knows it: how far its prompt is read, what it was given last.
import { isPooled, type ModelAdapter } from '../model/types.js';
import type { Beginning } from './beginnings.js';
import { isOn } from './brake.js';
import type { Cut } from './prefixes.js';
import { uniform } from './random.js';
import type { Job } from './scheduler.js';
import type { Sampled, Sequence, SequenceOptions } from './sequence.js';
import type { Drafts, Outcome, Stream } from './speculation.js';
import type { Wish } from './steer.js';
import { Track } from './track.js';

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
  readonly track: Track;
}
/** A row of a pass: of each stream its last token, and after it guesses of those to come. */
export interface Row {
  readonly state: State;
  readonly token: number;
  /** Guesses up to it. */
  readonly ahead: number;
}

/** @param piece tokens of the next piece of its prompt · @param beginning what answers like its own began with */
export function createState(
  options: SequenceOptions,
  piece: (state: State) => number,
  beginning: Beginning | null,
): State {
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
    track: new Track(tokens, options.foreseen, beginning),
    get decoding() {
      return this.prefilled === options.tokens.length;
    },
    get held() {
      return options.brake !== undefined && isOn(options.brake);
    },
    piece: () => piece(state),
  };
  return state;
}
/** The prompt as it is cut. */
export const cutOf = ({ options: { tokens, sharedTokens = 0, growing = false }, cuts, adapter }: State): Cut => ({
  tokens,
  cuts,
  opening: Math.min(sharedTokens, tokens.length - 1),
  adapter,
  growing,
});
/** @param drafts guesses of each */
export function rowsOf(states: readonly State[], drafts: Drafts): readonly Row[] {
  const rows: Row[] = [];
  states.forEach((state, i) => {
    rows.push({ state, token: state.last, ahead: 0 });
    let ahead = 0;
    for (const token of drafts[i] ?? []) rows.push({ state, token, ahead: ++ahead });
  });
  return rows;
}
/** What came of a stream's guesses. */
export const outcomeOf = (told: readonly Sampled[], drafts: readonly number[]): Outcome => ({
  tokens: told.length,
  missed: told.length <= drafts.length && told.at(-1)?.finish === null,
});
/** Row of its adapter in the pool; −1: it lies in none. */
export const rowOf = ({ adapter }: State): number => (isPooled(adapter) ? adapter.row : -1);

const paramsOf = ({ options: { sampling: p } }: State): readonly number[] => [p.temperature, p.topK, p.topP, p.minP];
const uniformOf = ({ options, sampled }: State, later: number): number =>
  uniform(options.sampling.seed, sampled + later);
/** Sampling of each row: the parameters and the uniform number. */
export const valuesOf = (
  rows: readonly Pick<Row, 'state' | 'ahead'>[],
): { readonly params: Float32Array; readonly u: Float32Array } => {
  const params = new Float32Array(4 * rows.length),
    u = new Float32Array(rows.length);
  rows.forEach(({ state, ahead }, i) => {
    const { temperature, topK, topP, minP } = state.options.sampling;
    params[4 * i] = temperature;
    params[4 * i + 1] = topK;
    params[4 * i + 2] = topP;
    params[4 * i + 3] = minP;
    u[i] = uniformOf(state, ahead);
  });
  return { params, u };
};
/** A stream as guesses are made for it. @param room tokens that the cache has left for it */
export const streamOf = (state: State, room: number): Stream => ({
  track: state.track,
  slot: state.slot,
  room: Math.min(room - 1, state.options.maxTokens - state.sampled - 1),
  params: paramsOf(state),
  uniform: (later) => uniformOf(state, later),
});
/** null: none of them is steered now. */
export function wishesOf(states: readonly State[]): readonly (Wish | null)[] | null {
  const wishes = states.map((q) => q.options.steer?.wish() ?? null);
  return wishes.some((w) => w !== null) ? wishes : null;
}

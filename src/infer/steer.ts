// What decides beside the sampling parameters which token comes next: a mask, numbers added to logits. Pure but for the
// sequence's own history; session.ts applies it.
import type { Tokenizer } from '../harmony/types.js';

/** Of one token to come. */
export interface Wish {
  /** Bit v%32 of word v/32 set: allowed. null: all are. */
  readonly mask: Int32Array | null;
  /** Added to the raw logits, by token. */
  readonly add: ReadonlyMap<number, number> | null;
  /** So many of the most probable tokens are told. */
  readonly top: number;
}
/** Of one sequence. */
export interface Steer {
  /** Asked before each token. null: it is sampled as if nobody steered, to the bit. */
  wish(): Wish | null;
  /** Told of each token. */
  took(token: number): void;
}
/** What allows tokens, as the grammar of a turn does. */
export interface Constraint {
  /** null: all of them. The words are the constraint's own, good until the next call. */
  mask(): Int32Array | null;
  took(token: number): void;
}

export interface SteerOptions {
  /** Added to the logit of a token. */
  readonly bias?: ReadonlyMap<number, number> | undefined;
  /** Taken off once for a token that the turn's text has, and once for each time it has it. */
  readonly presencePenalty?: number | undefined;
  readonly frequencyPenalty?: number | undefined;
  readonly top?: number | undefined;
  readonly constraint?: Constraint | undefined;
  /** All of it is text, without messages. */
  readonly plain?: boolean | undefined;
}

/**
 * Penalties count the tokens of message bodies, analysis included; control tokens and headers are structure and not
 * counted.
 * @returns null: there is nothing to steer
 */
export function createSteer(tokenizer: Tokenizer, options: SteerOptions): Steer | null {
  const { bias = new Map<number, number>(), presencePenalty = 0, frequencyPenalty = 0, top = 0, constraint } = options;
  const penal = presencePenalty !== 0 || frequencyPenalty !== 0;
  if (bias.size === 0 && !penal && top === 0 && !constraint) return null;
  const add = new Map(bias);
  const counts = new Map<number, number>();
  const opens = tokenizer.special['<|message|>'];
  let inBody = options.plain === true;
  return {
    wish() {
      const mask = constraint?.mask() ?? null;
      if (mask === null && add.size === 0 && top === 0) return null;
      return { mask, add: add.size === 0 ? null : add, top };
    },
    took(token) {
      constraint?.took(token);
      if (tokenizer.isSpecial(token)) {
        inBody = token === opens;
        return;
      }
      if (!inBody || !penal) return;
      const count = (counts.get(token) ?? 0) + 1;
      counts.set(token, count);
      add.set(token, (bias.get(token) ?? 0) - presencePenalty - frequencyPenalty * count);
    },
  };
}

/** The n largest, falling; of equal ones the lower place first. NaN is never among them. */
export function largest(values: Float32Array, n: number): readonly number[] {
  if (n === 0) return [];
  const found: number[] = [];
  let least = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const x = values[i]!;
    if (!(found.length < n ? x > -Infinity : x > least)) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]!]! < x) at--;
    found.splice(at, 0, i);
    if (found.length > n) found.pop();
    if (found.length === n) least = values[found[n - 1]!]!;
  }
  return found;
}

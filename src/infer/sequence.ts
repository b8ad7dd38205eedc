// What a session is asked for and what it answers: prompts, sampling, sampled tokens.
import { ConfigError } from '../base/errors.js';
import type { ModelAdapter } from '../model/types.js';
import type { Steer } from './steer.js';

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

/** @throws {ConfigError} sampling_range */
export function checkSampling(s: Sampling): void {
  const check = (name: keyof Sampling, ok: boolean, wanted: string): void => {
    if (!ok) throw new ConfigError('sampling_range', `${name}: got ${s[name]}, wanted ${wanted}`);
  };
  check('temperature', s.temperature >= 0 && s.temperature <= 100, 'a number from 0 to 100');
  check('topK', Number.isInteger(s.topK) && s.topK >= 0, 'an integer from 0 (all)');
  check('topP', s.topP > 0 && s.topP <= 1, 'a number above 0, at most 1 (all)');
  check('minP', s.minP >= 0 && s.minP < 1, 'a number from 0 (all) below 1');
  check('seed', Number.isSafeInteger(s.seed) && s.seed >= 0, 'an integer from 0 below 2^53');
}

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
  /** Decides beside the sampling; null or absent: nobody does. */
  readonly steer?: Steer | null;
  /**
   * Later places, ascending, up to the prompt's end: others that begin with the same tokens and cuts may go on from
   * there. The prompt is computed in pieces that end at its cuts, whether they are kept or not.
   */
  readonly cuts?: readonly number[];
  /** What the answer is thought to be like: guesses are taken from it too, and no token depends on it. */
  readonly foreseen?: Int32Array | undefined;
  /** Its tokens may wait while prompts are read, and its prompt's end be read with those of others. */
  readonly patient?: boolean;
  /**
   * Other prompts go on from the end of this one, but for its last tokens: what stands after its cuts has the bits that
   * rows have among many, in any piece, so that they may go on from any place. For patient ones.
   */
  readonly growing?: boolean;
  /** It gets no token while this one is on (brake.ts), unless others wait for its room. */
  readonly brake?: Int32Array | undefined;
}

/** @throws {ConfigError} prompt_empty, prompt_too_long, token_range, max_tokens */
export function checkSequence({ tokens, maxTokens }: SequenceOptions, capacity: number, vocabSize: number): void {
  if (tokens.length === 0) throw new ConfigError('prompt_empty', 'prompt: no tokens; wanted at least one');
  if (tokens.length >= capacity) {
    throw new ConfigError(
      'prompt_too_long',
      `prompt: ${tokens.length} tokens, the context holds ${capacity} with the answer; ` +
        'shorten the prompt or raise the context',
      { tokens: tokens.length, context: capacity },
    );
  }
  const bad = tokens.find((t) => t < 0 || t >= vocabSize);
  if (bad !== undefined)
    throw new ConfigError(
      'token_range',
      `prompt: token ${bad} is not in the model's vocabulary of ${vocabSize}; tokenizer and checkpoint ` +
        'do not belong together',
    );
  if (!(maxTokens >= 1)) throw new ConfigError('max_tokens', `maxTokens: got ${maxTokens}, wanted at least 1`);
}

/** `length`: maxTokens or the cache is full. */
export type Finish = 'stop' | 'length';
/** Handle of a running sequence. */
export interface Sequence {
  readonly options: SequenceOptions;
}
/** A token that could have come, and its log-softmax of the raw logits. */
export interface Candidate {
  readonly token: number;
  readonly logprob: number;
}
/** One sampled token. logprob: log-softmax of the raw logits, nats. */
export interface Sampled {
  readonly sequence: Sequence;
  readonly token: number;
  readonly logprob: number;
  readonly finish: Finish | null;
  /** The most probable ones, falling, as many as were wished for. */
  readonly top?: readonly Candidate[];
}

// What a session is opened with, and what of it is taken.
import type { ModelWeights } from '../model/types.js';
import type { PRECISION } from '../native/ops.js';
import type { SpeculationOptions } from './speculation.js';

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
  /** Since it was opened: tokens that were guessed, and those of them that came. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
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
   * A piece of a prompt stops when it has taken its share of the time of the streams beside it (scheduler.ts), and goes
   * on in the next step. Bits stay. Default: false, a step ends with its pieces.
   */
  readonly yields?: boolean;
  /** Decode steps are recorded once and launched whole. Default: true. */
  readonly graphs?: boolean;
  /** Next tokens are guessed and several checked in one pass; no bit depends on it. Absent: they are not. */
  readonly speculation?: Omit<SpeculationOptions, 'mostRows'> | null;
  /** Guesses too, where nothing like it was written before: a smaller model of the same vocabulary. */
  readonly draft?: ModelWeights | null;
  /** Whether a core that steps are computed on has other work just now, which short steps then leave it to. */
  readonly crowded?: () => boolean;
}
export const DEFAULT_PREFILL_TOKENS = 512;

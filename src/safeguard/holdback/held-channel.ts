// One channel of an answer under way: its text as it is judged, where it may be cut, and how far it was allowed.
import type { ScreenResult } from '../screen.js';

/** So many beginnings are judged one sentence after the other; then each must be longer by a share of what was. */
const FREE_CALLS = 12;
const GROWTH = 1 / 12;
/** More are not judged: the rest waits for the whole. */
export const MOST_CALLS = 96;
/** Beginnings that could not be judged; then the rest waits for the whole. */
const MOST_UNJUDGED = 2;
/** Where sentences may be kept for the next: for so long, ms, and two at the first, as nothing has left then. */
const KEPT_MS = 20;
const FIRST = 2;
/** Later a next one is waited for while with it such a share of what is written would have been judged. */
const SHARE = 0.6;

/** A beginning that is being judged. */
export interface Judging {
  readonly at: number;
  readonly stop: AbortController;
  readonly over: Promise<void>;
}

export class HeldChannel {
  /** As `transcript` has it. */
  text = '';
  /** Where it may be cut, rising. */
  readonly cuts: number[] = [];
  /** Length of the beginning that may leave: every policy allowed it, and its verdicts are logged. */
  approved = 0;
  /** Of the longest beginning that was judged. */
  judged = 0;
  calls = 0;
  unjudged = 0;
  judging: Judging | null = null;
  /** Sentences that ended since a verdict was last asked for, and when the first of them did, ms. */
  #fresh = 0;
  #since = 0;
  /** Of the last sentence: its characters, and how long it was written, ms. */
  #size = 0;
  #wroteMs = 0;
  /** Since when the next one is written, ms. */
  #from: number | null = null;
  /** The last that was said of it. */
  result: ScreenResult | null = null;
  /** All of it is allowed. */
  allowed = false;
  blocked = false;
  /** Of the shortest beginning that is known to be blocked. */
  blockedAt = 0;
  /** A notice stands in its place. */
  noticed = false;

  constructor(readonly label: string) {}

  /** The beginning that is worth a verdict now; null: none is. What came while one was judged goes with the next. */
  get next(): number | null {
    const at = this.cuts.at(-1) ?? 0;
    if (at <= this.judged || this.judging !== null || this.blocked) return null;
    if (this.calls >= MOST_CALLS || this.unjudged >= MOST_UNJUDGED) return null;
    return this.calls < FREE_CALLS || at >= this.judged * (1 + GROWTH) ? at : null;
  }
  /** Text is about to be added. @param now ms */
  write(now: number): void {
    this.#from ??= now;
  }
  /** @param now ms */
  cut(at: number, now: number): void {
    const before = this.cuts.at(-1) ?? 0;
    if (at <= before) return;
    this.cuts.push(at);
    if (this.#fresh++ === 0) this.#since = now;
    this.#size = at - before;
    this.#wroteMs = now - (this.#from ?? now);
    this.#from = now;
  }
  /** All up to the last cut is being judged from now on. */
  asked(judging: Judging): void {
    this.judging = judging;
    this.#fresh = 0;
  }
  /** A verdict came, which the text may have waited for. */
  answered(): void {
    this.judging = null;
    this.#from = null;
  }
  /**
   * For how long what is worth a verdict may be kept for the next sentence, which then shares it, ms; 0: not at all, as
   * where the next one is not likely to come in that time.
   */
  patience(now: number): number {
    const withNext = (this.cuts.at(-1) ?? 0) + this.#size;
    const few = this.judged === 0 ? this.#fresh < FIRST : withNext * SHARE <= this.judged;
    return few && this.#wroteMs <= KEPT_MS ? Math.max(0, this.#since + KEPT_MS - now) : 0;
  }
}

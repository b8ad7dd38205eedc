// One channel of an answer under way: its text as it is judged, where it may be cut, and how far it was allowed.
import type { ScreenResult } from '../screen.js';

/** So many beginnings are judged one sentence after the other; then each must be longer by a share of what was. */
const FREE_CALLS = 12;
const GROWTH = 1 / 12;
/** More are not judged: the rest waits for the whole. */
export const MOST_CALLS = 96;
/** Beginnings that could not be judged; then the rest waits for the whole. */
const MOST_UNJUDGED = 2;

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
  cut(at: number): void {
    if (at > (this.cuts.at(-1) ?? 0)) this.cuts.push(at);
  }
}

// Where verdicts are put on record before anything leaves by them. Whoever releases text appends first and waits: where
// that rejects, nothing of it may leave.
import type { Verdict } from './types.js';

/** What is done with what was judged; apart from the verdict, as a shadow releases what is blocked. */
export type VerdictAction = 'release' | 'withhold' | 'hold' | 'shadow' | 'report';
export interface VerdictEntry {
  readonly verdicts: readonly Verdict[];
  /** `report`: a verdict is all that comes of it, as in a batch. */
  readonly action: VerdictAction;
  /**
   * What it is about, in words of the operator's: model, adapter, API, row. Never anything that a model or user wrote.
   */
  readonly subject?: Readonly<Record<string, string | number | boolean | null>>;
}
export interface VerdictSink {
  /**
   * Resolves when the entry is durable; many at once cost little more than one.
   * @returns what names it, and binds its content
   * @throws {ScreeningError} log_failed: it is not recorded, and nothing may leave by it
   */
  append(entry: VerdictEntry): Promise<{ readonly receipt: string }>;
}

// Verdicts as they are counted: of a batch that is judged, and of parts that are joined.
import { type Agreement, AgreementCount, type VerdictRow } from '../agreement.js';
import { isDetectorVerdict } from '../detectors/index.js';
import type { ScreenResult } from '../screen.js';
import type { UnjudgedCause, Verdict } from '../types.js';
import type { ScreenRow } from './row.js';

export interface BatchSummary {
  readonly rows: number;
  readonly verdicts: number;
  readonly allow: number;
  readonly block: number;
  readonly unjudged: number;
  readonly causes: Readonly<Record<string, number>>;
  /** One `detail` for each cause: the first. */
  readonly samples: Readonly<Record<string, string>>;
  /** Verdicts that a run before had reached and this one did not ask for again. */
  readonly kept: number;
  /** Of these, those that other runs had put into a store; absent: there is none. */
  readonly shared?: number;
  /** Rows that were passed over, as the column of their text is empty. */
  readonly blank: number;
  /** Overall and by channel, over the verdicts with an expectation; absent if there is none. */
  readonly agreement?: { readonly all: Agreement } & Readonly<Record<string, Agreement>>;
}

/** Nothing came back from the judge. */
const UNANSWERED: readonly UnjudgedCause[] = [
  'bad_row',
  'no_policy',
  'no_content',
  'timeout',
  'aborted',
  'unreachable',
  'http_status',
  'judge_error',
];

/** A verdict of a row as it is written, before its own fields. @param sharded it says which row it is of */
export function headOf(row: ScreenRow, verdict: Verdict, sharded: boolean): Omit<VerdictRow, keyof Verdict> {
  // Reviewers speak of policies, of a detector only where they name it.
  const own = row.policy === null ? !isDetectorVerdict(verdict) : row.policy === verdict.policy;
  const expected = own && Object.hasOwn(row.expect, verdict.channel) ? row.expect[verdict.channel] : undefined;
  const head: Head =
    sharded && row.row !== undefined ? { row: row.row, id: row.id, line: row.line } : { id: row.id, line: row.line };
  if (row.file !== undefined) head.file = row.file;
  if (expected !== undefined) head.expect = expected;
  return head;
}
type Head = { -readonly [K in keyof Omit<VerdictRow, keyof Verdict>]: VerdictRow[K] };

/**
 * What stands for the verdicts on a row that could not be read. It says which rule of form it breaks, never its text.
 */
export function badResult(row: ScreenRow): ScreenResult {
  const verdict: Verdict = {
    outcome: 'unjudged',
    policy: '',
    channel: '',
    rule: null,
    rationale: '',
    cause: 'bad_row',
    detail: `the row cannot be read (${row.bad?.code ?? 'bad_row'}); without --on-bad-row the first such row is told`,
    digests: { policy: '', content: '', judge: '' },
    latencyMs: 0,
  };
  return { outcome: 'unjudged', channels: {}, verdicts: [verdict] };
}

/** Most causes there are; what a file holds beyond them is not counted one by one. */
const MOST_CHANNELS = 1000;

export class Tally {
  readonly causes: Record<string, number> = {};
  readonly samples: Record<string, string> = {};
  readonly count = { allow: 0, block: 0, unjudged: 0 };
  readonly #all = new AgreementCount();
  readonly #byChannel = new Map<string, AgreementCount>();
  rows = 0;
  verdicts = 0;
  /** Verdicts that the judge answered for, off the contract or not: what was paid for. */
  answered = 0;

  add(verdict: Verdict, expect: string | null | undefined): void {
    this.verdicts++;
    this.count[verdict.outcome]++;
    if (!isDetectorVerdict(verdict) && (verdict.cause === null || !UNANSWERED.includes(verdict.cause))) this.answered++;
    if (verdict.cause) {
      this.causes[verdict.cause] = (this.causes[verdict.cause] ?? 0) + 1;
      this.samples[verdict.cause] ??= verdict.detail;
    }
    if (expect === undefined) return;
    const { channel, outcome, rule } = verdict;
    const counted = { expect, outcome, rule };
    this.#all.add(counted);
    const own = this.#byChannel.get(channel) ?? new AgreementCount();
    if (this.#byChannel.size < MOST_CHANNELS) this.#byChannel.set(channel, own);
    own.add(counted);
  }

  summary(kept: number, blank: number): BatchSummary {
    const { rows, verdicts, count, causes, samples } = this;
    const byChannel = Object.fromEntries([...this.#byChannel].map(([channel, own]) => [channel, own.result()]));
    return {
      rows,
      verdicts,
      ...count,
      causes,
      samples,
      kept,
      blank,
      ...(this.#all.counted > 0 ? { agreement: { ...byChannel, all: this.#all.result() } } : {}),
    };
  }
}

/** 10 if anything is blocked, else 30 if anything is unjudged, else 0. */
export const batchExitCode = (summary: Pick<BatchSummary, 'block' | 'unjudged'>): 0 | 10 | 30 =>
  summary.block > 0 ? 10 : summary.unjudged > 0 ? 30 : 0;

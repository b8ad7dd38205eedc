// Verdicts as they fall: written in the order of the rows, and counted.
import type { FileHandle } from 'node:fs/promises';
import { ConfigError } from '../../base/errors.js';
import { type Agreement, agreementOf, type VerdictRow } from '../agreement.js';
import { isDetectorVerdict } from '../detectors/index.js';
import type { ScreenResult } from '../screen.js';
import type { UnjudgedCause } from '../types.js';
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
  /** Rows that were passed over, as the column of their text is empty. */
  readonly blank: number;
  /** Overall and by channel, over the verdicts with an expectation; absent if there is none. */
  readonly agreement?: { readonly all: Agreement } & Readonly<Record<string, Agreement>>;
}

export const unwritable = (output: string, cause: unknown): ConfigError =>
  new ConfigError(
    'output_unwritable',
    `${output}: cannot be written (${(cause as NodeJS.ErrnoException).code ?? 'error'}); choose another --out`,
    { file: output },
    { cause },
  );

/** Nothing came back from the judge. */
const UNANSWERED: readonly UnjudgedCause[] = [
  'no_policy',
  'no_content',
  'timeout',
  'aborted',
  'unreachable',
  'http_status',
  'judge_error',
];

/** Writes verdicts as rows settle, and counts them. */
export class Tally {
  readonly causes: Record<string, number> = {};
  readonly samples: Record<string, string> = {};
  readonly count = { allow: 0, block: 0, unjudged: 0 };
  readonly judged: VerdictRow[] = [];
  rows = 0;
  verdicts = 0;
  /** Verdicts that the judge answered for, off the contract or not: what was paid for. */
  answered = 0;

  constructor(
    readonly out: FileHandle,
    readonly output: string,
    readonly part: string,
    readonly onVerdict: ((row: VerdictRow) => void) | undefined,
  ) {}

  async add(row: ScreenRow, result: ScreenResult): Promise<void> {
    for (const verdict of result.verdicts) {
      // Reviewers speak of policies, of a detector only where they name it.
      const own = row.policy === null ? !isDetectorVerdict(verdict) : row.policy === verdict.policy;
      const expected = own && Object.hasOwn(row.expect, verdict.channel) ? row.expect[verdict.channel] : undefined;
      const line: VerdictRow = {
        id: row.id,
        line: row.line,
        ...(expected === undefined ? {} : { expect: expected }),
        ...verdict,
      };
      await this.out.write(`${JSON.stringify(line)}\n`).catch((cause: unknown) => {
        throw unwritable(this.output, cause);
      });
      this.onVerdict?.(line);
      this.verdicts++;
      this.count[verdict.outcome]++;
      if (!isDetectorVerdict(verdict) && (verdict.cause === null || !UNANSWERED.includes(verdict.cause)))
        this.answered++;
      if (verdict.cause) {
        this.causes[verdict.cause] = (this.causes[verdict.cause] ?? 0) + 1;
        this.samples[verdict.cause] ??= verdict.detail;
      }
      if (expected !== undefined) this.judged.push({ ...line, rationale: '' });
    }
    this.rows++;
  }

  summary(kept: number): BatchSummary {
    const { rows, verdicts, count, causes, samples, judged } = this;
    const byChannel = Object.fromEntries(
      [...new Set(judged.map((v) => v.channel))].map((channel) => [
        channel,
        agreementOf(judged.filter((v) => v.channel === channel)),
      ]),
    );
    return {
      rows,
      verdicts,
      ...count,
      causes,
      samples,
      kept,
      blank: 0,
      ...(judged.length > 0 ? { agreement: { ...byChannel, all: agreementOf(judged) } } : {}),
    };
  }
}

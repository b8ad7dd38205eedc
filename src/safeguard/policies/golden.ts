// The golden set of a policy: texts whose verdict is known. Beside the policy as golden.jsonl, or any file with
// columns.
import { lstatSync } from 'node:fs';
import { sha256 } from '../../base/digest.js';
import { DataError } from '../../base/errors.js';
import { type Columns, checkColumns, nothingPassed, readColumns } from '../batch/columns.js';
import { readRows } from '../batch/read.js';
import type { ScreenRow } from '../batch/row.js';
import { goldenPath } from '../policy.js';
import type { Policy } from '../types.js';

export interface GoldenCase {
  readonly id: string;
  /** Of the file, from 1. */
  readonly line: number;
  readonly channel: string;
  readonly text: string;
  /** A rule of the policy, a category of rules, or a word such as `unsafe` for any; null: nothing is broken. */
  readonly expect: string | null;
}
export interface Golden {
  readonly file: string;
  readonly cases: readonly GoldenCase[];
  /** sha256 over channel, text and expectation of each case in order, hex. */
  readonly digest: string;
}
export interface GoldenSource {
  /** Absent: beside the policy. */
  readonly file?: string | undefined;
  readonly columns?: Columns | undefined;
  readonly signal?: AbortSignal | undefined;
}

const casesOf = (row: ScreenRow): GoldenCase[] =>
  Object.entries(row.channels).flatMap(([channel, text]): GoldenCase[] => {
    const expect = row.expect[channel];
    return expect === undefined ? [] : [{ id: row.id, line: row.line, channel, text, expect }];
  });

/** The cases of a policy; null if there is no file beside it. @throws {DataError} a bad row, no case in a given file */
export async function readGolden(policy: Policy, path: string, source: GoldenSource = {}): Promise<Golden | null> {
  const file = source.file ?? goldenPath(path);
  if (source.file === undefined && !lstatSync(file, { throwIfNoEntry: false })) return null;
  const rows: ScreenRow[] = [];
  if (source.columns) {
    const passed = nothingPassed(source.columns);
    for await (const row of readColumns(file, source.columns, [policy], passed, { signal: source.signal }))
      rows.push(row);
    if (rows.length > 0) checkColumns([file], passed);
  } else rows.push(...(await readRows(file)));
  const cases = rows.filter((row) => row.policy === null || row.policy === policy.name).flatMap(casesOf);
  if (cases.length === 0 && source.file !== undefined)
    throw new DataError(
      'no_rows',
      `${file}: no row says what is expected of policy ${policy.name}; ` +
        'wanted rows with "expect", or --expect-column NAME',
      { file },
    );
  return {
    file,
    cases,
    digest: sha256(JSON.stringify(cases.map(({ channel, text, expect }) => [channel, text, expect]))),
  };
}

/** Whether a verdict's rule is the one that was expected, a case of it, or any where no rule was named. */
export const isExpectedRule = (rule: string | null, expect: string | null, rules: readonly string[]): boolean =>
  rule !== null &&
  expect !== null &&
  (rule === expect || rule.startsWith(`${expect}.`) || !rules.some((r) => r === expect || r.startsWith(`${expect}.`)));

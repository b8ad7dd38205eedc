// The rows of an input, ours or others' by their columns, and the check of all of them before the judge is asked.
import { DataError } from '../../base/errors.js';
import type { Screen } from '../screen.js';
import { type Columns, type Passed, readColumns } from './columns.js';
import { readLines } from './lines.js';
import { parseRow, type ScreenRow } from './row.js';

/** All rows of a small file, such as a golden set. @throws {DataError} a bad row, no file */
export async function readRows(file: string): Promise<readonly ScreenRow[]> {
  const rows: ScreenRow[] = [];
  for await (const { line, text } of readLines(file)) rows.push(parseRow(file, line, text));
  return rows;
}

export interface RowsOptions {
  readonly input: string;
  /** Which columns to read where rows are not ours; files may then be CSV, Parquet and others. */
  readonly columns?: Columns;
  readonly screen: Screen;
  readonly signal?: AbortSignal;
}
export async function* rowsOf(
  { input, columns, screen, signal }: RowsOptions,
  passed: Passed,
): AsyncGenerator<ScreenRow> {
  if (columns) yield* readColumns(input, columns, screen.policies, passed, signal);
  else for await (const { line, text } of readLines(input)) yield parseRow(input, line, text);
}

/**
 * Reads every row, so that a bad one costs no call of the judge. @returns how many there are
 * @throws {DataError} a bad row, none, no file
 */
export async function checkRows(options: RowsOptions): Promise<{ readonly rows: number; readonly blank: number }> {
  const { input, columns, signal } = options;
  const passed: Passed = { blank: 0 };
  let rows = 0;
  for await (const _ of rowsOf(options, passed)) {
    signal?.throwIfAborted();
    rows++;
  }
  if (rows === 0)
    throw new DataError(
      'no_rows',
      columns
        ? `${input}: no row has text in column ${JSON.stringify(columns.text)}`
        : `${input}: no rows; wanted one JSON object per line`,
      { file: input },
    );
  return { rows, blank: passed.blank };
}

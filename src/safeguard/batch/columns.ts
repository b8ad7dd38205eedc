// Rows that are not ours: which of their columns are text, channel, id and what a reviewer says. Read from CSV, and
// from whatever training data is read from: JSON lines and arrays, Parquet, Arrow, also packed.
import { z } from 'zod';
import { DataError, type ErrorCode } from '../../base/errors.js';
import { hasLoneSurrogate, hasProto } from '../../base/json.js';
import type { Channels } from '../screen.js';
import { transcript } from '../transcript.js';
import type { Policy } from '../types.js';
import { isCsv, readCsv } from './csv.js';
import { badRow, isRoundedId, ROUNDED_ID, type ScreenRow } from './row.js';
import { RowMessage, written } from './written.js';

export interface Columns {
  /** Names; of a CSV file also numbers from 1, for files whose first line names nothing. */
  readonly text: string;
  readonly channel?: string;
  readonly id?: string;
  /** The rule that is broken, or what says that none is. */
  readonly expect?: string;
}
/** What there is to say of all rows of all files. */
export interface Passed {
  /** Rows that were passed over, as they have no text. */
  blank: number;
  /** Columns beside the text's that no row had so far. */
  readonly absent: Set<string>;
}
export const nothingPassed = ({ channel, id, expect }: Columns): Passed => ({
  blank: 0,
  absent: new Set([channel, id, expect].filter((c) => c !== undefined)),
});
type Fields = (column: string) => unknown;

const SAFE = new Set(['0', 'safe', 'allow', 'allowed', 'none', 'null', 'no', 'false', 'benign', 'valid']);
const UNSAFE = new Set(['1', 'unsafe', 'block', 'blocked', 'yes', 'true', 'violation', 'harmful', 'invalid']);

/** The rule that a reviewer's word stands for, null for none. @throws {DataError} row_schema */
function expected(word: string, policies: readonly Policy[], fail: (why: string) => DataError): string | null {
  const rules = policies.flatMap((p) => p.rules);
  if (rules.includes(word) || rules.some((rule) => rule.startsWith(`${word}.`))) return word;
  const lower = word.toLowerCase();
  if (SAFE.has(lower)) return null;
  if (UNSAFE.has(lower)) return lower;
  // An id of what the policy allows stands in it too.
  if (policies.some((p) => p.text.includes(word))) return null;
  throw fail(
    `${JSON.stringify(word)} is no rule of ${policies.map((p) => p.name).join(', ')}, nor does it stand there`,
  );
}

function asText(value: unknown, fail: (why: string) => DataError): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') return String(value);
  throw fail('is neither text nor a number; wanted text, or a list of messages; name another column');
}

/** What a conversation says that is judged, as `messages` of a row of ours. */
function spoken(value: readonly unknown[], fail: (why: string) => DataError): Channels {
  if (hasProto(value)) throw fail('holds the key "__proto__", which is not taken; rename it');
  const parsed = z.array(RowMessage).safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw fail(
      `is a list, and no conversation: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'odd'}; ` +
        'wanted messages {role, content}, or a column of text',
    );
  }
  return transcript(parsed.data.flatMap(written));
}

/** @throws {DataError} row_schema, row_utf8 */
function rowOf(
  file: string,
  line: number,
  fields: Fields,
  columns: Columns,
  policies: readonly Policy[],
): ScreenRow | null {
  const failAt =
    (column: string) =>
    (why: string, code: ErrorCode = 'row_schema') =>
      new DataError(code, `${file}:${line}: column ${JSON.stringify(column)}: ${why}`, { file, line });
  const read = (column: string | undefined): string =>
    column === undefined ? '' : asText(fields(column), failAt(column));
  const value = fields(columns.text);
  const text = Array.isArray(value) ? '' : read(columns.text);
  if (!Array.isArray(value) && text.trim() === '') return null;
  for (const column of [columns.text, columns.channel, columns.id])
    if (column !== undefined && hasLoneSurrogate(fields(column)))
      throw failAt(column)('holds half of a surrogate pair, which no UTF-8 has; repair it', 'row_utf8');
  if (columns.id !== undefined && isRoundedId(fields(columns.id))) throw failAt(columns.id)(ROUNDED_ID);
  const channel = read(columns.channel).trim() || 'final';
  const said = read(columns.expect).trim();
  return {
    id: read(columns.id).trim() || String(line),
    line,
    channels: Array.isArray(value) ? spoken(value, failAt(columns.text)) : Object.fromEntries([[channel, text]]),
    policy: null,
    expect: said === '' ? {} : Object.fromEntries([[channel, expected(said, policies, failAt(columns.expect ?? ''))]]),
  };
}

/** Where a column of a CSV file is; by its name, blanks around it aside, or by its number. */
function placeOf(file: string, column: string, head: readonly string[]): number {
  const exact = head.indexOf(column);
  const at = exact >= 0 ? exact : head.findIndex((name) => name.trim() === column.trim());
  // One of them would not be judged.
  if (exact >= 0 && head.indexOf(column, exact + 1) >= 0)
    throw new DataError(
      'no_columns',
      `${file}: column ${JSON.stringify(column)} is there twice in its first line; rename one of them`,
      { file },
    );
  if (at >= 0) return at;
  const names = head.filter((name) => name.trim() !== '').map((name) => JSON.stringify(name));
  throw new DataError(
    'no_columns',
    `${file}: no column ${JSON.stringify(column)}; its first line has ${names.slice(0, 12).join(', ') || 'no names'}` +
      '; give a name, or a number from 1 for each column',
    { file },
  );
}

/** A row by its columns, or what is wrong with all of it. */
interface Found {
  readonly line: number;
  readonly fields: Fields;
  readonly error?: DataError;
}

async function* fromCsv(file: string, columns: Columns, { absent }: Passed): AsyncGenerator<Found> {
  const wanted = [columns.text, columns.channel, columns.id, columns.expect].filter((c) => c !== undefined);
  // Numbers alone: the first line is a row like the others.
  const byNumber = wanted.every((c) => /^[1-9][0-9]{0,3}$/.test(c));
  let places: ReadonlyMap<string, number> | null = byNumber ? new Map(wanted.map((c) => [c, Number(c) - 1])) : null;
  for await (const { line, cells } of readCsv(file)) {
    if (!places) {
      places = new Map(wanted.map((c) => [c, placeOf(file, c, cells)]));
      absent.clear();
      continue;
    }
    const at = places;
    for (const column of absent) if ((at.get(column) ?? 0) < cells.length) absent.delete(column);
    yield { line, fields: (column) => cells[at.get(column) ?? -1] ?? '' };
  }
}

const noColumn = (file: string, line: number, column: string, row: object): DataError =>
  new DataError(
    'no_columns',
    `${file}:${line}: no column ${JSON.stringify(column)}; the row has ` +
      `${
        Object.keys(row)
          .slice(0, 12)
          .map((name) => JSON.stringify(name))
          .join(', ') || 'none'
      }; name a column that every row has`,
    { file, line },
  );
/** @throws {DataError} no_columns: one that was named stands in no row, so that nothing would be read from it */
export function checkColumns(files: readonly string[], { absent }: Passed): void {
  const [column] = absent;
  if (column === undefined) return;
  const [file = ''] = files;
  throw new DataError(
    'no_columns',
    `${file}: no row has a column ${JSON.stringify(column)}; name one that the rows have, or leave the option out`,
    { file },
  );
}

async function* fromSource(
  file: string,
  columns: Columns,
  { absent }: Passed,
  signal: AbortSignal | undefined,
): AsyncGenerator<Found> {
  // Readers of tables are loaded where rows are not ours.
  const { sourceOf } = await import('../../data/sources/index.js');
  const source = await sourceOf(file);
  // A table leaves out what is null; its columns are those of all its rows.
  const isTable = source.name === 'parquet' || source.name === 'arrow';
  let first: DataError | undefined;
  let some = false;
  for await (const batch of source.read(file, signal).batches)
    for (const { line, value, error } of batch) {
      const object = typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
      const isThere = Object.hasOwn(object, columns.text);
      some ||= isThere;
      for (const column of absent) if (Object.hasOwn(object, column)) absent.delete(column);
      const missing = error || isThere ? undefined : noColumn(file, line, columns.text, object);
      first ??= missing;
      const wrong = error ?? (isTable ? undefined : missing);
      yield {
        line,
        fields: (column) => (Object.hasOwn(object, column) ? object[column] : undefined),
        ...(wrong ? { error: wrong } : {}),
      };
    }
  if (isTable && !some && first) throw first;
}

export interface ColumnsOptions {
  readonly signal?: AbortSignal | undefined;
  /** Gives a row that is bad as one, instead of throwing. */
  readonly tolerant?: boolean | undefined;
}
/** Rows by their columns; those without text are counted and passed over. @throws {DataError} a bad row or file */
export async function* readColumns(
  file: string,
  columns: Columns,
  policies: readonly Policy[],
  passed: Passed,
  { signal, tolerant }: ColumnsOptions = {},
): AsyncGenerator<ScreenRow, void, void> {
  const rows = isCsv(file) ? fromCsv(file, columns, passed) : fromSource(file, columns, passed, signal);
  for await (const { line, fields, error } of rows) {
    let row: ScreenRow | null;
    try {
      if (error) throw error;
      row = rowOf(file, line, fields, columns, policies);
    } catch (cause) {
      if (!tolerant || !(cause instanceof DataError)) throw cause;
      row = badRow(line, cause);
    }
    if (row) yield row;
    else passed.blank++;
  }
}

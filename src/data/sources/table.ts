// What the sources of column tables share: a file that is hashed first and must not change while it is read, and its
// values as the JSON they stand for.
import { stat } from 'node:fs/promises';
import { sha256File } from '../../base/digest.js';
import { DataError } from '../../base/errors.js';
import type { Reading, Row } from '../source.js';
import { unreadable } from './bytes.js';

/** A table that claims more rows than this for each of its bytes is damaged: there is no room for anything in them. */
const MAX_ROWS_PER_BYTE = 1;
/** @throws {Error} before anything is made of so many rows */
export function checkRows(rows: number, fileBytes: number): void {
  if (!(rows >= 0 && rows <= MAX_ROWS_PER_BYTE * fileBytes))
    throw new Error(`it claims ${rows} rows in ${fileBytes} bytes, it is damaged`);
}

/** Rows made into objects at a time. */
const ROWS_AT_ONCE = 256;

/**
 * A value of a table as JSON would have it. Columns and fields that are null are left out: a table gives every row
 * every field, so null is how it says "absent". 64-bit integers become numbers where those are exact.
 */
export function plainValue(value: unknown): unknown {
  if (value === null || value === undefined) return undefined;
  if (typeof value === 'bigint') {
    const n = Number(value);
    return Number.isSafeInteger(n) ? n : value;
  }
  if (typeof value !== 'object') return value;
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map((x) => plainValue(x) ?? null);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as Iterable<unknown>, (x) => plainValue(x) ?? null);
  return Object.fromEntries(
    Object.entries(value)
      .map(([k, v]) => [k, plainValue(v)] as const)
      .filter(([, v]) => v !== undefined),
  );
}

/**
 * A reading of a table whose parts `parts` gives, each as a count of rows and how to get one.
 * @param kind for messages, e.g. "a Parquet file"; @param advice what to do when it cannot be read
 */
export function readTable(
  file: string,
  kind: string,
  advice: string,
  parts: (file: string) => AsyncIterable<{ readonly rows: number; at(row: number): unknown }>,
  signal?: AbortSignal,
): Reading {
  let hex = '';
  async function* batches(): AsyncGenerator<readonly Row[], void, void> {
    let line = 0;
    try {
      const before = await stat(file);
      hex = await sha256File(file, signal ? { signal } : {});
      for await (const part of parts(file)) {
        checkRows(line + part.rows, before.size);
        for (let from = 0; from < part.rows; from += ROWS_AT_ONCE) {
          signal?.throwIfAborted();
          const rows: Row[] = [];
          for (let i = from; i < Math.min(part.rows, from + ROWS_AT_ONCE); i++)
            rows.push({ line: ++line, value: plainValue(part.at(i)) ?? {} });
          yield rows;
        }
      }
      const after = await stat(file);
      if (after.size !== before.size || after.mtimeMs !== before.mtimeMs || after.ino !== before.ino)
        throw new DataError('file_changed', `${file}: it changed while it was read; run it again`, { file });
    } catch (e) {
      if (e instanceof DataError || (e instanceof Error && ('syscall' in e || e.name === 'AbortError')))
        throw unreadable(file, e);
      const reason = (e instanceof Error ? e.message : String(e)).replace(/\s+/g, ' ').slice(0, 120);
      throw new DataError(
        'bad_table',
        `${file}: not ${kind} that can be read on after row ${line}: ${reason}; ${advice}`,
        { file, line },
        { cause: e },
      );
    }
  }
  return { batches: batches(), digest: () => hex };
}

// What the sources of column tables share: a file that is hashed first and must not change while it is read.
import { stat } from 'node:fs/promises';
import { sha256File } from '../../base/digest.js';
import { DataError } from '../../base/errors.js';
import type { Reading, Row } from '../source.js';
import { unreadable } from './bytes.js';

/** A column of a type that is known and not read: the file is sound. */
export class UnreadType extends Error {
  constructor(
    readonly column: string,
    readonly type: string,
  ) {
    super(`column ${column} is of type ${type}`);
  }
}

/** Rows that are equal take next to no bytes; a table that claims more than this for each of its bytes is damaged. */
const MAX_ROWS_PER_BYTE = 64;
/** @throws {Error} before anything is made of so many rows */
export function checkRows(rows: number, fileBytes: number): void {
  if (!(rows >= 0 && rows <= MAX_ROWS_PER_BYTE * fileBytes))
    throw new Error(`it claims ${rows} rows in ${fileBytes} bytes, it is damaged`);
}

/** Rows made into objects at a time. */
const ROWS_AT_ONCE = 256;

/**
 * A reading of a table whose parts `parts` gives, each as a count of rows and how to get one.
 * Values are plain: what is null is left out, in lists it is null.
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
            rows.push({ line: ++line, value: part.at(i) ?? {} });
          yield rows;
        }
      }
      const after = await stat(file);
      if (after.size !== before.size || after.mtimeMs !== before.mtimeMs || after.ino !== before.ino)
        throw new DataError('file_changed', `${file}: it changed while it was read; run it again`, { file });
    } catch (e) {
      if (e instanceof DataError || (e instanceof Error && ('syscall' in e || e.name === 'AbortError')))
        throw unreadable(file, e);
      if (e instanceof UnreadType)
        throw new DataError(
          'column_type_unread',
          `${file}: column ${JSON.stringify(e.column.slice(0, 120))} is of type ${e.type}, which is not read; write ` +
            'it as text, as JSON or as columns of its own, or leave it out',
          { file, column: e.column, type: e.type },
          { cause: e },
        );
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

// JSON lines: one JSON value a line. Blank lines are passed over but counted. At most one piece of the file (1 MiB) and
// the line that goes on into the next are held.
import { DataError } from '../../base/errors.js';
import { MAX_ROW_BYTES, type Reading, type Row, type Source } from '../source.js';
import { hashedBytes, rowOfText } from './bytes.js';

/** Rows given at a time: few enough that the collector finds them gone when it comes. */
const AT_ONCE = 64;
const WANTED = 'one JSON object per line';

/** Rows of the lines in `chunks`, the bytes of `file` however they came. @throws {DataError} line_too_long */
export async function* readLines(
  file: string,
  chunks: AsyncIterable<Buffer>,
): AsyncGenerator<readonly Row[], void, void> {
  let line = 0;
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  const take = (last: Buffer, into: Row[]): void => {
    line++;
    const bytes = pending.length ? Buffer.concat([...pending, last]) : last;
    pending = [];
    pendingBytes = 0;
    const row = rowOfText(bytes, `${file}:${line}`, file, line, WANTED);
    if (row) into.push(row);
  };
  for await (const chunk of chunks) {
    let rows: Row[] = [];
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      take(chunk.subarray(from, at), rows);
      from = at + 1;
      if (rows.length < AT_ONCE) continue;
      yield rows;
      rows = [];
    }
    if (from < chunk.length) {
      pending.push(chunk.subarray(from));
      pendingBytes += chunk.length - from;
    }
    if (rows.length > 0) yield rows;
    if (pendingBytes > MAX_ROW_BYTES)
      throw new DataError(
        'line_too_long',
        `${file}:${line + 1}: the line is longer than ${MAX_ROW_BYTES} bytes; wanted ${WANTED}`,
        { file, line: line + 1 },
      );
  }
  const rows: Row[] = [];
  if (pending.length) take(Buffer.alloc(0), rows);
  if (rows.length > 0) yield rows;
}

function read(file: string, signal?: AbortSignal): Reading {
  const { chunks, digest } = hashedBytes(file, signal);
  return { batches: readLines(file, chunks), digest };
}

export const jsonl: Source = { name: 'jsonl', unit: 'line', accepts: () => true, read };

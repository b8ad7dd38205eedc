// Reads JSONL as a stream: one row at a time with its line number, and the sha256 of the bytes in the same pass.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { DataError } from '../base/errors.js';

/** A line longer than this is refused: it would be a broken file, and a bound keeps memory known. */
export const MAX_LINE_BYTES = 64 * 2 ** 20;

/** A line that could not be read carries its error instead of a value; the lines after it are still read. */
export interface Row {
  readonly line: number;
  readonly value?: unknown;
  readonly error?: DataError;
}
export interface Reading {
  /** Rows in order; blank lines are passed over but counted. @throws {DataError} the file cannot be read on */
  readonly rows: AsyncGenerator<Row, void, void>;
  /** sha256 of the file, hex; known when all rows were read. */
  digest(): string;
}

function parseLine(bytes: Buffer, file: string, line: number): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (e) {
    throw new DataError(
      'not_utf8',
      `${file}:${line}: the line is not UTF-8; save the file as UTF-8`,
      { file, line },
      { cause: e },
    );
  }
  if (text.trim() === '') return undefined;
  try {
    return JSON.parse(text);
  } catch (e) {
    const reason = (e as Error).message.replace(/\s+/g, ' ').slice(0, 120);
    throw new DataError(
      'not_json',
      `${file}:${line}: the row is not JSON: ${reason}; wanted one JSON object per line`,
      { file, line },
      { cause: e },
    );
  }
}

export function readJsonl(file: string): Reading {
  const hash = createHash('sha256');
  let hex: string | undefined;
  async function* rows(): AsyncGenerator<Row, void, void> {
    let line = 0;
    let pending: Buffer[] = [];
    let pendingBytes = 0;
    const take = (last: Buffer): Row | undefined => {
      line++;
      const bytes = pending.length ? Buffer.concat([...pending, last]) : last;
      pending = [];
      pendingBytes = 0;
      try {
        const value = parseLine(bytes, file, line);
        return value === undefined ? undefined : { value, line };
      } catch (e) {
        if (e instanceof DataError) return { error: e, line };
        throw e;
      }
    };
    try {
      for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
        hash.update(chunk);
        let from = 0;
        for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
          const row = take(chunk.subarray(from, at));
          from = at + 1;
          if (row) yield row;
        }
        if (from < chunk.length) {
          pending.push(chunk.subarray(from));
          pendingBytes += chunk.length - from;
        }
        if (pendingBytes > MAX_LINE_BYTES)
          throw new DataError(
            'line_too_long',
            `${file}:${line + 1}: the line is longer than ${MAX_LINE_BYTES} bytes; wanted one JSON object per line`,
            { file, line: line + 1 },
          );
      }
    } catch (e) {
      if (e instanceof DataError) throw e;
      throw new DataError(
        'unreadable',
        `${file}: cannot read: ${(e as NodeJS.ErrnoException).code ?? String(e)}`,
        { file },
        { cause: e },
      );
    }
    const row = pending.length ? take(Buffer.alloc(0)) : undefined;
    if (row) yield row;
  }
  return { rows: rows(), digest: () => (hex ??= hash.digest('hex')) };
}

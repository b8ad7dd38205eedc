// The contract of a source: how the rows of a file are read, whatever they mean. A new one is a file in sources/ and a
// line in sources/index.ts; what a row means is the format's (format.ts).
import type { DataError } from '../base/errors.js';

/** A line or row longer than this is refused: it would be a broken file, and a bound keeps memory known. */
export const MAX_ROW_BYTES = 64 * 2 ** 20;

/** A row that could not be read carries its error instead of a value; the rows after it are still read. */
export interface Row {
  /** Line of a text file, row of a table; from 1. */
  readonly line: number;
  readonly value?: unknown;
  readonly error?: DataError;
  /** The bytes of a row of text. */
  readonly raw?: Buffer;
  /** Of a row of text: it has no escapes \\u and no U+FFFD. */
  readonly isClean?: boolean;
}

export interface Reading {
  /**
   * Rows in order, a few at a time; what is read but not yet taken is bounded whatever the size of the file.
   * @throws {DataError} the file cannot be read on · {DOMException} AbortError
   */
  readonly batches: AsyncGenerator<readonly Row[], void, void>;
  /** sha256 of the bytes that gave the rows, hex; known when all were read. */
  digest(): string;
}

export interface Source {
  readonly name: string;
  /** What `Row.line` counts. */
  readonly unit: 'line' | 'row';
  /** Whether it can read this file. @param head the first HEAD_BYTES bytes of it, or all where there are fewer */
  accepts(file: string, head: Uint8Array): boolean;
  read(file: string, signal?: AbortSignal): Reading;
}
export const HEAD_BYTES = 4096;

/** How a row is named in a message: `rows.jsonl:3`, or `rows.json row 3` where 3 is no line to jump to. */
export const placeName = (source: Source, file: string, line: number): string =>
  source.unit === 'line' ? `${file}:${line}` : `${file} row ${line}`;

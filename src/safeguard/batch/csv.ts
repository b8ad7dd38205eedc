// CSV as RFC 4180 has it, read as a stream: quotes, line ends of either kind, cells over several lines. Rows may be of
// different lengths, as spreadsheets leave them.
import { DataError } from '../../base/errors.js';
import { inputPieces } from '../../base/inputs.js';
import { asReadError } from '../../base/system-error.js';

const MAX_CELL = 16 * 2 ** 20;
/** Whether a file is a table by its name: CSV, or TSV, also packed. */
export const isCsv = (file: string): boolean => /\.[ct]sv(?:\.(?:gz|zst))?$/i.test(file);

export interface CsvRow {
  /** Where it begins, from 1. */
  readonly line: number;
  readonly cells: readonly string[];
}

/** Cuts text, given in pieces, into rows. */
class Cutter {
  #cell: string[] = [];
  #length = 0;
  #cells: string[] = [];
  #line = 1;
  #first = 1;
  /** 'open': in quotes; 'shut': after the quote that may end them. */
  #state: 'plain' | 'open' | 'shut' = 'plain';
  #return = false;
  constructor(
    readonly file: string,
    readonly comma: number,
  ) {}

  #fail(why: string): DataError {
    return new DataError('row_csv', `${this.file}:${this.#first}: ${why}; wanted CSV as RFC 4180 has it`, {
      file: this.file,
      line: this.#first,
    });
  }
  #add(text: string): void {
    this.#length += text.length;
    if (this.#length > MAX_CELL) throw this.#fail(`a row of more than ${MAX_CELL} characters; is a quote not closed?`);
    this.#cell.push(text);
  }
  #endCell(): void {
    this.#cells.push(this.#cell.join(''));
    this.#cell = [];
    this.#state = 'plain';
  }
  *#endRow(): Generator<CsvRow> {
    this.#endCell();
    // An empty line is none.
    if (this.#cells.length > 1 || this.#cells[0] !== '') yield { line: this.#first, cells: this.#cells };
    this.#cells = [];
    this.#length = 0;
    this.#first = this.#line;
  }
  *push(text: string): Generator<CsvRow> {
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i);
      if (c === 10) this.#line++;
      if (this.#state === 'open') {
        const end = text.indexOf('"', i);
        const to = end < 0 ? text.length : end;
        for (let k = i + 1; k < to; k++) if (text.charCodeAt(k) === 10) this.#line++;
        this.#add(text.slice(i, to));
        i = to;
        if (end >= 0) this.#state = 'shut';
        continue;
      }
      const wasReturn = this.#return;
      this.#return = false;
      if (c === 34) {
        if (this.#state === 'shut') {
          this.#add('"');
          this.#state = 'open';
        } else if (this.#cell.length === 0) this.#state = 'open';
        else this.#add('"'); // in the middle of a cell a quote is itself
      } else if (c === this.comma) this.#endCell();
      else if (c === 10 && wasReturn) this.#first = this.#line;
      else if (c === 10 || c === 13) {
        this.#return = c === 13;
        yield* this.#endRow();
      } else if (this.#state === 'shut') throw this.#fail('text after the quote that ends a cell');
      else {
        let to = i + 1;
        for (; to < text.length; to++) {
          const next = text.charCodeAt(to);
          if (next === 34 || next === this.comma || next === 10 || next === 13) break;
        }
        this.#add(text.slice(i, to));
        i = to - 1;
      }
    }
  }
  *end(): Generator<CsvRow> {
    if (this.#state === 'open') throw this.#fail('a quote that is not closed');
    yield* this.#endRow();
  }
}

/** Readers of packed files are loaded where there is one. */
const bytesOf = async (file: string): Promise<AsyncIterable<Buffer>> =>
  /\.[ct]sv$/i.test(file)
    ? inputPieces(file)
    : (await import('../../data/sources/packed.js')).unpackedPieces(file, inputPieces(file));

/** @throws {DataError} row_csv, row_utf8, file_unreadable, bad_gzip, bad_zstd */
export async function* readCsv(file: string): AsyncGenerator<CsvRow, void, void> {
  const cutter = new Cutter(file, /\.tsv(?:\.\w+)?$/i.test(file) ? 9 : 44);
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const decode = (bytes?: Buffer): string => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
    } catch (cause) {
      throw new DataError('row_utf8', `${file}: not valid UTF-8; convert the file first`, { file }, { cause });
    }
  };
  try {
    for await (const bytes of await bytesOf(file)) yield* cutter.push(decode(bytes));
    yield* cutter.push(decode());
    yield* cutter.end();
  } catch (cause) {
    throw asReadError(
      cause,
      file,
      'give a file of CSV',
      (message) => new DataError('file_unreadable', message, { file }),
    );
  }
}

// One JSON array of rows, on one line or many. The array is cut into its elements by counting brackets outside strings,
// so that one element at a time is parsed and held; what is inside an element is JSON.parse's to judge.
import { DataError } from '../../base/errors.js';
import { MAX_ROW_BYTES, type Reading, type Row, type Source } from '../source.js';
import { hashedBytes, rowOfText } from './bytes.js';

const [QUOTE, BACKSLASH, COMMA, OPEN, CLOSE, OPEN_BRACE, CLOSE_BRACE] = [0x22, 0x5c, 0x2c, 0x5b, 0x5d, 0x7b, 0x7d];
const isSpace = (b: number | undefined): boolean => b === 0x20 || b === 0x0a || b === 0x0d || b === 0x09;

/** Whether the bytes begin as an array does. */
export const beginsArray = (head: Uint8Array): boolean => firstByte(head) === OPEN;

/** First byte after white space and a byte order mark. */
function firstByte(head: Uint8Array): number | undefined {
  let at = head[0] === 0xef && head[1] === 0xbb && head[2] === 0xbf ? 3 : 0;
  while (isSpace(head[at])) at++;
  return head[at];
}

const broken = (file: string, line: number, what: string): DataError =>
  new DataError('bad_json_array', `${file}: ${what}; wanted one JSON array of rows, or one row per line (.jsonl)`, {
    file,
    line,
  });

/** Cuts the bytes of an array, given in pieces, into those of its elements. */
class ElementCutter {
  /** 0 outside the array, 1 between its elements' own brackets. */
  #depth = 0;
  #inString = false;
  #escaped = false;
  #ended = false;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  row = 1;
  constructor(readonly file: string) {}

  get ended(): boolean {
    return this.#ended;
  }

  *push(chunk: Buffer): Generator<{ readonly bytes: Buffer; readonly last: boolean }> {
    let from = 0;
    for (let i = 0; i < chunk.length; i++) {
      if (this.#inString) {
        i = this.#skipString(chunk, i);
        continue;
      }
      const b = chunk[i];
      if (this.#depth === 0) {
        from = this.#outside(b, i);
        continue;
      }
      if (b === QUOTE) this.#inString = true;
      else if (b === OPEN || b === OPEN_BRACE) this.#depth++;
      else if (b === CLOSE || b === CLOSE_BRACE) {
        if (--this.#depth > 0) continue;
        yield { bytes: this.#cut(chunk.subarray(from, i)), last: true };
        this.#ended = true;
      } else if (b === COMMA && this.#depth === 1) {
        yield { bytes: this.#cut(chunk.subarray(from, i)), last: false };
        this.row++;
        from = i + 1;
      }
    }
    if (this.#depth > 0) this.#keep(chunk.subarray(from));
  }

  /** Place of the string's last byte in this piece. */
  #skipString(chunk: Buffer, from: number): number {
    let i = from;
    if (this.#escaped) {
      this.#escaped = false;
      i++;
    }
    for (; i < chunk.length; i++) {
      const b = chunk[i];
      if (b === BACKSLASH) {
        if (++i === chunk.length) this.#escaped = true;
      } else if (b === QUOTE) {
        this.#inString = false;
        return i;
      }
    }
    return i;
  }

  #outside(b: number | undefined, at: number): number {
    if (isSpace(b)) return 0;
    if (this.#ended) throw broken(this.file, this.row, `there is more after the array's end (row ${this.row})`);
    if (b === OPEN) this.#depth = 1;
    return at + 1;
  }

  #keep(bytes: Buffer): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes > MAX_ROW_BYTES)
      throw new DataError(
        'row_too_large',
        `${this.file} row ${this.row}: longer than ${MAX_ROW_BYTES} bytes; is a bracket or a quote missing before?`,
        { file: this.file, line: this.row },
      );
  }

  #cut(last: Buffer): Buffer {
    const bytes = this.#pending.length ? Buffer.concat([...this.#pending, last]) : last;
    this.#pending = [];
    this.#pendingBytes = 0;
    return bytes;
  }
}

/** Rows of the array in `chunks`, the bytes of `file` however they came. @throws {DataError} bad_json_array */
export async function* readArray(
  file: string,
  chunks: AsyncIterable<Buffer>,
): AsyncGenerator<readonly Row[], void, void> {
  const cutter = new ElementCutter(file);
  for await (const chunk of chunks) {
    const rows: Row[] = [];
    for (const { bytes, last } of cutter.push(chunk)) {
      const line = cutter.row;
      const row = rowOfText(bytes, `${file} row ${line}`, file, line, 'a JSON object');
      if (row) rows.push(row);
      else if (!last || line > 1)
        rows.push({ line, error: broken(file, line, `row ${line} is empty, a comma too many`) });
    }
    if (rows.length > 0) yield rows;
  }
  if (!cutter.ended) throw broken(file, cutter.row, `the file ends inside the array, in row ${cutter.row}`);
}

function read(file: string, signal?: AbortSignal): Reading {
  const { chunks, digest } = hashedBytes(file, signal);
  return { batches: readArray(file, chunks), digest };
}

export const json: Source = {
  name: 'json',
  unit: 'row',
  // A file of lines may begin with a bracket too: that line is then a bad row of its own.
  accepts: (file, head) => beginsArray(head) && !/\.(jsonl|ndjson)$/i.test(file),
  read,
};

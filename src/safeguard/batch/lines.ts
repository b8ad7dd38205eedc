// Lines of a file of JSON lines, numbered, a batch at a time in bounded memory.
import type { Hash } from 'node:crypto';
import { DataError } from '../../base/errors.js';
import { inputPieces } from '../../base/inputs.js';
import { asReadError } from '../../base/system-error.js';

const MAX_LINE_BYTES = 16 * 2 ** 20;
/** Lines given at a time: few enough that the collector finds them gone when it comes. */
const AT_ONCE = 256;

/** `bytes` without the line's end, or what is wrong with it; the lines after it are still read. */
export interface Line {
  readonly line: number;
  readonly bytes?: Buffer;
  readonly error?: DataError;
}

const tooLong = (file: string, line: number): DataError =>
  new DataError('row_too_long', `${file}:${line}: row longer than ${MAX_LINE_BYTES} bytes; split it`, { file, line });

/** The line whose end has not come yet. */
class OpenLine {
  #pieces: Buffer[] = [];
  #bytes = 0;
  #isLost = false;
  /** The last one that ended. */
  line = 0;
  constructor(readonly file: string) {}

  get isOpen(): boolean {
    return this.#bytes > 0;
  }
  hold(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#bytes += piece.length;
    this.#isLost ||= this.#bytes > MAX_LINE_BYTES;
    // Of a line that is too long nothing is held.
    if (this.#isLost) this.#pieces = [];
    else this.#pieces.push(piece);
  }
  /** It ends after `piece`. */
  end(piece: Buffer): Line {
    const line = ++this.line;
    const bytes = this.#pieces.length > 0 ? Buffer.concat([...this.#pieces, piece]) : piece;
    const isLost = this.#isLost || bytes.length > MAX_LINE_BYTES;
    [this.#pieces, this.#bytes, this.#isLost] = [[], 0, false];
    return isLost ? { line, error: tooLong(this.file, line) } : { line, bytes };
  }
}
export interface LinesOptions {
  /** Gets the bytes of the file as they pass. */
  readonly hash?: Hash;
  readonly signal?: AbortSignal | undefined;
}
/** Pieces of the file, hashed. @throws {DataError} file_unreadable · the signal's reason */
async function* piecesOf(file: string, { hash, signal }: LinesOptions): AsyncGenerator<Buffer, void, void> {
  try {
    for await (const piece of inputPieces(file)) {
      signal?.throwIfAborted();
      hash?.update(piece);
      yield piece;
    }
  } catch (cause) {
    throw asReadError(cause, file, 'give a file with one JSON object per line', (message) => {
      return new DataError('file_unreadable', message, { file });
    });
  }
}

/**
 * All lines, blank ones included; numbers begin at 1.
 * @throws {DataError} file_unreadable · the signal's reason
 */
export async function* lineBatches(
  file: string,
  options: LinesOptions = {},
): AsyncGenerator<readonly Line[], void, void> {
  const open = new OpenLine(file);
  for await (const chunk of piecesOf(file, options)) {
    let lines: Line[] = [];
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      lines.push(open.end(chunk.subarray(from, at)));
      from = at + 1;
      if (lines.length < AT_ONCE) continue;
      yield lines;
      lines = [];
    }
    if (lines.length > 0) yield lines;
    open.hold(chunk.subarray(from));
  }
  if (open.isOpen) yield [open.end(Buffer.alloc(0))];
}

/** A line as text, or as bytes where they may be no UTF-8, or what is wrong with it. */
export interface TextLine extends Line {
  readonly text?: string;
}
/** Bytes that become text at once. */
const TEXT_BYTES = 1 << 16;

/** The same, most lines as text: many of them become text at once, which costs a fifth. @throws as lineBatches */
export async function* textBatches(
  file: string,
  options: LinesOptions = {},
): AsyncGenerator<readonly TextLine[], void, void> {
  const open = new OpenLine(file);
  for await (const chunk of piecesOf(file, options)) {
    const first = open.isOpen ? chunk.indexOf(10) : 0;
    if (first < 0) {
      open.hold(chunk);
      continue;
    }
    let from = 0;
    if (open.isOpen) {
      yield [open.end(chunk.subarray(0, first))];
      from = first + 1;
    }
    for (const last = chunk.lastIndexOf(10); from <= last; ) {
      const near = chunk.lastIndexOf(10, from + TEXT_BYTES);
      const end = near >= from ? near : chunk.indexOf(10, from);
      yield textLines(chunk.subarray(from, end), open);
      from = end + 1;
    }
    open.hold(chunk.subarray(from));
  }
  if (open.isOpen) yield [open.end(Buffer.alloc(0))];
}
/** @param piece whole lines, without the end of the last one */
function textLines(piece: Buffer, open: OpenLine): readonly TextLine[] {
  const text = piece.toString('utf8');
  if (!text.includes('\ufffd')) return text.split('\n').map((own): TextLine => ({ line: ++open.line, text: own }));
  // Which of them is no UTF-8 is seen by its bytes.
  const lines: TextLine[] = [];
  for (let from = 0; from <= piece.length; ) {
    const at = piece.indexOf(10, from);
    const end = at < 0 ? piece.length : at;
    lines.push(open.end(piece.subarray(from, end)));
    from = end + 1;
  }
  return lines;
}

/** The text of a line; undefined where it is blank. @throws {DataError} row_utf8 */
export function textOfLine(file: string, given: TextLine): string | undefined {
  const { line, bytes = Buffer.alloc(0) } = given;
  let text = given.text ?? bytes.toString('utf8');
  // Most texts have no U+FFFD; where there is one, it is looked up whether it was there.
  if (given.text === undefined && text.includes('\ufffd')) {
    try {
      text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (cause) {
      const message = `${file}:${line}: not valid UTF-8; convert the file first`;
      throw new DataError('row_utf8', message, { file, line }, { cause });
    }
  }
  if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
  return text.charCodeAt(0) !== 0x7b && text.trim() === '' ? undefined : text;
}

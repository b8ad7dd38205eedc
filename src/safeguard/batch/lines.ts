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

/**
 * All lines, blank ones included; numbers begin at 1.
 * @param hash gets the bytes of the file as they pass
 * @throws {DataError} file_unreadable · the signal's reason
 */
export async function* lineBatches(
  file: string,
  { hash, signal }: { readonly hash?: Hash; readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<readonly Line[], void, void> {
  let rest: Buffer[] = [];
  let restBytes = 0;
  let line = 0;
  let skipping = false;
  const take = (piece: Buffer): Line => {
    line++;
    const bytes = rest.length > 0 ? Buffer.concat([...rest, piece]) : piece;
    const lost = skipping || bytes.length > MAX_LINE_BYTES;
    [rest, restBytes, skipping] = [[], 0, false];
    return lost ? { line, error: tooLong(file, line) } : { line, bytes };
  };
  try {
    for await (const chunk of inputPieces(file)) {
      signal?.throwIfAborted();
      hash?.update(chunk);
      let lines: Line[] = [];
      let from = 0;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        lines.push(take(chunk.subarray(from, at)));
        from = at + 1;
        if (lines.length < AT_ONCE) continue;
        yield lines;
        lines = [];
      }
      if (lines.length > 0) yield lines;
      if (from === chunk.length) continue;
      restBytes += chunk.length - from;
      skipping ||= restBytes > MAX_LINE_BYTES;
      // Of a line that is too long nothing is held.
      if (skipping) rest = [];
      else rest.push(chunk.subarray(from));
    }
  } catch (cause) {
    throw asReadError(cause, file, 'give a file with one JSON object per line', (message) => {
      return new DataError('file_unreadable', message, { file });
    });
  }
  if (rest.length > 0 || skipping) yield [take(Buffer.alloc(0))];
}

/** The text of a line; undefined where it is blank. @throws {DataError} row_utf8 */
export function textOfLine(file: string, { line, bytes = Buffer.alloc(0) }: Line): string | undefined {
  let text = bytes.toString('utf8');
  // Most texts have no U+FFFD; where there is one, it is looked up whether it was there.
  if (text.includes('\ufffd')) {
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

// Lines of a file of JSON lines, numbered, in bounded memory.
import { DataError } from '../../base/errors.js';
import { inputPieces } from '../../base/inputs.js';
import { asReadError } from '../../base/system-error.js';

const MAX_LINE_BYTES = 16 * 2 ** 20;

/**
 * Lines of a UTF-8 file with their numbers from 1; blank lines are left out. @throws {DataError} unreadable, not UTF-8,
 * line too long
 */
export async function* readLines(file: string): AsyncGenerator<{ readonly line: number; readonly text: string }> {
  const decode = (bytes: Buffer, line: number): string => {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch (cause) {
      throw new DataError(
        'row_utf8',
        `${file}:${line}: not valid UTF-8; convert the file first`,
        { file, line },
        { cause },
      );
    }
  };
  let rest: Buffer = Buffer.alloc(0);
  let line = 0;
  try {
    for await (const chunk of inputPieces(file)) {
      let from = 0;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        const text = decode(Buffer.concat([rest, chunk.subarray(from, at)]), ++line);
        rest = Buffer.alloc(0);
        from = at + 1;
        if (text.trim() !== '') yield { line, text };
      }
      rest = Buffer.concat([rest, chunk.subarray(from)]);
      if (rest.length > MAX_LINE_BYTES)
        throw new DataError('row_too_long', `${file}:${line + 1}: row longer than ${MAX_LINE_BYTES} bytes; split it`, {
          file,
          line: line + 1,
        });
    }
  } catch (cause) {
    throw asReadError(cause, file, 'give a file with one JSON object per line', (message) => {
      return new DataError('file_unreadable', message, { file });
    });
  }
  const text = decode(rest, ++line);
  if (text.trim() !== '') yield { line, text };
}

// What the sources of text share: the bytes of a file in pieces, hashed as they pass, and one row's bytes as a value.

import { createHash } from 'node:crypto';
import { DataError } from '../../base/errors.js';
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';

export const unreadable = (file: string, cause: unknown): unknown =>
  cause instanceof DataError || (cause instanceof Error && cause.name === 'AbortError')
    ? cause
    : new DataError(
        'unreadable',
        `${file}: cannot read: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`,
        { file },
        { cause },
      );

/** @throws {DataError} unreadable · {DOMException} AbortError */
export function hashedBytes(
  file: string,
  signal?: AbortSignal,
): { readonly chunks: AsyncGenerator<Buffer, void, void>; digest(): string } {
  const hash = createHash('sha256');
  let hex: string | undefined;
  async function* chunks(): AsyncGenerator<Buffer, void, void> {
    try {
      for await (const chunk of inputPieces(file)) {
        signal?.throwIfAborted();
        hash.update(chunk);
        yield chunk;
      }
    } catch (e) {
      throw unreadable(file, e);
    }
  }
  return { chunks: chunks(), digest: () => (hex ??= hash.digest('hex')) };
}

/** What the first line of a file that is no JSON lines may be, and what to do. */
function shapeOf(text: string, line: number): string {
  if (line !== 1) return '';
  if (/^\s*[[{]\s*$/.test(text) || (/^\s*\{/.test(text) && !text.trimEnd().endsWith('}')))
    return '; is this one object over several lines? Write it on one (jq -c)';
  return /^[^{[]*[,\t;]/.test(text) ? '; is this a table such as CSV? Write its rows as JSON' : '';
}

/** Control characters of a file are not for a terminal. */
const visible = (text: string): string => JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"');
const decoder = new TextDecoder('utf-8', { fatal: true });

/**
 * The JSON value of one row; undefined where there is nothing but white space.
 * @param place of the row, for messages · @throws {DataError} not_utf8, not_json
 */
export function parseRow(bytes: Buffer, place: string, file: string, line: number, wanted: string): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch (e) {
    throw new DataError(
      'not_utf8',
      `${place}: the row is not UTF-8; save the file as UTF-8`,
      { file, line },
      { cause: e },
    );
  }
  if (text.trim() === '') return undefined;
  try {
    return parseJson(text);
  } catch (e) {
    const reason = visible((e as Error).message).slice(0, 120);
    throw new DataError(
      'not_json',
      `${place}: the row is not JSON: ${reason}; wanted ${wanted}${shapeOf(text, line)}`,
      { file, line },
      { cause: e },
    );
  }
}

// What the sources of text share: the bytes of a file in pieces, hashed as they pass, and one row's bytes as a value.

import { isAscii } from 'node:buffer';
import { createHash } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DataError } from '../../base/errors.js';
import { inputPieces } from '../../base/inputs.js';
import { parseJson } from '../../base/json.js';
import { asReadError } from '../../base/system-error.js';
import type { Row } from '../source.js';

/** What is thrown for a file that cannot be read; errors that say what is wrong by themselves stay. */
export const unreadable = (file: string, cause: unknown): unknown =>
  asReadError(cause, file, nextStep(file), (message) => new DataError('unreadable', message, { file }));

/** Rows by the names that they mostly have, for a path that is a folder or that nothing is at. */
function nextStep(file: string): string {
  let [folder, isFolder] = [dirname(file), false];
  let names: readonly string[] = [];
  try {
    isFolder = statSync(file, { throwIfNoEntry: false })?.isDirectory() === true;
    if (isFolder) folder = file;
    names = readdirSync(folder).filter((n) => /\.(?:jsonl?|ndjson|parquet|arrow|feather)(?:\.gz)?$/i.test(n));
  } catch {
    // what the path says of itself is enough
  }
  const found = names.length > 0 && names.length <= 12 ? `; in ${folder} there are ${names.join(', ')}` : '';
  return `${isFolder ? 'give a file in it' : 'check the path'}${found}`;
}

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
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const BLANK = /^\s*$/;
const BOM = '\ufeff';

/** Text of bytes. Most have no U+FFFD; where there is one, it is looked up whether it was there. @throws not UTF-8 */
function textOf(bytes: Buffer): string {
  if (isAscii(bytes)) return bytes.toString('latin1');
  const text = bytes.toString('utf8');
  return text.includes('\ufffd') ? decoder.decode(bytes) : text;
}

/**
 * A row of one JSON value; undefined where there is nothing but white space. What is wrong with it is its error.
 * @param place of the row, for messages
 */
export function rowOfText(bytes: Buffer, place: string, file: string, line: number, wanted: string): Row | undefined {
  const fail = (code: 'not_utf8' | 'not_json', message: string, cause: unknown): Row => ({
    line,
    error: new DataError(code, `${place}: ${message}`, { file, line }, { cause }),
  });
  let text: string;
  try {
    text = textOf(bytes);
  } catch (e) {
    return fail('not_utf8', 'the row is not UTF-8; save the file as UTF-8', e);
  }
  if (text.startsWith(BOM)) text = text.slice(1);
  const first = text.charCodeAt(0);
  if (first !== 0x7b && BLANK.test(text)) return undefined;
  try {
    return { line, value: parseJson(text), raw: bytes, isClean: !text.includes('\\u') && !text.includes('\ufffd') };
  } catch (e) {
    const reason = visible((e as Error).message).slice(0, 120);
    return fail('not_json', `the row is not JSON: ${reason}; wanted ${wanted}${shapeOf(text, line)}`, e);
  }
}

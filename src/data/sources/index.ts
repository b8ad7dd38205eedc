// The kinds of file that rows are read from, told apart by their first bytes; the first that accepts a file reads it.
// To add one: its file here, one import, one entry before jsonl, which takes whatever is left.
import { DataError } from '../../base/errors.js';
import { openInput } from '../../base/inputs.js';
import { HEAD_BYTES, type Source } from '../source.js';
import { arrow } from './arrow.js';
import { unreadable } from './bytes.js';
import { json } from './json.js';
import { jsonl } from './jsonl.js';
import { otherKind } from './kinds.js';
import { gzip, zstd } from './packed.js';
import { parquet } from './parquet.js';

export const SOURCES: readonly Source[] = [arrow, parquet, gzip, zstd, json, jsonl];

/** @throws {DataError} unreadable, file_kind */
export async function sourceOf(file: string): Promise<Source> {
  try {
    await using handle = await openInput(file);
    const head = Buffer.alloc(HEAD_BYTES);
    const { bytesRead } = await handle.read(head, 0, HEAD_BYTES, 0);
    const source = SOURCES.find((s) => s.accepts(file, head.subarray(0, bytesRead))) ?? jsonl;
    const other = source === jsonl ? otherKind(head.subarray(0, bytesRead)) : null;
    if (other)
      throw new DataError(
        'file_kind',
        `${file}: is ${other.kind}, wanted JSON lines, a JSON array, Parquet or Arrow; ${other.next}`,
        {
          file,
        },
      );
    return source;
  } catch (e) {
    throw unreadable(file, e);
  }
}

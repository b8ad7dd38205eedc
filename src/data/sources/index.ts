// The kinds of file that rows are read from, told apart by their first bytes; the first that accepts a file reads it.
// To add one: its file here, one import, one entry before jsonl, which takes whatever is left.
import { DataError } from '../../base/errors.js';
import { openInput } from '../../base/inputs.js';
import { HEAD_BYTES, type Source } from '../source.js';
import { arrow } from './arrow.js';
import { unreadable } from './bytes.js';
import { json } from './json.js';
import { jsonl } from './jsonl.js';
import { gzip, zstd } from './packed.js';
import { parquet } from './parquet.js';

export const SOURCES: readonly Source[] = [arrow, parquet, gzip, zstd, json, jsonl];

/** Files that are no rows, or pack them in a way that is not read: by their first bytes, what they are, what to do. */
const OTHERS: readonly (readonly [mark: string, kind: string, next: string])[] = [
  ['504b0304', 'a zip archive', 'unpack it and give the file inside'],
  ['04224d18', 'an LZ4 file', 'unpack it (lz4 -d), or compress it with zstd'],
  ['425a68', 'a bzip2 file', 'unpack it (bunzip2), or compress it with gzip'],
  ['fd377a585a', 'an xz file', 'unpack it (unxz), or compress it with gzip'],
  ['47475546', 'a GGUF file: weights, no rows', 'give a file of rows'],
  ['53514c69746520666f726d6174', 'an SQLite database', 'export its rows as JSON lines'],
  ['894844460d0a', 'an HDF5 file', 'export its rows as JSON lines'],
  ['80', 'a Python pickle', 'write its rows as JSON lines'],
  ['fffe', 'text in UTF-16', 'save it as UTF-8'],
  ['feff', 'text in UTF-16', 'save it as UTF-8'],
];

const SAFETENSORS = ['', 'a safetensors file: weights, no rows', 'give a file of rows'] as const;
/** 8 bytes that say how long a header of JSON is, then that. */
const isSafetensors = (head: Buffer): boolean =>
  head.length > 9 && head.readBigUInt64LE(0) < 2n ** 27n && /^\{\s*"/.test(head.toString('latin1', 8));

/** @throws {DataError} unreadable, file_kind */
export async function sourceOf(file: string): Promise<Source> {
  try {
    await using handle = await openInput(file);
    const head = Buffer.alloc(HEAD_BYTES);
    const { bytesRead } = await handle.read(head, 0, HEAD_BYTES, 0);
    const source = SOURCES.find((s) => s.accepts(file, head.subarray(0, bytesRead))) ?? jsonl;
    const mark = head.toString('hex', 0, bytesRead);
    const others = isSafetensors(head.subarray(0, bytesRead)) ? [SAFETENSORS] : OTHERS;
    const other = source === jsonl ? others.find(([m]) => mark.startsWith(m)) : undefined;
    if (other)
      throw new DataError(
        'file_kind',
        `${file}: is ${other[1]}, wanted JSON lines, a JSON array, Parquet or Arrow; ${other[2]}`,
        {
          file,
        },
      );
    return source;
  } catch (e) {
    throw unreadable(file, e);
  }
}

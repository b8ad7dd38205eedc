// The kinds of file that rows are read from, told apart by their first bytes; the first that accepts a file reads it.
// To add one: its file here, one import, one entry before jsonl, which takes whatever is left.
import { open } from 'node:fs/promises';
import { HEAD_BYTES, type Source } from '../source.js';
import { arrow } from './arrow.js';
import { unreadable } from './bytes.js';
import { gzip } from './gzip.js';
import { json } from './json.js';
import { jsonl } from './jsonl.js';
import { parquet } from './parquet.js';

export const SOURCES: readonly Source[] = [arrow, parquet, gzip, json, jsonl];

/** @throws {DataError} unreadable */
export async function sourceOf(file: string): Promise<Source> {
  try {
    await using handle = await open(file, 'r');
    const head = Buffer.alloc(HEAD_BYTES);
    const { bytesRead } = await handle.read(head, 0, HEAD_BYTES, 0);
    return SOURCES.find((s) => s.accepts(file, head.subarray(0, bytesRead))) ?? jsonl;
  } catch (e) {
    throw unreadable(file, e);
  }
}

// Arrow IPC, the file form (.arrow, .feather) and the stream form. One record batch is held at a time.

import type { FileHandle } from 'node:fs/promises';
import { openInput } from '../../base/inputs.js';
import type { Source } from '../source.js';
import { readTable } from './table.js';

const MAGIC = Buffer.from('ARROW1');
const END_OF_STREAM = Buffer.from('ffffffff00000000', 'hex');

/**
 * The file as arrow-js may read it. A stream that was cut between two of its messages looks like one that ended there:
 * only its end mark tells. A damaged length may send the reader back to where it was, for ever: a stream is read
 * forwards only, and the file form, whose footer is read first, not much more often than once.
 */
async function guarded(handle: FileHandle): Promise<FileHandle> {
  const { size } = await handle.stat();
  const bytes = Buffer.alloc(8);
  await handle.read(bytes, 0, 8, 0);
  const isStream = !MAGIC.equals(bytes.subarray(0, MAGIC.length));
  if (isStream) {
    await handle.read(bytes, 0, 8, Math.max(0, size - 8));
    if (!END_OF_STREAM.equals(bytes)) throw new Error('the stream does not end in its end mark, it was cut off');
  }
  let at = 0;
  let left = 2 * size + 2 ** 16;
  return {
    fd: handle.fd,
    stat: () => handle.stat(),
    close: () => Promise.resolve(),
    read(into: Uint8Array, offset: number, length: number, position: number) {
      left -= length;
      // The first bytes are looked at twice, to tell the two forms apart.
      if (left < 0 || (isStream && position < at && at > 8)) throw new Error('a length in it points backwards');
      at = position;
      return handle.read(into, offset, length, position);
    },
  } as unknown as FileHandle;
}

async function* recordBatches(file: string): AsyncGenerator<{ readonly rows: number; at(row: number): unknown }> {
  // Loaded when an Arrow file is met: most runs never do.
  const { MapRow, RecordBatchReader, StructRow, Vector } = await import('apache-arrow');
  await using handle = await openInput(file);
  const most = (await handle.stat()).size;
  /** Vectors become arrays, structs and maps objects. */
  const unwrapped = (value: unknown): unknown => {
    // A damaged offset makes a list of what is not in the file.
    if (value instanceof Vector && value.length > most) throw new Error(`a list has ${value.length} entries`);
    if (value instanceof Vector) return Array.from(value as Iterable<unknown>, unwrapped);
    if (value instanceof StructRow || value instanceof MapRow)
      return Object.fromEntries(Array.from(value, ([k, v]) => [String(k), unwrapped(v)]));
    return value;
  };
  const reader = await RecordBatchReader.from(await guarded(handle));
  for await (const batch of reader) yield { rows: batch.numRows, at: (row) => unwrapped(batch.get(row)) };
}

export const arrow: Source = {
  name: 'arrow',
  unit: 'row',
  /** A stream begins with the continuation mark of its first message; no text does. */
  accepts: (_, head) =>
    MAGIC.equals(head.subarray(0, MAGIC.length)) || (head.length >= 8 && head.subarray(0, 4).every((b) => b === 0xff)),
  read: (file, signal) => readTable(file, 'an Arrow file', 'write it again, uncompressed', recordBatches, signal),
};

// Arrow IPC, the file form (.arrow, .feather) and the stream form. One record batch is held at a time.
import { openInput } from '../../base/inputs.js';
import type { Source } from '../source.js';
import { readTable } from './table.js';

const MAGIC = Buffer.from('ARROW1');
/** Of the first message of a stream as it was written before 0.15: no continuation mark, a length of a few KiB. */
const isOldStream = (file: string, head: Uint8Array): boolean =>
  /\.(arrow|arrows|stream|feather)$/i.test(file) &&
  head.length >= 8 &&
  Buffer.from(head.buffer, head.byteOffset, 4).readUInt32LE(0) < 2 ** 20;

async function* batches(file: string): AsyncGenerator<{ readonly rows: number; at(row: number): unknown }> {
  // Loaded when an Arrow file is met: most runs never do.
  const { recordBatches } = await import('./arrow/batches.js');
  await using handle = await openInput(file);
  yield* recordBatches(file, handle);
}

export const arrow: Source = {
  name: 'arrow',
  unit: 'row',
  /** A stream begins with the continuation mark of its first message; no text does. */
  accepts: (file, head) =>
    MAGIC.equals(head.subarray(0, MAGIC.length)) ||
    (head.length >= 8 && head.subarray(0, 4).every((b) => b === 0xff)) ||
    isOldStream(file, head),
  read: (file, signal) => readTable(file, 'an Arrow file', 'write it again', batches, signal),
};

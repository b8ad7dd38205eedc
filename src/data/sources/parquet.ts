// Parquet, a page of each column at a time.
import { openInput, readAt } from '../../base/inputs.js';
import type { Source } from '../source.js';
import { readTable } from './table.js';

async function* groups(file: string): AsyncGenerator<{ readonly rows: number; at(row: number): unknown }> {
  // Loaded when a Parquet file is met: most runs never do.
  const [{ rowGroups }, { FileBytes }] = await Promise.all([
    import('./parquet/rows.js'),
    import('./parquet/column.js'),
  ]);
  await using handle = await openInput(file);
  const { size } = await handle.stat();
  yield* rowGroups(new FileBytes(file, size, (into, at) => readAt(handle, into, at)));
}

/** PARE: with encrypted metadata. */
const MAGIC = ['PAR1', 'PARE'];

export const parquet: Source = {
  name: 'parquet',
  unit: 'row',
  accepts: (_, head) => MAGIC.includes(Buffer.from(head.buffer, head.byteOffset, head.length).toString('latin1', 0, 4)),
  read: (file, signal) => readTable(file, 'a Parquet file', 'write it again', groups, signal),
};

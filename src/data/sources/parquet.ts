// Parquet. One row group is held at a time, decoded; a group too large to hold is refused.
import type { FileMetaData, SchemaTree } from 'hyparquet';
import { DataError } from '../../base/errors.js';
import type { Source } from '../source.js';
import { checkRows, readTable } from './table.js';

/** Uncompressed bytes of a row group; JavaScript's objects take several times as much. */
const MAX_GROUP_BYTES = 512 * 2 ** 20;

/**
 * Every column chunk must have its column in the schema. hyparquet finds that out after it began to read the chunks
 * before, whose failure nobody then waits for: it would end the process.
 */
function checkColumns(metadata: FileMetaData, schema: SchemaTree): void {
  const known = new Set<string>();
  const walk = (node: SchemaTree): void => {
    known.add(node.path.join('\0'));
    for (const child of node.children) walk(child);
  };
  walk(schema);
  for (const { columns } of metadata.row_groups)
    for (const { meta_data: column } of columns)
      if (!column || !known.has(column.path_in_schema.join('\0')))
        throw new Error(`column ${column?.path_in_schema.join('.') ?? ''} is not in the schema`);
}

async function* rowGroups(file: string): AsyncGenerator<{ readonly rows: number; at(row: number): unknown }> {
  // Loaded when a Parquet file is met: most runs never do.
  const [{ asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema }, { compressors }] =
    await Promise.all([import('hyparquet'), import('hyparquet-compressors')]);
  const buffer = await asyncBufferFromFile(file);
  const metadata = await parquetMetadataAsync(buffer);
  checkColumns(metadata, parquetSchema(metadata));
  let rowStart = 0;
  for (const [g, group] of metadata.row_groups.entries()) {
    const bytes = Number(group.total_byte_size);
    if (bytes > MAX_GROUP_BYTES)
      throw new DataError(
        'row_group_too_large',
        `${file}: row group ${g + 1} has ${bytes} bytes, at most ${MAX_GROUP_BYTES} are held at a time; write the ` +
          'file with smaller row groups (row_group_size)',
        { file, group: g + 1, bytes },
      );
    const rowEnd = rowStart + Number(group.num_rows);
    checkRows(rowEnd, buffer.byteLength);
    const rows = await parquetReadObjects({ file: buffer, metadata, rowStart, rowEnd, compressors });
    yield { rows: rows.length, at: (row) => rows[row] };
    rowStart = rowEnd;
  }
}

const MAGIC = Buffer.from('PAR1');

export const parquet: Source = {
  name: 'parquet',
  unit: 'row',
  accepts: (_, head) => MAGIC.equals(head.subarray(0, MAGIC.length)),
  read: (file, signal) => readTable(file, 'a Parquet file', 'write it again', rowGroups, signal),
};

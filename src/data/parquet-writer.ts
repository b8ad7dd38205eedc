// Rows as a Parquet file, a row group at a time. Everything may be absent; lists are written as today's readers expect
// them, in three levels.
import { ByteWriter, ParquetWriter, type SchemaElement } from 'hyparquet-writer';
import { DataError } from '../base/errors.js';
import { OutputFile } from '../base/files.js';
import { type Shape, shaped, writable } from './shape.js';

/** A row group ends at so many rows, or so many letters and numbers of its values. */
const GROUP_ROWS = 1000;
const GROUP_SIZE = 2 ** 24;

/** Gives its bytes to a file after every row group. */
class FileWriter extends ByteWriter {
  constructor(readonly file: OutputFile) {
    super(2 ** 20);
  }
  flush(): void {
    this.file.writeSync(this.getBytes());
    this.index = 0;
  }
  override finish(): void {
    this.flush();
  }
}

const LEAVES: Readonly<Record<string, Pick<SchemaElement, 'type' | 'converted_type' | 'logical_type'>>> = {
  boolean: { type: 'BOOLEAN' },
  integer: { type: 'INT64' },
  number: { type: 'DOUBLE' },
  text: { type: 'BYTE_ARRAY', converted_type: 'UTF8' },
  // By its logical type alone: the library makes JSON of values of the older one.
  json: { type: 'BYTE_ARRAY', logical_type: { type: 'JSON' } },
};

function elementsOf(name: string, shape: Shape): SchemaElement[] {
  const optional = { name, repetition_type: 'OPTIONAL' } as const;
  if (shape.kind === 'list')
    return [
      { ...optional, converted_type: 'LIST', num_children: 1 },
      { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
      ...elementsOf('element', shape.element),
    ];
  if (shape.kind === 'struct')
    return [
      { ...optional, num_children: shape.fields.size },
      ...[...shape.fields].flatMap(([k, s]) => elementsOf(k, s)),
    ];
  return [{ ...optional, ...LEAVES[shape.kind] }];
}

/** About how much a value takes. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length + 8;
  if (typeof value !== 'object' || value === null) return 8;
  return Object.values(value).reduce<number>((n, v) => n + sizeOf(v), 8);
}

/**
 * Writes the rows whose kinds of value `shape` says; the file is there whole or not at all.
 * @returns rows written · @throws {DataError} no_columns · {ConfigError} output_unwritable · the signal's reason
 */
export async function writeParquet(
  out: string,
  shape: Shape,
  rows: AsyncIterable<object>,
  signal?: AbortSignal,
): Promise<number> {
  const whole = writable(shape);
  if (whole?.kind !== 'struct')
    throw new DataError('no_columns', `${out}: the rows have no fields that a table could have columns for`, {
      file: out,
    });
  const fields = [...whole.fields];
  const file = await OutputFile.open(out, signal);
  try {
    const schema = [{ name: 'root', num_children: fields.length }, ...fields.flatMap(([k, s]) => elementsOf(k, s))];
    const writer = new ParquetWriter({
      writer: new FileWriter(file),
      schema,
      statistics: false,
      createdBy: 'temper-oss',
    });
    let [group, size, written] = [[] as object[], 0, 0];
    const flush = async (): Promise<void> => {
      if (group.length === 0) return;
      const columnData = fields.map(([name, s]) => ({
        name,
        data: group.map((row) => shaped((row as Record<string, unknown>)[name], s)),
      }));
      await writer.write({ columnData, rowGroupSize: group.length });
      [group, size] = [[], 0];
    };
    for await (const row of rows) {
      group.push(row);
      size += sizeOf(row);
      written++;
      if (group.length < GROUP_ROWS && size < GROUP_SIZE) continue;
      signal?.throwIfAborted();
      await flush();
    }
    await flush();
    await writer.finish();
    file.commit();
    return written;
  } finally {
    file.discard();
  }
}

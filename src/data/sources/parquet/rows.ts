// Rows of a Parquet file: the entries of its columns put together again, a row at a time. Columns that do not agree on
// what is there are an error, as is a row group with more or fewer rows than it says.
import { put } from '../arrow/columns.js';
import { codecs } from './codecs.js';
import { ColumnCursor, FileBytes } from './column.js';
import { damaged } from './encodings.js';
import { type Metadata, type Node, type RowGroup, readMetadata } from './schema.js';

/** Entries of lists of one row. */
const MAX_ENTRIES = 2 ** 24;
const MAX_METADATA = 2 ** 28;

class RowReader {
  #entries = 0;
  constructor(
    readonly root: Node,
    readonly columns: readonly ColumnCursor[],
  ) {}

  row(): unknown {
    this.#entries = 0;
    const value = this.#fields(this.root);
    for (const c of this.columns) if (c.rep !== 0) throw damaged('a row goes on after its end');
    return value;
  }
  end(): void {
    for (const c of this.columns) if (!c.ended) throw damaged('a column has more rows than its row group');
  }

  /** undefined: null. */
  #field(node: Node): unknown {
    if (node.repetition === 'repeated') return this.#repeated(node, node);
    if (node.repetition === 'optional' && (this.columns[node.first]?.def ?? 0) < node.maxDef) {
      this.#skip(node);
      return undefined;
    }
    return this.#present(node);
  }
  #skip(node: Node): void {
    for (let i = node.first; i < node.end; i++) {
      const c = this.columns[i] as ColumnCursor;
      if (c.def >= node.maxDef) throw damaged('columns of one field disagree on whether it is there');
      c.skip();
    }
  }

  #present(node: Node): unknown {
    if (node.kind === 'leaf') return (this.columns[node.first] as ColumnCursor).take();
    for (let i = node.first; i < node.end; i++)
      if ((this.columns[i]?.def ?? 0) < node.maxDef)
        throw damaged('columns of one field disagree on whether it is there');
    const [inner] = node.children as [Node];
    if (node.kind === 'list') return this.#repeated(inner, elementOf(node, inner));
    if (node.kind === 'map') return mapOf(this.#repeated(inner, inner), inner);
    return this.#fields(node);
  }
  #fields(node: Node): Record<string, unknown> {
    const out: Record<string, unknown> = {};
    for (const child of node.children) put(out, child.name, this.#field(child));
    return out;
  }

  /** @param element what an entry is: the repeated node, or the only one in it */
  #repeated(node: Node, element: Node): unknown[] {
    const first = this.columns[node.first] as ColumnCursor;
    const out: unknown[] = [];
    if (first.def < node.maxDef) {
      this.#skip(node);
      return out;
    }
    do {
      if (++this.#entries > MAX_ENTRIES) throw damaged(`a row has more than ${MAX_ENTRIES} entries`);
      out.push((element === node ? this.#present(node) : this.#field(element)) ?? null);
      for (let i = node.first + 1; i < node.end; i++)
        if (this.columns[i]?.rep !== first.rep) throw damaged('columns of one list have different lengths');
      if (first.rep > node.maxRep) throw damaged('a list goes on after its end');
    } while (first.rep === node.maxRep && !first.ended);
    return out;
  }
}

/** Three levels in files of today, two in those of before. */
function elementOf(list: Node, repeated: Node): Node {
  const only = repeated.children.length === 1 && repeated.kind !== 'list' && repeated.kind !== 'map';
  return only && repeated.name !== 'array' && repeated.name !== `${list.name}_tuple`
    ? (repeated.children[0] as Node)
    : repeated;
}

function mapOf(entries: readonly unknown[], node: Node): Record<string, unknown> {
  const [key, value] = node.children.map((c) => c.name) as [string, string | undefined];
  const out: Record<string, unknown> = {};
  for (const e of entries) {
    const entry = e as Record<string, unknown>;
    const name = String(entry[key] ?? null);
    if (Object.hasOwn(out, name)) throw new Error(`a map has the key ${JSON.stringify(name.slice(0, 60))} twice`);
    put(out, name, (value === undefined ? undefined : entry[value]) ?? null);
  }
  return out;
}

const MAGIC = 'PAR1';
async function metadataOf(bytes: FileBytes): Promise<Metadata> {
  if (bytes.size < 12) throw new Error('it was cut off');
  const tail = bytes.all(bytes.size - 8, 8);
  const mark = tail.toString('latin1', 4);
  if (mark === 'PARE') throw new Error('its metadata is encrypted');
  if (mark !== MAGIC) throw new Error('it does not end as a Parquet file does, it was cut off');
  const length = tail.readUInt32LE(0);
  if (length > bytes.size - 12 || length > MAX_METADATA) throw new Error(`its metadata has ${length} bytes`);
  return readMetadata(bytes.all(bytes.size - 8 - length, length), bytes.size);
}

/** Row groups in order; `at` gives their rows in order, whatever it is asked for. */
export async function* rowGroups(
  bytes: FileBytes,
): AsyncGenerator<{ readonly rows: number; at(row: number): unknown }, void, void> {
  const metadata = await metadataOf(bytes);
  const unpackers = await codecs();
  let rows = 0;
  for (const group of metadata.groups) {
    rows += group.rows;
    const reader = readerOf(bytes, metadata, group, unpackers);
    let left = group.rows;
    if (left === 0) reader.end();
    yield {
      rows: group.rows,
      at: () => {
        const row = reader.row();
        if (--left === 0) reader.end();
        return row;
      },
    };
  }
  // Some writers do not count them there.
  if (rows !== metadata.rows && metadata.rows !== 0)
    throw new Error(`its row groups have ${rows} rows, it says ${metadata.rows}`);
}

function readerOf(
  { file, size, read }: FileBytes,
  { root, leaves }: Metadata,
  { chunks }: RowGroup,
  unpackers: Awaited<ReturnType<typeof codecs>>,
): RowReader {
  const columns = leaves.map((leaf, i) => {
    const chunk = chunks[i];
    const unpack = chunk && unpackers[chunk.codec];
    if (!unpack) throw new Error(`a column is compressed in the way ${chunk?.codec}, which cannot be read`);
    // A window on the file of its own: columns are read in turn.
    return new ColumnCursor(new FileBytes(file, size, read), leaf, chunk, unpack);
  });
  return new RowReader(root, columns);
}

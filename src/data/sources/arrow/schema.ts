// Arrow's schema: fields with their types, from the metadata of a file or stream.
import { UnreadType } from '../table.js';
import type { FlatTable } from './flatbuffer.js';

const KINDS = [
  'none',
  'null',
  'int',
  'float',
  'binary',
  'utf8',
  'bool',
  'decimal',
  'date',
  'time',
  'timestamp',
  'interval',
  'list',
  'struct',
  'union',
  'fixedBinary',
  'fixedList',
  'map',
  'duration',
  'largeBinary',
  'largeUtf8',
  'largeList',
  'runEnd',
  'binaryView',
  'utf8View',
  'listView',
  'largeListView',
] as const;
export type Kind = (typeof KINDS)[number];

/** Canonical extension types that say what their storage means; others stand for their storage. */
const EXTENSIONS: Readonly<Record<string, { readonly of: readonly Kind[]; readonly as: Extension }>> = {
  'arrow.json': { of: ['utf8', 'largeUtf8', 'utf8View'], as: 'json' },
  'arrow.uuid': { of: ['fixedBinary'], as: 'uuid' },
  'arrow.bool8': { of: ['int'], as: 'bool' },
};
export type Extension = 'json' | 'uuid' | 'bool';

export interface Field {
  readonly name: string;
  readonly kind: Kind;
  /** What the values mean where their type does not say it. */
  readonly extension: Extension | null;
  /** Of int, decimal, time: bits of a value; of fixedBinary: bytes; of fixedList: entries. */
  readonly width: number;
  readonly signed: boolean;
  /** Of decimal. */
  readonly scale: number;
  /** Of float, date, time, timestamp, duration, interval: as the format counts them; of union: 1 is dense. */
  readonly unit: number;
  /** Of union: the type id of each child. */
  readonly typeIds: readonly number[];
  readonly children: readonly Field[];
  /** The number of its dictionary, and the type of its places there. */
  readonly dictionary: { readonly id: bigint; readonly index: Pick<Field, 'width' | 'signed'> } | null;
}
export interface Schema {
  readonly fields: readonly Field[];
  /** What each dictionary holds. */
  readonly dictionaries: ReadonlyMap<bigint, Field>;
}

/** Fields may share their metadata, so that few bytes could say any number of them. */
const MAX_FIELDS = 10_000;
const MAX_DEPTH = 64;
const MAX_NOTES = 100_000;

/** @throws {Error} it is damaged, or of a kind that cannot be read */
export function readSchema(table: FlatTable): Schema {
  if (table.i16(0) !== 0) throw new Error('its numbers are big-endian');
  let [count, notes] = [0, 0];
  const dictionaries = new Map<bigint, Field>();
  const read = (f: FlatTable, depth: number): Field => {
    if (++count > MAX_FIELDS || depth > MAX_DEPTH) throw new Error('its schema has too many fields');
    const children = f.tables(5).map((c) => read(c, depth + 1));
    const name = f.text(0);
    const type = typeOf(f);
    const said = f.tables(6);
    notes += said.length;
    if (notes > MAX_NOTES) throw new Error('its schema has too much metadata');
    const extension = extensionOf(name, type, said);
    const field = { name, children, ...type, extension, dictionary: dictionaryOf(f.table(4)) };
    checkChildren(field);
    if (field.dictionary) {
      const { dictionary, ...values } = field;
      if (!dictionaries.has(dictionary.id)) dictionaries.set(dictionary.id, { ...values, dictionary: null });
    }
    return field;
  };
  const fields = table.tables(1).map((f) => read(f, 0));
  checkNames(fields, 'columns');
  return { fields, dictionaries };
}

/** @param said metadata of the column, keys and values · @throws {UnreadType} VARIANT */
function extensionOf(name: string, { kind, width }: TypeFields, said: readonly FlatTable[]): Extension | null {
  const extension = said.find((kv) => kv.text(0) === 'ARROW:extension:name')?.text(1);
  if (extension === undefined) return null;
  if (/^(arrow\.)?parquet\.variant$/.test(extension)) throw new UnreadType(name, 'VARIANT');
  const known = Object.hasOwn(EXTENSIONS, extension) ? EXTENSIONS[extension] : undefined;
  if (!known?.of.includes(kind)) return null;
  const bytes = { json: 0, uuid: 16, bool: 8 }[known.as];
  return bytes === 0 || width === bytes ? known.as : null;
}

function dictionaryOf(d: FlatTable | null): Field['dictionary'] {
  if (!d) return null;
  const index = d.table(1);
  const width = index?.i32(0) ?? 32;
  if (![8, 16, 32, 64].includes(width)) throw new Error(`a dictionary's places have ${width} bits`);
  return { id: d.i64(0), index: { width, signed: index ? index.u8(1) !== 0 : true } };
}

type TypeFields = Pick<Field, 'kind' | 'width' | 'signed' | 'scale' | 'unit' | 'typeIds'>;
function typeOf(f: FlatTable): TypeFields {
  const kind = KINDS[f.u8(2)];
  const t = f.table(3);
  if (kind === undefined || kind === 'none' || !t) throw new Error(`a column has the type ${f.u8(2)}, not known here`);
  const base = { kind, width: 0, signed: false, scale: 0, unit: 0, typeIds: [] };
  const oneOf = (value: number, wanted: readonly number[]): number => {
    if (!wanted.includes(value)) throw new Error(`a ${kind} column has a width or unit of ${value}`);
    return value;
  };
  switch (kind) {
    case 'int':
      return { ...base, width: oneOf(t.i32(0), [8, 16, 32, 64]), signed: t.u8(1) !== 0 };
    case 'float':
      return { ...base, unit: oneOf(t.i16(0), [0, 1, 2]) };
    case 'decimal':
      return { ...base, scale: t.i32(1), width: oneOf(t.i32(2, 128), [32, 64, 128, 256]) };
    case 'date':
      return { ...base, unit: oneOf(t.i16(0, 1), [0, 1]) };
    case 'time':
      return { ...base, unit: oneOf(t.i16(0, 1), [0, 1, 2, 3]), width: oneOf(t.i32(1, 32), [32, 64]) };
    case 'timestamp':
      return { ...base, unit: oneOf(t.i16(0), [0, 1, 2, 3]) };
    case 'duration':
      return { ...base, unit: oneOf(t.i16(0, 1), [0, 1, 2, 3]) };
    case 'interval':
      return { ...base, unit: oneOf(t.i16(0), [0, 1, 2]) };
    case 'fixedBinary':
    case 'fixedList': {
      const width = t.i32(0);
      if (width < 0) throw new Error(`a ${kind} column has a width of ${width}`);
      return { ...base, width };
    }
    case 'union': {
      const ids = t.vector(1, 4).map((place) => t.view.getInt32(place, true));
      return { ...base, unit: oneOf(t.i16(0), [0, 1]), typeIds: ids };
    }
    default:
      return base;
  }
}

const ONE_CHILD: readonly Kind[] = ['list', 'largeList', 'listView', 'largeListView', 'fixedList', 'map'];

function checkChildren({ kind, children, name, typeIds, dictionary }: Field): void {
  const wrong = (): never => {
    throw new Error(`column ${JSON.stringify(name.slice(0, 60))} of type ${kind} has ${children.length} children`);
  };
  if (ONE_CHILD.includes(kind) && children.length !== 1) wrong();
  if (kind === 'runEnd' && !(children.length === 2 && children[0]?.kind === 'int' && !children[0].dictionary)) wrong();
  if (kind === 'map' && !(children[0]?.kind === 'struct' && children[0].children.length === 2)) wrong();
  if (kind === 'union' && typeIds.length > 0 && typeIds.length !== children.length) wrong();
  if (kind === 'struct') checkNames(children, 'fields');
  const nested = children.length > 0;
  if (nested && !ONE_CHILD.includes(kind) && !['struct', 'union', 'runEnd'].includes(kind)) wrong();
  if (dictionary && kind === 'runEnd') wrong();
}

/** Two of one name would become one in a row. */
function checkNames(fields: readonly Field[], what: string): void {
  const names = new Set(fields.map((f) => f.name));
  if (names.size === fields.length) return;
  const twice = fields.find((f, i) => fields.findIndex((g) => g.name === f.name) !== i);
  throw new Error(`two ${what} are called ${JSON.stringify(twice?.name.slice(0, 60))}`);
}

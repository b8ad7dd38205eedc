// Parquet's schema as a tree, and its row groups, from the metadata at the end of a file.
import { UnreadType } from '../table.js';
import { ThriftReader, type ThriftStruct } from './thrift.js';

export type Physical = 'boolean' | 'int32' | 'int64' | 'int96' | 'float' | 'double' | 'bytes' | 'fixed';
const PHYSICAL: readonly Physical[] = ['boolean', 'int32', 'int64', 'int96', 'float', 'double', 'bytes', 'fixed'];

/** What the values of a leaf mean; `time` and unknown ones stand for themselves. */
export type Meaning =
  | 'plain'
  | 'text'
  | 'json'
  | 'bytes'
  | 'decimal'
  | 'day'
  | 'moment'
  | 'unsigned'
  | 'uuid'
  | 'half'
  | 'interval';

export interface Leaf {
  readonly physical: Physical;
  /** Of fixed: bytes of a value. */
  readonly bytes: number;
  readonly meaning: Meaning;
  readonly scale: number;
  /** Of moment: digits of a second that a unit is. */
  readonly digits: 0 | 3 | 6 | 9;
  /** Path in the file's metadata. */
  readonly path: string;
  readonly maxDef: number;
  readonly maxRep: number;
}
export interface Node {
  readonly name: string;
  readonly repetition: 'required' | 'optional' | 'repeated';
  /** Levels from which on it is there. */
  readonly maxDef: number;
  readonly maxRep: number;
  readonly kind: 'leaf' | 'list' | 'map' | 'struct';
  readonly children: readonly Node[];
  /** Its leaves are those from `first` to before `end`. */
  readonly first: number;
  readonly end: number;
}
export interface Chunk {
  readonly from: number;
  readonly to: number;
  readonly codec: number;
  readonly values: number;
}
export interface RowGroup {
  readonly rows: number;
  readonly bytes: number;
  /** One for each leaf, in their order. */
  readonly chunks: readonly Chunk[];
}
export interface Metadata {
  readonly root: Node;
  readonly leaves: readonly Leaf[];
  readonly rows: number;
  readonly groups: readonly RowGroup[];
}

const MAX_DEPTH = 64;
/** Logical type of values that say their own type, as a group of two columns of bytes. */
const VARIANT = 16;
const REPETITION = ['required', 'optional', 'repeated'] as const;
/** Converted types, by number. */
const CONVERTED: Readonly<Record<number, Meaning>> = {
  0: 'text',
  4: 'text',
  5: 'decimal',
  6: 'day',
  9: 'moment',
  10: 'moment',
  13: 'unsigned',
  14: 'unsigned',
  19: 'json',
  20: 'bytes',
  21: 'interval',
};
/** Logical types, by their field. */
const LOGICAL: Readonly<Record<number, Meaning>> = {
  1: 'text',
  4: 'text',
  5: 'decimal',
  6: 'day',
  8: 'moment',
  12: 'json',
  13: 'bytes',
  14: 'uuid',
  15: 'half',
  17: 'bytes',
  18: 'bytes',
};

function meaningOf(e: ThriftStruct, physical: Physical): Pick<Leaf, 'meaning' | 'scale' | 'digits'> {
  const logical = e.struct(10);
  const [key] = logical?.fields.keys() ?? [];
  const type = key === undefined ? null : logical?.struct(key);
  const converted = e.int(6, -1);
  const unit = type?.struct(2);
  const digits = key === 8 ? (unit?.has(1) ? 3 : unit?.has(2) ? 6 : 9) : converted === 9 ? 3 : 6;
  const scale = key === 5 ? (type?.int(1, 0) ?? 0) : e.int(7, 0);
  let meaning = (key === undefined ? undefined : LOGICAL[key]) ?? CONVERTED[converted] ?? 'plain';
  if (key === 10 && type && !type.bool(2, true)) meaning = 'unsigned';
  const fits: Partial<Record<Meaning, readonly Physical[]>> = {
    text: ['bytes', 'fixed'],
    json: ['bytes'],
    decimal: ['int32', 'int64', 'bytes', 'fixed'],
    day: ['int32'],
    moment: ['int64'],
    unsigned: ['int32', 'int64'],
    uuid: ['fixed'],
    half: ['fixed'],
    interval: ['fixed'],
  };
  if (fits[meaning] && !fits[meaning]?.includes(physical)) meaning = 'plain';
  const bytes = e.int(2, 0);
  const exact = { uuid: 16, half: 2, interval: 12 }[meaning as 'uuid'];
  if (exact !== undefined && bytes !== exact) throw new Error(`a ${meaning} column has ${bytes} bytes a value`);
  return { meaning, scale, digits };
}

const isLogical = (e: ThriftStruct, converted: readonly number[], logical: number): boolean =>
  converted.includes(e.int(6, -1)) || e.struct(10)?.has(logical) === true;

/** What a group stands for, by its annotation and its shape. */
function kindOf(e: ThriftStruct, children: readonly Node[]): Node['kind'] {
  const [only] = children;
  if (children.length !== 1 || only?.repetition !== 'repeated') return 'struct';
  if (isLogical(e, [3], 3)) return 'list';
  const entry = only.kind === 'struct' && only.children.length >= 1 && only.children.length <= 2;
  return isLogical(e, [1, 2], 2) && entry && only.children[0]?.kind === 'leaf' ? 'map' : 'struct';
}

function treeOf(elements: readonly ThriftStruct[]): Pick<Metadata, 'root' | 'leaves'> {
  const leaves: Leaf[] = [];
  let next = 0;
  const read = (path: readonly string[], def: number, rep: number, depth: number): Node => {
    const e = elements[next++];
    if (!e || depth > MAX_DEPTH) throw new Error('its schema is cut off');
    const isRoot = depth === 0;
    const repetition = isRoot ? 'required' : REPETITION[e.int(3, 0)];
    if (!repetition) throw new Error(`a column repeats in the way ${e.int(3)}`);
    const maxDef = def + (repetition === 'required' ? 0 : 1);
    const maxRep = rep + (repetition === 'repeated' ? 1 : 0);
    const name = isRoot ? '' : e.text(4);
    const own = isRoot ? [] : [...path, name];
    if (e.struct(10)?.has(VARIANT)) throw new UnreadType(own.join('.'), 'VARIANT');
    const first = leaves.length;
    const count = e.count(5, 0);
    if (count === 0 && !e.has(1)) {
      if (!isRoot) throw new Error(`column ${own.join('.').slice(0, 60)} has neither a type nor fields`);
      return { name, repetition, maxDef, maxRep, kind: 'struct', children: [], first, end: first };
    }
    if (count === 0) {
      const physical = PHYSICAL[e.int(1)];
      if (!physical) throw new Error(`a column has the type ${e.int(1)}`);
      const bytes = physical === 'fixed' ? e.count(2) : 0;
      leaves.push({ physical, bytes, ...meaningOf(e, physical), path: own.join('\0'), maxDef, maxRep });
      return { name, repetition, maxDef, maxRep, kind: 'leaf', children: [], first, end: first + 1 };
    }
    if (count > elements.length) throw new Error('its schema is cut off');
    const children = Array.from({ length: count }, () => read(own, maxDef, maxRep, depth + 1));
    const names = new Set(children.map((c) => c.name));
    if (names.size !== children.length) throw new Error(`two fields of ${own.join('.') || 'a row'} have one name`);
    const kind = isRoot ? 'struct' : kindOf(e, children);
    return { name, repetition, maxDef, maxRep, kind, children, first, end: leaves.length };
  };
  const root = read([], 0, 0, 0);
  if (next !== elements.length) throw new Error('its schema has columns that belong to nothing');
  return { root, leaves };
}

function groupOf(g: ThriftStruct, leaves: readonly Leaf[], fileBytes: number): RowGroup {
  const columns = g.structs(1);
  const byPath = new Map<string, Chunk>();
  for (const column of columns) {
    if (column.has(8) || column.has(9)) throw new Error('a column is encrypted');
    const m = column.struct(3);
    if (!m) throw new Error('a column has no metadata');
    if (column.text(1) !== '') throw new Error('a column lies in another file');
    const path = m.list(3).map((p) => (Buffer.isBuffer(p) ? p.toString('utf8') : ''));
    const [data, dictionary] = [m.count(9), m.int(11, 0)];
    const from = dictionary > 0 && dictionary < data ? dictionary : data;
    // Old writers did not count the header of a dictionary.
    const to = Math.min(from + m.count(7) + 128, fileBytes);
    if (from + m.count(7) > fileBytes) throw new Error('a column lies past its end, it was cut off');
    byPath.set(path.join('\0'), { from, to, codec: m.int(4), values: m.count(5) });
  }
  if (byPath.size !== columns.length || columns.length !== leaves.length)
    throw new Error(`a row group has ${columns.length} columns, the schema ${leaves.length}`);
  const chunks = leaves.map((leaf) => {
    const chunk = byPath.get(leaf.path);
    if (!chunk) throw new Error(`column ${leaf.path.replaceAll('\0', '.').slice(0, 60)} is not in a row group`);
    return chunk;
  });
  return { rows: g.count(3), bytes: g.count(2), chunks };
}

/** @param bytes the metadata, without its length and mark · @throws {Error} what is wrong with it */
export function readMetadata(bytes: Buffer, fileBytes: number): Metadata {
  const file = new ThriftReader(bytes).struct();
  const { root, leaves } = treeOf(file.structs(2));
  return { root, leaves, rows: file.count(3), groups: file.structs(4).map((g) => groupOf(g, leaves, fileBytes)) };
}

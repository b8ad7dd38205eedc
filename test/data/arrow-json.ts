// Arrow's integration JSON as plain rows: an independent reading of what a file holds, written down by its writer.
import { day, decimal, integer, moment } from '../../src/data/sources/cells.js';

interface JsonType {
  readonly name: string;
  readonly bitWidth?: number;
  readonly unit?: string;
  readonly precision?: string;
  readonly scale?: number;
  readonly listSize?: number;
  readonly mode?: string;
  readonly typeIds?: readonly number[];
}
export interface JsonField {
  readonly name: string;
  readonly type: JsonType;
  readonly children: readonly JsonField[];
  readonly metadata?: readonly { readonly key: string; readonly value: string }[];
  readonly dictionary?: { readonly id: number; readonly indexType: JsonType };
}
interface JsonColumn {
  readonly count: number;
  readonly VALIDITY?: readonly number[];
  readonly DATA?: readonly unknown[];
  readonly OFFSET?: readonly (number | string)[];
  readonly SIZE?: readonly (number | string)[];
  readonly TYPE_ID?: readonly number[];
  readonly VIEWS?: readonly {
    readonly SIZE: number;
    readonly INLINED?: string;
    readonly BUFFER_INDEX?: number;
    readonly OFFSET?: number;
  }[];
  readonly VARIADIC_DATA_BUFFERS?: readonly string[];
  readonly children?: readonly JsonColumn[];
}
interface JsonBatch {
  readonly count: number;
  readonly columns: readonly JsonColumn[];
}
export interface JsonFile {
  readonly schema: { readonly fields: readonly JsonField[] };
  readonly batches: readonly JsonBatch[];
  readonly dictionaries?: readonly { readonly id: number; readonly data: JsonBatch }[];
}

const bytes = (hex: string): number[] => [...Buffer.from(hex, 'hex')];
const DIGITS: Readonly<Record<string, 0 | 3 | 6 | 9>> = { SECOND: 0, MILLISECOND: 3, MICROSECOND: 6, NANOSECOND: 9 };
const numeric = (v: unknown): number | bigint => (typeof v === 'string' ? integer(BigInt(v)) : (v as number));

/** A value of a type without children. */
function leaf(type: JsonType, v: unknown): unknown {
  switch (type.name) {
    case 'bool':
      return v === 1 || v === true;
    case 'int':
      return numeric(v);
    case 'floatingpoint':
      return type.precision === 'SINGLE' ? Math.fround(v as number) : v;
    case 'decimal':
      return decimal(BigInt(v as string), type.scale ?? 0);
    case 'date':
      return type.unit === 'DAY' ? day(Number(v)) : moment(BigInt(v as string), 3);
    case 'timestamp':
      return moment(BigInt(v as string), DIGITS[type.unit ?? 'SECOND'] ?? 0);
    case 'interval': {
      if (type.unit !== 'MONTH_DAY_NANO') return v;
      const { months, days, nanoseconds } = v as { months: number; days: number; nanoseconds: number | string };
      return { months, days, nanoseconds: numeric(nanoseconds) };
    }
    case 'binary':
    case 'largebinary':
    case 'fixedsizebinary':
      return bytes(v as string);
    case 'time':
    case 'duration':
      return numeric(v);
    default:
      return v;
  }
}

function valueAt(
  field: JsonField,
  c: JsonColumn,
  i: number,
  dictionaries: ReadonlyMap<number, { readonly field: JsonField; readonly column: JsonColumn }>,
): unknown {
  const { type, children } = field;
  if (field.dictionary) {
    if (c.VALIDITY?.[i] === 0) return undefined;
    const values = dictionaries.get(field.dictionary.id);
    return values && valueAt(values.field, values.column, Number(c.DATA?.[i]), dictionaries);
  }
  const child = (k: number, j: number): unknown =>
    valueAt(children[k] as JsonField, c.children?.[k] as JsonColumn, j, dictionaries);
  if (type.name === 'null') return undefined;
  if (type.name === 'union') {
    const k = (type.typeIds ?? []).indexOf(c.TYPE_ID?.[i] ?? 0);
    return child(k, type.mode === 'DENSE' ? Number(c.OFFSET?.[i]) : i);
  }
  if (type.name === 'runendencoded') {
    const ends = c.children?.[0]?.DATA ?? [];
    return child(
      1,
      ends.findIndex((e) => Number(e) > i),
    );
  }
  if (c.VALIDITY?.[i] === 0) return undefined;
  if (field.metadata?.some((m) => m.key === 'ARROW:extension:name' && m.value === 'arrow.uuid'))
    return String(c.DATA?.[i])
      .toLowerCase()
      .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  const range = (from: number, to: number): unknown[] =>
    Array.from({ length: to - from }, (_, k) => child(0, from + k) ?? null);
  switch (type.name) {
    case 'struct':
      return Object.fromEntries(
        children.map((f, k) => [f.name, child(k, i)] as const).filter(([, v]) => v !== undefined),
      );
    case 'list':
    case 'largelist':
      return range(Number(c.OFFSET?.[i]), Number(c.OFFSET?.[i + 1]));
    case 'listview':
    case 'largelistview':
      return range(Number(c.OFFSET?.[i]), Number(c.OFFSET?.[i]) + Number(c.SIZE?.[i]));
    case 'fixedsizelist':
      return range(i * (type.listSize ?? 0), (i + 1) * (type.listSize ?? 0));
    case 'map': {
      const [key, value] = (children[0]?.children ?? []).map((f) => f.name) as [string, string];
      const entries = range(Number(c.OFFSET?.[i]), Number(c.OFFSET?.[i + 1])) as Record<string, unknown>[];
      return Object.fromEntries(entries.map((e) => [String(e[key]), e[value] ?? null]));
    }
    case 'utf8view':
    case 'binaryview': {
      const view = c.VIEWS?.[i];
      const isText = type.name === 'utf8view';
      if (view?.INLINED !== undefined) return isText ? view.INLINED : bytes(view.INLINED);
      const from = Buffer.from(c.VARIADIC_DATA_BUFFERS?.[view?.BUFFER_INDEX ?? 0] ?? '', 'hex');
      const part = from.subarray(view?.OFFSET ?? 0, (view?.OFFSET ?? 0) + (view?.SIZE ?? 0));
      return isText ? part.toString('utf8') : [...part];
    }
    default:
      return leaf(type, c.DATA?.[i]);
  }
}

/** All rows of the file as Temper would give them. */
export function rowsOfJson(file: JsonFile): Record<string, unknown>[] {
  const values = new Map<number, { readonly field: JsonField; readonly column: JsonColumn }>();
  const walk = (f: JsonField): void => {
    if (f.dictionary) {
      const data = file.dictionaries?.find((d) => d.id === f.dictionary?.id)?.data.columns[0];
      const { dictionary, ...field } = f;
      if (data) values.set(dictionary.id, { field, column: data });
    }
    f.children.forEach(walk);
  };
  file.schema.fields.forEach(walk);
  return file.batches.flatMap((b) =>
    Array.from({ length: b.count }, (_, i) =>
      Object.fromEntries(
        file.schema.fields
          .map((f, k) => [f.name, valueAt(f, b.columns[k] as JsonColumn, i, values)] as const)
          .filter(([, v]) => v !== undefined),
      ),
    ),
  );
}

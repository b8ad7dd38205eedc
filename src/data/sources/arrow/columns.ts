// A record batch as columns that give one value at a time. All lengths, offsets and places are checked against the
// buffers that they point into before the first value is asked for: a damaged batch throws, it gives no other rows.
import { parseJson } from '../../../base/json.js';
import { type Budget, day, decimal, half, integer, moment, signedBytes, utf8, uuid } from '../cells.js';
import type { Extension, Field, Schema } from './schema.js';

export interface Column {
  readonly length: number;
  /** undefined: null. */
  at(i: number): unknown;
}

/** What a batch's metadata says of it. */
export interface BatchShape {
  readonly rows: number;
  readonly nodes: readonly { readonly length: number; readonly nulls: number }[];
  /** Number of data buffers of each view column. */
  readonly variadic: readonly number[];
  /** Before version 5 a union had a validity buffer. */
  readonly unionsHaveValidity: boolean;
}

/** Values of a dictionary, those of later batches after those of earlier ones; each is made once. */
export class Dictionary implements Column {
  #parts: { readonly from: number; readonly column: Column }[] = [];
  #made: unknown[] = [];
  length = 0;
  add(column: Column): void {
    this.#parts.push({ from: this.length, column });
    this.length += column.length;
  }
  at(i: number): unknown {
    if (i in this.#made) return this.#made[i];
    const part = this.#parts.findLast((p) => p.from <= i);
    const value = part?.column.at(i - part.from);
    this.#made[i] = value;
    return value;
  }
}

const PER_UNIT = [0, 3, 6, 9] as const;
const damaged = (what: string): Error => new Error(`${what}, the batch is damaged`);

const MEANT: Readonly<Record<Extension, (stored: unknown) => unknown>> = {
  json: (text) => parseJson(text as string),
  uuid: (bytes) => uuid(Buffer.from(bytes as readonly number[])),
  bool: (byte) => byte !== 0,
};

export class BatchColumns {
  #node = 0;
  #buffer = 0;
  #view = 0;
  constructor(
    readonly shape: BatchShape,
    readonly buffers: readonly Buffer[],
    readonly dictionaries: ReadonlyMap<bigint, Dictionary>,
    readonly budget: Budget,
    /** Values that all of its bytes could hold, one a bit. */
    readonly most: number,
  ) {}

  /** @throws {Error} something in it points out of the batch */
  columns(fields: Schema['fields']): Column[] {
    const columns = fields.map((f) => this.column(f));
    for (const c of columns) if (c.length !== this.shape.rows) throw damaged('columns have different lengths');
    return columns;
  }

  column(field: Field): Column {
    const node = this.shape.nodes[this.#node++];
    if (!node) throw damaged('it has fewer columns than its schema');
    const { length } = node;
    if (length > Math.max(this.shape.rows, this.most)) throw damaged(`a column claims ${length} values`);
    if (field.dictionary) return this.#places(field, length, node.nulls);
    switch (field.kind) {
      case 'null':
        return { length, at: () => this.budget.take(1) };
      case 'union':
        return this.#union(field, length);
      case 'runEnd':
        return this.#runs(field, length);
      default: {
        const valid = this.#validity(length, node.nulls);
        const stored = this.#values(field, length);
        const meant = field.extension && MEANT[field.extension];
        const at = meant ? (i: number): unknown => meant(stored(i)) : stored;
        const { budget } = this;
        return {
          length,
          at: (i) => {
            budget.take(1);
            return valid(i) ? at(i) : undefined;
          },
        };
      }
    }
  }

  #next(): Buffer {
    const buffer = this.buffers[this.#buffer++];
    if (!buffer) throw damaged('it has fewer buffers than its schema');
    return buffer;
  }
  /** The next buffer, which must hold `count` values of `bytes` each. */
  #fixed(count: number, bytes: number): Buffer {
    const buffer = this.#next();
    if (count * bytes > buffer.length) throw damaged(`${count} values are in a buffer of ${buffer.length} bytes`);
    return buffer;
  }
  #bits(count: number): (i: number) => boolean {
    const bits = this.#next();
    if (Math.ceil(count / 8) > bits.length) throw damaged(`${count} bits are in a buffer of ${bits.length} bytes`);
    return (i) => (((bits[i >> 3] ?? 0) >> (i & 7)) & 1) === 1;
  }
  #validity(length: number, nulls: number): (i: number) => boolean {
    if (nulls !== 0) return this.#bits(length);
    this.#next();
    return () => true;
  }
  #integers(width: number, signed: boolean, length: number): (i: number) => number | bigint {
    const b = this.#fixed(length, width / 8);
    if (width === 8) return signed ? (i) => b.readInt8(i) : (i) => b.readUInt8(i);
    if (width === 16) return signed ? (i) => b.readInt16LE(2 * i) : (i) => b.readUInt16LE(2 * i);
    if (width === 32) return signed ? (i) => b.readInt32LE(4 * i) : (i) => b.readUInt32LE(4 * i);
    return signed ? (i) => integer(b.readBigInt64LE(8 * i)) : (i) => integer(b.readBigUInt64LE(8 * i));
  }
  /** `count` + 1 places that do not go down, none past `end`. */
  #offsets(count: number, large: boolean): { at(i: number): number; readonly last: number } {
    const b = this.#next();
    const bytes = large ? 8 : 4;
    // A column without values may have no offsets at all.
    if (count === 0 && b.length < bytes) return { at: () => 0, last: 0 };
    if ((count + 1) * bytes > b.length) throw damaged(`${count + 1} offsets are in a buffer of ${b.length} bytes`);
    const at = large ? (i: number): number => Number(b.readBigInt64LE(8 * i)) : (i: number) => b.readInt32LE(4 * i);
    let before = at(0);
    if (before < 0) throw damaged(`an offset is ${before}`);
    for (let i = 1; i <= count; i++) {
      const next = at(i);
      if (next < before) throw damaged(`an offset goes back from ${before} to ${next}`);
      before = next;
    }
    return { at, last: before };
  }

  #values(field: Field, length: number): (i: number) => unknown {
    const { kind, width, unit } = field;
    switch (kind) {
      case 'int':
        return this.#integers(width, field.signed, length);
      case 'float': {
        const b = this.#fixed(length, [2, 4, 8][unit] ?? 8);
        if (unit === 0) return (i) => half(b.readUInt16LE(2 * i));
        return unit === 1 ? (i) => b.readFloatLE(4 * i) : (i) => b.readDoubleLE(8 * i);
      }
      case 'bool':
        return this.#bits(length);
      case 'decimal': {
        const bytes = width / 8;
        const b = this.#fixed(length, bytes);
        return (i) => decimal(signedBytes(b.subarray(i * bytes, (i + 1) * bytes), true), field.scale);
      }
      case 'date': {
        const b = this.#fixed(length, unit === 0 ? 4 : 8);
        return unit === 0 ? (i) => day(b.readInt32LE(4 * i)) : (i) => moment(b.readBigInt64LE(8 * i), 3);
      }
      case 'timestamp': {
        const b = this.#fixed(length, 8);
        return (i) => moment(b.readBigInt64LE(8 * i), PER_UNIT[unit] ?? 0);
      }
      case 'time':
        return this.#integers(width, true, length);
      case 'duration':
        return this.#integers(64, true, length);
      case 'interval':
        return this.#intervals(unit, length);
      case 'utf8':
      case 'largeUtf8':
        return this.#texts(length, kind === 'largeUtf8', utf8);
      case 'binary':
      case 'largeBinary':
        return this.#texts(length, kind === 'largeBinary', (b) => [...b]);
      case 'utf8View':
        return this.#views(length, utf8);
      case 'binaryView':
        return this.#views(length, (b) => [...b]);
      case 'fixedBinary': {
        const b = this.#fixed(length, width);
        return (i) => {
          this.budget.take(width);
          return [...b.subarray(i * width, (i + 1) * width)];
        };
      }
      case 'struct':
        return this.#struct(field, length);
      case 'map':
        return this.#map(field, length);
      default:
        return this.#list(field, length);
    }
  }

  #intervals(unit: number, length: number): (i: number) => unknown {
    if (unit === 0) return this.#integers(32, true, length);
    const b = this.#fixed(length, unit === 1 ? 8 : 16);
    if (unit === 1) return (i) => ({ days: b.readInt32LE(8 * i), milliseconds: b.readInt32LE(8 * i + 4) });
    return (i) => ({
      months: b.readInt32LE(16 * i),
      days: b.readInt32LE(16 * i + 4),
      nanoseconds: integer(b.readBigInt64LE(16 * i + 8)),
    });
  }

  #texts(length: number, large: boolean, make: (bytes: Buffer) => unknown): (i: number) => unknown {
    const offsets = this.#offsets(length, large);
    const data = this.#next();
    if (offsets.last > data.length) throw damaged(`an offset is ${offsets.last}, past ${data.length} bytes`);
    return (i) => make(data.subarray(offsets.at(i), offsets.at(i + 1)));
  }

  #views(length: number, make: (bytes: Buffer) => unknown): (i: number) => unknown {
    const views = this.#fixed(length, 16);
    const count = this.shape.variadic[this.#view++] ?? 0;
    const data = Array.from({ length: Math.min(count, this.buffers.length) }, () => this.#next());
    return (i) => {
      const bytes = views.readInt32LE(16 * i);
      if (bytes < 0) throw damaged(`a text has ${bytes} bytes`);
      this.budget.take(bytes);
      if (bytes <= 12) return make(views.subarray(16 * i + 4, 16 * i + 4 + bytes));
      const from = data[views.readInt32LE(16 * i + 8)];
      const at = views.readInt32LE(16 * i + 12);
      if (!from || at < 0 || at + bytes > from.length) throw damaged('a text lies outside of its buffer');
      return make(from.subarray(at, at + bytes));
    };
  }

  #struct(field: Field, length: number): (i: number) => unknown {
    const children = field.children.map((f) => [f.name, this.column(f)] as const);
    for (const [, c] of children) if (c.length < length) throw damaged('a field is shorter than its struct');
    return (i) => {
      const out: Record<string, unknown> = {};
      for (const [name, c] of children) put(out, name, c.at(i));
      return out;
    };
  }

  #entries(child: Column, from: number, to: number): unknown[] {
    this.budget.take(to - from);
    const out = new Array<unknown>(to - from);
    for (let i = from; i < to; i++) out[i - from] = child.at(i) ?? null;
    return out;
  }

  #list(field: Field, length: number): (i: number) => unknown {
    const { kind, width } = field;
    const large = kind === 'largeList' || kind === 'largeListView';
    const views = kind === 'listView' || kind === 'largeListView';
    const inner = field.children[0] as Field;
    if (kind === 'fixedList') {
      const child = this.column(inner);
      if (length * width > child.length) throw damaged('a list is longer than its values');
      return (i) => this.#entries(child, i * width, (i + 1) * width);
    }
    if (!views) {
      const offsets = this.#offsets(length, large);
      const child = this.column(inner);
      if (offsets.last > child.length) throw damaged(`an offset is ${offsets.last}, past ${child.length} values`);
      return (i) => this.#entries(child, offsets.at(i), offsets.at(i + 1));
    }
    const [starts, sizes] = [
      this.#integers(large ? 64 : 32, true, length),
      this.#integers(large ? 64 : 32, true, length),
    ];
    const child = this.column(inner);
    return (i) => {
      const [from, size] = [Number(starts(i)), Number(sizes(i))];
      if (from < 0 || size < 0 || from + size > child.length) throw damaged('a list lies outside of its values');
      return this.#entries(child, from, from + size);
    };
  }

  #map(field: Field, length: number): (i: number) => unknown {
    const offsets = this.#offsets(length, false);
    const entries = this.column(field.children[0] as Field);
    if (offsets.last > entries.length) throw damaged(`an offset is ${offsets.last}, past ${entries.length} entries`);
    const [key, value] = (field.children[0] as Field).children.map((f) => f.name) as [string, string];
    return (i) => {
      const out: Record<string, unknown> = {};
      for (let k = offsets.at(i); k < offsets.at(i + 1); k++) {
        const entry = (entries.at(k) ?? {}) as Record<string, unknown>;
        const name = String(entry[key]);
        if (Object.hasOwn(out, name)) throw new Error(`a map has the key ${JSON.stringify(name.slice(0, 60))} twice`);
        put(out, name, entry[value] ?? null);
      }
      return out;
    };
  }

  #union(field: Field, length: number): Column {
    if (this.shape.unionsHaveValidity) this.#next();
    const types = this.#fixed(length, 1);
    const dense = field.unit === 1;
    const offsets = dense ? this.#fixed(length, 4) : null;
    const children = field.children.map((f) => this.column(f));
    const place = new Map(
      (field.typeIds.length > 0 ? field.typeIds : children.map((_, i) => i)).map((id, i) => [id, i]),
    );
    return {
      length,
      at: (i) => {
        this.budget.take(1);
        const child = children[place.get(types.readInt8(i)) ?? -1];
        const at = offsets ? offsets.readInt32LE(4 * i) : i;
        if (!child || at < 0 || at >= child.length) throw damaged('a union has a value that is not there');
        return child.at(at);
      },
    };
  }

  #runs(field: Field, length: number): Column {
    const [endsField, valuesField] = field.children as [Field, Field];
    const [ends, values] = [this.column(endsField), this.column(valuesField)];
    if (ends.length > values.length) throw damaged('a run has no value');
    const bounds = new Float64Array(ends.length);
    for (let i = 0; i < ends.length; i++) {
      const end = Number(ends.at(i) ?? 0);
      if (!(end > (bounds[i - 1] ?? 0))) throw damaged('a run ends before it begins');
      bounds[i] = end;
    }
    if ((bounds.at(-1) ?? 0) < length) throw damaged('its runs end before its rows');
    return {
      length,
      at: (i) => {
        let [low, high] = [0, bounds.length - 1];
        while (low < high) {
          const middle = (low + high) >> 1;
          if ((bounds[middle] ?? 0) > i) high = middle;
          else low = middle + 1;
        }
        return values.at(low);
      },
    };
  }

  #places(field: Field, length: number, nulls: number): Column {
    const { id, index } = field.dictionary as NonNullable<Field['dictionary']>;
    const valid = this.#validity(length, nulls);
    const at = this.#integers(index.width, index.signed, length);
    const dictionary = this.dictionaries.get(id);
    return {
      length,
      at: (i) => {
        this.budget.take(1);
        if (!valid(i)) return undefined;
        const place = Number(at(i));
        if (!dictionary || place < 0 || place >= dictionary.length)
          throw damaged(`a value is number ${place} of a dictionary of ${dictionary?.length ?? 0}`);
        return dictionary.at(place);
      },
    };
  }
}

/** A member by any name, `__proto__` too; what is undefined is left out. */
export function put(out: Record<string, unknown>, name: string, value: unknown): void {
  if (value === undefined) return;
  if (name === '__proto__')
    Object.defineProperty(out, name, { value, enumerable: true, writable: true, configurable: true });
  else out[name] = value;
}

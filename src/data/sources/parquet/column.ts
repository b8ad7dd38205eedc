// A column chunk, an entry at a time: its levels and, where they say that there is one, its value. One page is held.
import { crc32 } from 'node:zlib';
import { DataError } from '../../../base/errors.js';
import { parseJson } from '../../../base/json.js';
import { day, decimal, half, integer, moment, signedBytes, utf8, uuid } from '../cells.js';
import type { Unpack } from './codecs.js';
import { Deltas, damaged, deltaLengths, deltaTexts, Hybrid, plain, type Raw, streamSplit } from './encodings.js';
import type { Chunk, Leaf } from './schema.js';
import { ThriftEnd, ThriftReader, type ThriftStruct } from './thrift.js';

/** Bytes of a page, unpacked; one of each column is held. */
export const MAX_PAGE = 256 * 2 ** 20;
const MAX_HEADER = 2 ** 24;
const WINDOW = 2 ** 16;

/** The bytes of a file, read where they are asked for. */
export class FileBytes {
  #window: Buffer = Buffer.alloc(0);
  #from = 0;
  constructor(
    readonly file: string,
    readonly size: number,
    /** Fills the beginning of `into` from a place on. @returns how many bytes there were */
    readonly read: (into: Buffer, at: number) => number,
  ) {}
  /** At most `length` bytes; fewer at the end of the file. */
  some(at: number, length: number): Buffer {
    const end = Math.min(at + length, this.size);
    if (at >= this.#from && end <= this.#from + this.#window.length)
      return this.#window.subarray(at - this.#from, end - this.#from);
    const window = Buffer.allocUnsafe(Math.min(Math.max(length, WINDOW), Math.max(0, this.size - at)));
    for (let got = 0; got < window.length; ) {
      const n = this.read(window.subarray(got), at + got);
      if (n === 0) throw new Error('it became shorter while it was read');
      got += n;
    }
    this.#from = at;
    this.#window = window;
    return window.subarray(0, Math.max(0, end - at));
  }
  /** @throws {Error} the file ends before */
  all(at: number, length: number): Buffer {
    const bytes = this.some(at, length);
    if (bytes.length < length) throw new Error('a part of it lies past its end, it was cut off');
    return bytes;
  }
}

/** What a value of the leaf stands for. */
function converter(leaf: Leaf): (raw: Raw) => unknown {
  const { physical, meaning, scale, digits } = leaf;
  const unscaled = (raw: Raw): bigint =>
    Buffer.isBuffer(raw) ? signedBytes(raw, false) : BigInt(raw as number | bigint);
  switch (meaning) {
    case 'text':
      return (raw) => utf8(raw as Buffer);
    case 'json':
      return (raw) => parseJson(utf8(raw as Buffer));
    case 'decimal':
      return (raw) => decimal(unscaled(raw), scale);
    case 'day':
      return (raw) => day(raw as number);
    case 'moment':
      return (raw) => moment(raw as bigint, digits);
    case 'unsigned':
      return physical === 'int32'
        ? (raw) => (raw as number) >>> 0
        : (raw) => integer(BigInt.asUintN(64, raw as bigint));
    case 'uuid':
      return (raw) => uuid(raw as Buffer);
    case 'half':
      return (raw) => half((raw as Buffer).readUInt16LE(0));
    case 'interval':
      return (raw) => {
        const b = raw as Buffer;
        return { months: b.readUInt32LE(0), days: b.readUInt32LE(4), milliseconds: b.readUInt32LE(8) };
      };
    default:
      break;
  }
  if (physical === 'int64') return (raw) => integer(raw as bigint);
  if (physical === 'int96')
    return (raw) => {
      const b = raw as Buffer;
      const days = BigInt(b.readInt32LE(8)) - 2_440_588n;
      return moment(days * 86_400_000_000_000n + b.readBigInt64LE(0), 9);
    };
  // Bytes of no stated meaning are text where they are any: most writers of before stated none.
  if (physical === 'bytes' && meaning === 'plain')
    return (raw) => {
      try {
        return utf8(raw as Buffer);
      } catch {
        return [...(raw as Buffer)];
      }
    };
  return (raw) => (Buffer.isBuffer(raw) ? [...raw] : raw);
}

const bitsFor = (level: number): number => 32 - Math.clz32(level);
const DICTIONARY = [2, 8];

export class ColumnCursor {
  /** Levels of the entry in hand; rep is 0 and def −1 past the last one. */
  rep = 0;
  def = -1;
  #left: number;
  #inPage = 0;
  #reps: Hybrid | null = null;
  #defs: Hybrid | null = null;
  #values: () => unknown = () => undefined;
  #dictionary: readonly unknown[] | null = null;
  #at: number;
  readonly #convert: (raw: Raw) => unknown;
  constructor(
    readonly bytes: FileBytes,
    readonly leaf: Leaf,
    readonly chunk: Chunk,
    readonly unpack: Unpack,
  ) {
    this.#left = chunk.values;
    this.#at = chunk.from;
    this.#convert = converter(leaf);
    this.#advance();
  }
  get ended(): boolean {
    return this.def < 0;
  }

  /** The value of the entry in hand, which must have one; goes on to the next. */
  take(): unknown {
    if (this.def !== this.leaf.maxDef) throw damaged('a column has no value where its neighbours have one');
    const value = this.#values();
    this.#advance();
    return value;
  }
  /** Goes on past an entry without a value. */
  skip(): void {
    if (this.ended) throw damaged('a column has fewer rows than its neighbours');
    if (this.def === this.leaf.maxDef) throw damaged('a column has a value where its neighbours have none');
    this.#advance();
  }

  #advance(): void {
    while (this.#inPage === 0) {
      if (this.#left === 0) {
        this.rep = 0;
        this.def = -1;
        return;
      }
      this.#page();
    }
    this.#inPage--;
    const { maxRep, maxDef } = this.leaf;
    this.rep = this.#reps ? this.#reps.next() : 0;
    this.def = this.#defs ? this.#defs.next() : maxDef;
    if (this.rep > maxRep || this.def > maxDef) throw damaged(`levels ${this.rep} and ${this.def} are too high`);
  }

  /** The header of the next page; afterwards #at is where the page begins. */
  #header(): ThriftStruct {
    for (let most = 1024; ; most *= 8) {
      const room = Math.min(most, this.chunk.to - this.#at);
      const reader = new ThriftReader(this.bytes.some(this.#at, room));
      try {
        const header = reader.struct();
        this.#at += reader.at;
        return header;
      } catch (e) {
        if (!(e instanceof ThriftEnd) || room < most || most > MAX_HEADER) throw e;
      }
    }
  }

  #page(): void {
    if (this.#at >= this.chunk.to) throw damaged('a column has fewer values than it says');
    const header = this.#header();
    const [size, packed] = [header.count(2), header.count(3)];
    if (size > MAX_PAGE || packed > MAX_PAGE)
      throw new DataError(
        'row_group_too_large',
        `${this.bytes.file}: a page has ${Math.max(size, packed)} bytes, at most ${MAX_PAGE} are held at a time; ` +
          'write the file with smaller row groups (row_group_size)',
        { file: this.bytes.file, bytes: Math.max(size, packed) },
      );
    const bytes = this.bytes.all(this.#at, packed);
    this.#at += packed;
    if (header.has(4) && crc32(bytes) !== header.int(4) >>> 0) throw damaged('its checksum is another');
    const kind = header.int(1);
    if (kind === 0) this.#dataPage(header.struct(5), this.unpack(bytes, size));
    else if (kind === 3) this.#dataPage2(header.struct(8), bytes, size);
    else if (kind === 2) this.#dictionaryPage(header.struct(7), bytes, size);
    else if (kind !== 1) throw damaged(`it is of kind ${kind}`);
  }

  #dictionaryPage(header: ThriftStruct | null, bytes: Buffer, size: number): void {
    if (!header || this.#dictionary) throw damaged('a column has two dictionaries, or one that says nothing');
    const page = this.unpack(bytes, size);
    const count = header.count(1);
    // A value takes a bit at least.
    if (count > 8 * page.length) throw damaged(`a dictionary of ${page.length} bytes says it has ${count} values`);
    const { physical, bytes: fixed } = this.leaf;
    if (physical === 'fixed' && fixed === 0 && count > 1) throw damaged('a dictionary has values of no bytes');
    const next = plain(page, { now: 0 }, physical, fixed);
    this.#dictionary = Array.from({ length: count }, () => this.#convert(next()));
  }

  #begin(count: number, encoding: number, page: Buffer, at: number): void {
    if (count > this.#left) throw damaged('a column has more values than it says');
    this.#left -= count;
    this.#inPage = count;
    this.#values = this.#decoder(encoding, page, at);
  }

  #dataPage(header: ThriftStruct | null, page: Buffer): void {
    if (!header) throw damaged('it says nothing of its values');
    const { maxRep, maxDef } = this.leaf;
    let at = 0;
    const levels = (max: number, encoding: number): Hybrid | null => {
      if (max === 0) return null;
      if (encoding !== 3) throw damaged(`its levels have encoding ${encoding}`);
      if (at + 4 > page.length) throw damaged('it has no levels');
      const end = at + 4 + page.readUInt32LE(at);
      if (end > page.length) throw damaged('its levels leave it');
      const hybrid = new Hybrid(page.subarray(at + 4, end), bitsFor(max));
      at = end;
      return hybrid;
    };
    this.#reps = levels(maxRep, header.int(4, 3));
    this.#defs = levels(maxDef, header.int(3, 3));
    this.#begin(header.count(1), header.int(2), page, at);
  }

  #dataPage2(header: ThriftStruct | null, bytes: Buffer, size: number): void {
    if (!header) throw damaged('it says nothing of its values');
    const { maxRep, maxDef } = this.leaf;
    const [defBytes, repBytes] = [header.count(5, 0), header.count(6, 0)];
    const levelBytes = defBytes + repBytes;
    if (levelBytes > bytes.length || levelBytes > size) throw damaged('its levels leave it');
    this.#reps = maxRep ? new Hybrid(bytes.subarray(0, repBytes), bitsFor(maxRep)) : null;
    this.#defs = maxDef ? new Hybrid(bytes.subarray(repBytes, levelBytes), bitsFor(maxDef)) : null;
    const rest = bytes.subarray(levelBytes);
    const stored = !header.bool(7, true) || rest.length === 0;
    if (stored && rest.length > 0 && rest.length !== size - levelBytes) throw damaged('its bytes are not what it says');
    this.#begin(header.count(1), header.int(4), stored ? rest : this.unpack(rest, size - levelBytes), 0);
  }

  #decoder(encoding: number, page: Buffer, at: number): () => unknown {
    const { physical, bytes: fixed } = this.leaf;
    const convert = this.#convert;
    const converted = (next: () => Raw) => (): unknown => convert(next());
    if (DICTIONARY.includes(encoding)) {
      // A page without values may have no bytes either.
      if (at >= page.length) return () => this.#missing();
      const places = new Hybrid(page, page.readUInt8(at), at + 1);
      const dictionary = this.#dictionary;
      return () => {
        const place = places.next();
        if (!dictionary || place >= dictionary.length)
          throw damaged(`a value is number ${place} of a dictionary of ${dictionary?.length ?? 0}`);
        return dictionary[place];
      };
    }
    if (at >= page.length) return () => this.#missing();
    const isInteger = physical === 'int32' || physical === 'int64';
    const isBytes = physical === 'bytes' || physical === 'fixed';
    if (encoding === 0) return converted(plain(page, { now: at }, physical, fixed));
    if (encoding === 3 && physical === 'boolean') {
      const bits = new Hybrid(page.subarray(0, at + 4 + page.readUInt32LE(at)), 1, at + 4);
      return () => bits.next() === 1;
    }
    if (encoding === 5 && isInteger) {
      const deltas = new Deltas(page, at, physical === 'int32' ? 32 : 64);
      return converted(() => (physical === 'int32' ? Number(deltas.next()) : deltas.next()));
    }
    if (encoding === 6 && physical === 'bytes') return converted(deltaLengths(page, at));
    if (encoding === 7 && isBytes) return converted(deltaTexts(page, at));
    if (encoding === 9) return converted(streamSplit(page, at, physical, fixed));
    throw damaged(`values of type ${physical} in encoding ${encoding}`);
  }

  #missing(): never {
    throw damaged(`it has no values of column ${this.leaf.path.replaceAll('\0', '.').slice(0, 60)}`);
  }
}

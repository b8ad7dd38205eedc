// How values and levels lie in a page. Each is read one after the other, so that a page that says it holds billions in
// a few bytes costs none before they are asked for.
import type { Physical } from './schema.js';

export const damaged = (what: string): Error => new Error(`${what}, the page is damaged`);
/** A value as it is stored: text and fixed bytes as bytes, 64-bit integers as such. */
export type Raw = boolean | number | bigint | Buffer;

/** Runs of one value and packed values in turn, of `width` bits each. */
export class Hybrid {
  #left = 0;
  #packed = false;
  #value = 0;
  #bit = 0;
  constructor(
    readonly bytes: Buffer,
    readonly width: number,
    public at = 0,
  ) {
    if (!(width >= 0 && width <= 32)) throw damaged(`values have ${width} bits`);
  }
  next(): number {
    while (this.#left === 0) this.#run();
    this.#left--;
    if (!this.#packed) return this.#value;
    const value = bitsAt(this.bytes, this.#bit, this.width);
    this.#bit += this.width;
    if (this.#left === 0) this.at = Math.ceil(this.#bit / 8);
    return value;
  }
  #run(): void {
    let head = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.bytes[this.at++];
      if (byte === undefined || shift > 28) throw damaged('it has fewer values than it says');
      head += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    this.#packed = head % 2 === 1;
    const count = Math.floor(head / 2);
    if (this.#packed) {
      this.#left = 8 * count;
      this.#bit = 8 * this.at;
      return;
    }
    this.#left = count;
    const size = Math.ceil(this.width / 8);
    if (this.at + size > this.bytes.length) throw damaged('a run ends before its value');
    this.#value = size === 0 ? 0 : this.bytes.readUIntLE(this.at, size);
    this.at += size;
  }
}

/** `width` ≤ 32 bits from bit `at` on, the lowest first. */
function bitsAt(bytes: Buffer, at: number, width: number): number {
  if (at + width > 8 * bytes.length) throw damaged('it has fewer values than it says');
  let value = 0;
  let [byte, shift, got] = [Math.floor(at / 8), at % 8, 0];
  while (got < width) {
    value += (((bytes[byte++] as number) >> shift) & 0xff) * 2 ** got;
    got += 8 - shift;
    shift = 0;
  }
  return value % 2 ** width;
}

function varint(bytes: Buffer, from: number): { readonly value: bigint; readonly at: number } {
  let value = 0n;
  for (let i = 0; i < 10; i++) {
    const byte = bytes[from + i];
    if (byte === undefined) break;
    value |= BigInt(byte & 0x7f) << BigInt(7 * i);
    if (byte < 0x80) return { value, at: from + i + 1 };
  }
  throw damaged('an integer does not end');
}
const zigzag = (v: bigint): bigint => (v >> 1n) ^ -(v & 1n);

/** Differences in blocks (DELTA_BINARY_PACKED). */
export class Deltas {
  readonly count: number;
  readonly #perMini: number;
  readonly #minis: number;
  #value: bigint;
  #given = 0;
  #widths: number[] = [];
  #least = 0n;
  #mini = 0;
  #inMini = 0;
  constructor(
    readonly bytes: Buffer,
    public at: number,
    readonly bits: 32 | 64,
  ) {
    const head: bigint[] = [];
    for (let i = 0; i < 4; i++) {
      const v = varint(bytes, this.at);
      head.push(v.value);
      this.at = v.at;
    }
    const [block, minis, count, first] = head.map(Number) as [number, number, number, number];
    this.#perMini = block / minis;
    this.#minis = minis;
    if (!(block > 0 && block <= 2 ** 20 && minis > 0 && minis <= 2 ** 10 && this.#perMini % 8 === 0))
      throw damaged(`blocks of ${block} values in ${minis} parts`);
    if (!(count >= 0 && count < 2 ** 31)) throw damaged(`it says it has ${count} values`);
    this.count = count;
    this.#value = zigzag(head[3] ?? BigInt(first));
    this.#mini = minis;
  }
  next(): bigint {
    if (this.#given++ === 0) return this.#set(this.#value);
    if (this.#mini === this.#minis) this.#block();
    const width = this.#widths[this.#mini] ?? 0;
    const delta = width === 0 ? 0n : this.#packed(8 * this.at + this.#inMini * width, width);
    if (++this.#inMini === this.#perMini) this.#endMini(width);
    return this.#set(this.#value + this.#least + delta);
  }
  #set(value: bigint): bigint {
    this.#value = BigInt.asIntN(this.bits, value);
    return this.#value;
  }
  #endMini(width: number): void {
    this.at += (width * this.#perMini) / 8;
    this.#mini++;
    this.#inMini = 0;
  }
  #packed(bit: number, width: number): bigint {
    if (width <= 32) return BigInt(bitsAt(this.bytes, bit, width));
    return BigInt(bitsAt(this.bytes, bit, 32)) | (BigInt(bitsAt(this.bytes, bit + 32, width - 32)) << 32n);
  }
  #block(): void {
    const least = varint(this.bytes, this.at);
    this.#least = zigzag(least.value);
    this.at = least.at + this.#minis;
    if (this.at > this.bytes.length) throw damaged('it has fewer values than it says');
    this.#widths = [...this.bytes.subarray(least.at, this.at)];
    if (this.#widths.some((w) => w > 64)) throw damaged('a difference has more than 64 bits');
    this.#mini = 0;
  }
  /** Place after all of it; every value must have been taken. */
  end(): number {
    if (this.#inMini > 0) this.#endMini(this.#widths[this.#mini] ?? 0);
    return this.at;
  }
}

/** Lengths of a page are held at once. */
const MAX_LENGTHS = 2 ** 24;
function lengthsOf(bytes: Buffer, at: number): { readonly lengths: Int32Array; readonly at: number } {
  const deltas = new Deltas(bytes, at, 32);
  if (deltas.count > MAX_LENGTHS) throw damaged(`it says it has ${deltas.count} texts`);
  const lengths = new Int32Array(deltas.count);
  for (let i = 0; i < lengths.length; i++) {
    lengths[i] = Number(deltas.next());
    if ((lengths[i] ?? 0) < 0) throw damaged('a text has a length below 0');
  }
  return { lengths, at: deltas.end() };
}

export function deltaLengths(bytes: Buffer, from: number): () => Buffer {
  const { lengths, at: start } = lengthsOf(bytes, from);
  let [at, i] = [start, 0];
  return () => {
    if (i === lengths.length) throw damaged('it has fewer values than it says');
    const end = at + (lengths[i++] ?? 0);
    if (end > bytes.length) throw damaged('a text leaves it');
    at = end;
    return bytes.subarray(at - (lengths[i - 1] ?? 0), at);
  };
}

/** Bytes that all texts of a page may have, those they share with the one before included. */
const MAX_SHARED = 2 ** 30;
export function deltaTexts(bytes: Buffer, from: number): () => Buffer {
  const { lengths: prefixes, at } = lengthsOf(bytes, from);
  const suffix = deltaLengths(bytes, at);
  let before: Buffer = Buffer.alloc(0);
  let [i, total] = [0, 0];
  return () => {
    if (i === prefixes.length) throw damaged('it has fewer values than it says');
    const prefix = prefixes[i++] ?? 0;
    if (prefix > before.length) throw damaged('a text begins with more than the one before it has');
    const rest = suffix();
    total += prefix + rest.length;
    if (total > MAX_SHARED) throw damaged('its texts are far more than its bytes');
    before = prefix === 0 ? rest : Buffer.concat([before.subarray(0, prefix), rest]);
    return before;
  };
}

const WIDTH: Readonly<Record<Physical, number>> = {
  boolean: 0,
  int32: 4,
  int64: 8,
  int96: 12,
  float: 4,
  double: 8,
  bytes: 0,
  fixed: 0,
};
const widthOf = (physical: Physical, fixed: number): number => (physical === 'fixed' ? fixed : WIDTH[physical]);

/** A value of fixed width from its bytes. */
function fixedValue(b: Buffer, at: number, physical: Physical, width: number): Raw {
  if (at + width > b.length) throw damaged('it has fewer values than it says');
  switch (physical) {
    case 'int32':
      return b.readInt32LE(at);
    case 'int64':
      return b.readBigInt64LE(at);
    case 'float':
      return b.readFloatLE(at);
    case 'double':
      return b.readDoubleLE(at);
    default:
      return b.subarray(at, at + width);
  }
}

/** @param at moved on with every value */
export function plain(bytes: Buffer, at: { now: number }, physical: Physical, fixed: number): () => Raw {
  if (physical === 'boolean') {
    let bit = 8 * at.now;
    return () => bitsAt(bytes, bit++, 1) === 1;
  }
  if (physical === 'bytes')
    return () => {
      if (at.now + 4 > bytes.length) throw damaged('it has fewer values than it says');
      const length = bytes.readUInt32LE(at.now);
      const from = at.now + 4;
      if (from + length > bytes.length) throw damaged('a text leaves it');
      at.now = from + length;
      return bytes.subarray(from, at.now);
    };
  const width = widthOf(physical, fixed);
  return () => {
    const value = fixedValue(bytes, at.now, physical, width);
    at.now += width;
    return value;
  };
}

/** First bytes of all values, then second ones, and so on (BYTE_STREAM_SPLIT). */
export function streamSplit(bytes: Buffer, at: number, physical: Physical, fixed: number): () => Raw {
  const width = widthOf(physical, fixed);
  if (width === 0) throw damaged(`values of type ${physical} cannot be split`);
  const count = Math.floor((bytes.length - at) / width);
  let i = 0;
  return () => {
    if (i === count) throw damaged('it has fewer values than it says');
    const one = Buffer.alloc(width);
    for (let k = 0; k < width; k++) one[k] = bytes[at + k * count + i] as number;
    i++;
    return fixedValue(one, 0, physical, width);
  };
}

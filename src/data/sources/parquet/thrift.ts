// Thrift's compact protocol, as far as Parquet uses it. Nothing is made of a length before the bytes for it are there.

export type Thrift = boolean | number | Buffer | readonly Thrift[] | ThriftStruct;
const MAX_DEPTH = 32;

/** The bytes ended inside a value: there may be more of them. */
export class ThriftEnd extends Error {}

export class ThriftStruct {
  constructor(readonly fields: ReadonlyMap<number, Thrift>) {}
  has(i: number): boolean {
    return this.fields.has(i);
  }
  /** @throws {Error} it is not there, and there is nothing in its place */
  int(i: number, absent?: number): number {
    const v = this.fields.get(i);
    if (typeof v === 'number') return v;
    if (absent !== undefined && v === undefined) return absent;
    throw new Error(`field ${i} of its metadata is missing`);
  }
  /** An integer that counts something. */
  count(i: number, absent?: number): number {
    const v = this.int(i, absent);
    if (!(Number.isSafeInteger(v) && v >= 0)) throw new Error(`a count in its metadata is ${v}`);
    return v;
  }
  bool(i: number, absent: boolean): boolean {
    const v = this.fields.get(i);
    return typeof v === 'boolean' ? v : absent;
  }
  text(i: number): string {
    const v = this.fields.get(i);
    return Buffer.isBuffer(v) ? v.toString('utf8') : '';
  }
  struct(i: number): ThriftStruct | null {
    const v = this.fields.get(i);
    return v instanceof ThriftStruct ? v : null;
  }
  list(i: number): readonly Thrift[] {
    const v = this.fields.get(i);
    return Array.isArray(v) ? (v as readonly Thrift[]) : [];
  }
  structs(i: number): readonly ThriftStruct[] {
    return this.list(i).map((v) => {
      if (v instanceof ThriftStruct) return v;
      throw new Error(`field ${i} of its metadata holds something else`);
    });
  }
}

export class ThriftReader {
  constructor(
    readonly bytes: Buffer,
    public at = 0,
  ) {}
  #byte(): number {
    if (this.at >= this.bytes.length) throw new ThriftEnd('its metadata is cut off');
    return this.bytes[this.at++] as number;
  }
  #take(count: number): number {
    if (count > this.bytes.length - this.at) throw new ThriftEnd('its metadata is cut off');
    this.at += count;
    return this.at - count;
  }
  /** Up to 64 bits; exact up to 53. */
  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new Error('an integer of its metadata has more than 64 bits');
  }
  #zigzag(): number {
    const v = this.#varint();
    return v % 2 === 0 ? v / 2 : -(v + 1) / 2;
  }

  struct(depth = 0): ThriftStruct {
    if (depth > MAX_DEPTH) throw new Error('its metadata is nested too deep');
    const fields = new Map<number, Thrift>();
    for (let id = 0; ; ) {
      const head = this.#byte();
      const type = head & 15;
      if (type === 0) return new ThriftStruct(fields);
      id = head >> 4 ? id + (head >> 4) : this.#zigzag();
      fields.set(id, type === 1 || type === 2 ? type === 1 : this.#value(type, depth));
    }
  }
  #value(type: number, depth: number): Thrift {
    switch (type) {
      case 1:
      case 2:
        return this.#byte() === 1;
      case 3:
        return this.bytes.readInt8(this.#take(1));
      case 4:
      case 5:
      case 6:
        return this.#zigzag();
      case 7:
        return this.bytes.readDoubleLE(this.#take(8));
      case 8: {
        const length = this.#varint();
        const from = this.#take(length);
        return this.bytes.subarray(from, from + length);
      }
      case 9:
      case 10:
        return this.#list(depth);
      case 12:
        return this.struct(depth + 1);
      default:
        throw new Error(`its metadata has a value of type ${type}`);
    }
  }
  #list(depth: number): readonly Thrift[] {
    const head = this.#byte();
    const count = head >> 4 === 15 ? this.#varint() : head >> 4;
    // Every entry takes a byte.
    if (count > this.bytes.length - this.at) throw new ThriftEnd('its metadata is cut off');
    return Array.from({ length: count }, () => this.#value(head & 15, depth + 1));
  }
}

// Tables of FlatBuffers, as Arrow's metadata uses them. Nothing in them is believed: every offset is looked at before
// it is followed (a DataView throws past its end), every length before anything is made of it.

export class FlatTable {
  readonly #vtable: number;
  readonly #vtableBytes: number;
  constructor(
    readonly view: DataView,
    readonly at: number,
  ) {
    this.#vtable = at - view.getInt32(at, true);
    this.#vtableBytes = view.getUint16(this.#vtable, true);
  }
  static root(bytes: Uint8Array): FlatTable {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return new FlatTable(view, view.getUint32(0, true));
  }

  /** Where field i lies; 0: it is not there. */
  #place(i: number): number {
    const slot = 4 + 2 * i;
    if (slot + 2 > this.#vtableBytes) return 0;
    const offset = this.view.getUint16(this.#vtable + slot, true);
    return offset === 0 ? 0 : this.at + offset;
  }
  #followed(place: number): number {
    return place + this.view.getUint32(place, true);
  }

  u8(i: number, absent = 0): number {
    const place = this.#place(i);
    return place ? this.view.getUint8(place) : absent;
  }
  i16(i: number, absent = 0): number {
    const place = this.#place(i);
    return place ? this.view.getInt16(place, true) : absent;
  }
  i32(i: number, absent = 0): number {
    const place = this.#place(i);
    return place ? this.view.getInt32(place, true) : absent;
  }
  /** An integer that is a length or a place: not below 0, exact. */
  length(i: number): number {
    const place = this.#place(i);
    return place ? lengthAt(this.view, place) : 0;
  }
  i64(i: number): bigint {
    const place = this.#place(i);
    return place ? this.view.getBigInt64(place, true) : 0n;
  }
  text(i: number): string {
    const place = this.#place(i);
    if (!place) return '';
    const at = this.#followed(place);
    const bytes = this.#bounded(at, 1);
    return Buffer.from(this.view.buffer, this.view.byteOffset + at + 4, bytes).toString('utf8');
  }
  table(i: number): FlatTable | null {
    const place = this.#place(i);
    return place ? new FlatTable(this.view, this.#followed(place)) : null;
  }
  /** Entries of a vector by their places. @param bytes of an entry */
  vector(i: number, bytes: number): readonly number[] {
    const place = this.#place(i);
    if (!place) return [];
    const at = this.#followed(place);
    return Array.from({ length: this.#bounded(at, bytes) }, (_, k) => at + 4 + k * bytes);
  }
  tables(i: number): FlatTable[] {
    return this.vector(i, 4).map((place) => new FlatTable(this.view, this.#followed(place)));
  }

  #bounded(at: number, bytes: number): number {
    const count = this.view.getUint32(at, true);
    if (count * bytes > this.view.byteLength - at - 4) throw new Error('a list in its metadata is longer than it');
    return count;
  }
}

/** A 64-bit integer that is a length or a place. @throws {Error} it is below 0, or past what is exact */
export function lengthAt(view: DataView, place: number): number {
  const value = view.getBigInt64(place, true);
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`a length in it is ${value}`);
  return Number(value);
}

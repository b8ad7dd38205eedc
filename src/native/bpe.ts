// Byte-pair encoding in native code, as an object that is closed. src/harmony/tokenizer.ts gives it a vocabulary.
import { addon } from './addon.js';

/** A vocabulary as native/tokenizer/bpe.h takes it: token i has the bytes [offsets[i], offsets[i+1]). */
export interface BpeTables {
  readonly bytes: Uint8Array;
  readonly offsets: Uint32Array;
  /** (left id, right id) pairs in rank order; empty: the rank of a merge is the id of its result. */
  readonly merges: Uint32Array;
  /** A piece that is itself a token is not merged. */
  readonly wholePiece: boolean;
}

export class Bpe {
  #handle: number;
  constructor(tables: BpeTables) {
    this.#handle = addon.bpeCreate(tables.bytes, tables.offsets, tables.merges, tables.wholePiece);
  }

  /** @returns token ids, Int32Array. A lone surrogate counts as U+FFFD. */
  encode(text: string): Int32Array {
    return addon.bpeEncode(this.#handle, Buffer.from(text, 'utf8'));
  }

  close(): void {
    if (this.#handle) addon.bpeFree(this.#handle);
    this.#handle = 0;
  }
}

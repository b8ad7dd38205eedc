// A vocabulary as masks need it, in a file: working it out takes seconds of a processor, reading it milliseconds.
// Layout: 8 bytes of magic, u32 length of a header of JSON, the header, the arrays one after the other. The header has
// the sha256 of the arrays; a file that does not match is not read, and is written anew.
import { rmSync } from 'node:fs';
import { sha256 } from '../../base/digest.js';
import { writeFileAtomic } from '../../base/files.js';
import { readInput } from '../../base/inputs.js';
import type { Trie, Vocabulary } from './vocabulary.js';

/** Changes with what the arrays mean. */
const MAGIC = 'TMPVOC01';
const ALIGN = 8;
type Kind = 'i32' | 'u16' | 'u8';
type Numbers = Int32Array | Uint16Array | Uint8Array;
type ArrayName = Exclude<keyof Vocabulary, 'id' | 'vocabSize' | 'words' | 'endsBare' | 'trie' | 'suffixes'>;

const ARRAYS: readonly (readonly [ArrayName, Kind])[] = [
  ['ordinary', 'i32'],
  ['stay', 'i32'],
  ['chars', 'u8'],
  ['closers', 'i32'],
  ['escaped', 'i32'],
  ['placeOf', 'i32'],
  ['closersWithin', 'i32'],
  ['withinFrom', 'i32'],
  ['groups', 'i32'],
];
const TRIE: readonly (readonly [keyof Trie, Kind])[] = [
  ['byte', 'u8'],
  ['end', 'i32'],
  ['depth', 'u16'],
  ['token', 'i32'],
];
const TRIES = ['trie', 'suffixes'] as const;
/** All arrays, in the order of the file. */
const PLACES: readonly { readonly kind: Kind; readonly of: (v: Vocabulary) => Numbers }[] = [
  ...ARRAYS.map(([name, kind]) => ({ kind, of: (v: Vocabulary): Numbers => v[name] })),
  ...TRIES.flatMap((t) => TRIE.map(([name, kind]) => ({ kind, of: (v: Vocabulary): Numbers => v[t][name] }))),
];

interface Header {
  readonly id: string;
  readonly vocabSize: number;
  readonly endsBare: boolean;
  /** Elements of each array. */
  readonly lengths: readonly number[];
  readonly sha256: string;
}
const viewOf = (kind: Kind, buffer: SharedArrayBuffer, at: number, length: number): Numbers =>
  kind === 'i32'
    ? new Int32Array(buffer, at, length)
    : kind === 'u16'
      ? new Uint16Array(buffer, at, length)
      : new Uint8Array(buffer, at, length);
const padded = (bytes: number): number => Math.ceil(bytes / ALIGN) * ALIGN;

/** @throws what writing refuses */
export function writeVocabulary(file: string, v: Vocabulary): void {
  const arrays = PLACES.map(({ of }) => of(v));
  const bytes = Buffer.alloc(arrays.reduce((n, a) => n + padded(a.byteLength), 0));
  let at = 0;
  for (const a of arrays) {
    bytes.set(new Uint8Array(a.buffer, a.byteOffset, a.byteLength), at);
    at += padded(a.byteLength);
  }
  const { id, vocabSize, endsBare } = v;
  const header: Header = { id, vocabSize, endsBare, lengths: arrays.map((a) => a.length), sha256: sha256(bytes) };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  writeFileAtomic(file, Buffer.concat([Buffer.from(MAGIC), length, json, bytes]));
}

/** In shared memory. @returns null: there is none, or it is not as it was written */
export function readVocabulary(file: string): Vocabulary | null {
  try {
    const all = readInput(file, 'tokenizer');
    if (all.toString('latin1', 0, 8) !== MAGIC) return null;
    const end = 12 + all.readUInt32LE(8);
    const header = JSON.parse(all.toString('utf8', 12, end)) as Header;
    const bytes = all.subarray(end);
    if (sha256(bytes) !== header.sha256 || header.lengths.length !== PLACES.length) return null;
    const buffer = new SharedArrayBuffer(bytes.length);
    new Uint8Array(buffer).set(bytes);
    let at = 0;
    const arrays = PLACES.map(({ kind }, i): Numbers => {
      const array = viewOf(kind, buffer, at, header.lengths[i]!);
      at += padded(array.byteLength);
      return array;
    });
    const named = (names: readonly (readonly [string, Kind])[], from: number): Record<string, Numbers> =>
      Object.fromEntries(names.map(([name], i) => [name, arrays[from + i]!]));
    const { id, vocabSize, endsBare } = header;
    return {
      id,
      vocabSize,
      words: Math.ceil(vocabSize / 32),
      endsBare,
      ...(named(ARRAYS, 0) as unknown as Pick<Vocabulary, ArrayName>),
      trie: named(TRIE, ARRAYS.length) as unknown as Trie,
      suffixes: named(TRIE, ARRAYS.length + TRIE.length) as unknown as Trie,
    };
  } catch {
    return null;
  }
}

/** What could be kept is; a disk that is full costs time at the next start and nothing else. */
export function keepVocabulary(file: string, v: Vocabulary): void {
  try {
    writeVocabulary(file, v);
  } catch {
    rmSync(file, { force: true });
  }
}

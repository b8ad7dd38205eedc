// Reads a stream line by line and follows its chain and its tree: the one reader of verify, prove, show and of a writer
// that goes on. It parses what it must: a line is found by its beginning and hashed as it lies.
import { InputFile } from '../base/inputs.js';
import { latin1At } from './fast-buffer.js';
import { checkpointHead, NO_LINE, parseLine, type SegmentFile, segmentLine } from './layout.js';
import { Frontier, prefixedLeafHash, type Range } from './merkle.js';
import type { NoteReader } from './note.js';

/** Why a stream is not what was signed: the first thing that is wrong with it. */
export interface Fault {
  readonly kind: 'altered' | 'missing' | 'order' | 'unsigned';
  readonly file: string;
  /** From 1; null: of the file as a whole. */
  readonly line: number | null;
  /** Of the record that is concerned, as far as that can be told. */
  readonly index: number | null;
  readonly message: string;
}
export interface ScannedRecord {
  readonly index: number;
  readonly hash: string;
  readonly file: string;
  /** Of the line, without its end. */
  text(): string;
}
export interface ScanHooks {
  /** Of every record, or of those alone that say something of the log: their kind begins with `o` or `c`. */
  readonly record?: (record: ScannedRecord) => void;
  readonly all?: boolean;
  /** The tree before the first record, where it is taken from the first line. */
  readonly began?: (tree: Frontier) => void;
  readonly node?: (range: Range, hash: string) => void;
  /** After each record. @returns what is wrong */
  readonly grown?: (tree: Frontier) => string | null;
  /** Asked now and then. @throws to stop */
  readonly pause?: (bytes: number) => void;
  readonly everySignature?: boolean;
}
/** How far a stream is signed. */
export interface Signed {
  readonly note: string;
  readonly time: string;
  readonly size: number;
  /** Bytes of the file up to and with that line. */
  readonly offset: number;
  readonly chain: string;
  readonly tree: Frontier;
}

/** Small enough to be in the processor's own cache when it is hashed. */
const PIECE = 256 << 10;
/** Records after which a signature is looked at again. Those between are bound by the chain to the next one. */
const SIGNATURE_EVERY = 4096;
/** A line that is longer was not written by a log. */
const MAX_LINE = 1 << 20;
const LF = 10;
const [RECORD, CHECKPOINT] = ['i'.charCodeAt(0), 'c'.charCodeAt(0)];
const [OPEN, CLOSE] = ['o'.charCodeAt(0), 'c'.charCodeAt(0)];
/** Where the name of what a line holds begins: after `{"chain":"…","`. */
const NAME_AT = 77;
/** Where its hash begins and how long it is, its number, after `"index":`, and its kind, after `,"kind":"`. */
const [CHAIN_AT, HASH, INDEX_AT, KIND_AFTER] = [10, 64, 84, 9];
const [ZERO, NINE] = [48, 57];

export class LaneScan {
  chain = NO_LINE;
  tree = new Frontier();
  records = 0;
  checkpoints = 0;
  bytes = 0;
  /** Up to where it is signed; what follows is no part of the log. */
  signed: Signed | null = null;
  /** Bytes of the file that was read last. */
  fileBytes = 0;
  #line = 0;
  #file = '';
  /** The last checkpoint, as long as nobody has looked at its signature. */
  #last: { readonly text: string; readonly offset: number; readonly chain: string; readonly tree: Frontier } | null =
    null;
  #looked = 0;

  constructor(
    readonly origin: string,
    readonly lane: string,
    readonly keys: NoteReader,
    readonly hooks: ScanHooks = {},
  ) {}

  #fault(kind: Fault['kind'], message: string, index: number | null = null): Fault {
    return { kind, file: this.#file, line: this.#line || null, index, message };
  }

  /**
   * Reads one file.
   * @param trusted  nothing before it was read: what its first line says of that is taken if a signature bears it out
   * @returns what is wrong; `unsigned` where bytes follow the last checkpoint
   */
  scan(segment: SegmentFile, trusted = false): Fault | null {
    using file = InputFile.open(segment.path);
    this.#file = segment.name;
    this.fileBytes = file.size;
    this.#line = 0;
    this.#last = null;
    const before = this.signed;
    this.signed = null;
    // One byte before each line is made 0: the prefix of a leaf. What was there is the end of the line before.
    const buffer = Buffer.allocUnsafe(Math.min(PIECE + MAX_LINE, file.size) + 1);
    let held = 0;
    for (let at = 0; at < file.size; ) {
      const some = Math.min(PIECE, file.size - at);
      file.read(at, buffer.subarray(1 + held, 1 + held + some));
      const end = 1 + held + some;
      let start = 1;
      for (let lf = buffer.indexOf(LF, start); lf >= 0 && lf < end; lf = buffer.indexOf(LF, start)) {
        const offset = at + some - (end - lf - 1);
        const fault = this.#take(buffer, start, lf, offset, segment, trusted, before);
        if (fault) return fault;
        start = lf + 1;
      }
      held = end - start;
      if (held > MAX_LINE) {
        this.#line++;
        return this.#fault('altered', 'a line is longer than any that a log writes');
      }
      buffer.copyWithin(1, start, end);
      at += some;
      this.bytes += some;
      this.hooks.pause?.(some);
    }
    const fault = this.#look();
    if (fault) return fault;
    const signed = (this.signed as Signed | null)?.offset ?? 0;
    if (signed === file.size && signed > 0) return null;
    return this.#fault(
      'unsigned',
      signed === 0 ? 'it holds no signed checkpoint' : `${file.size - signed} bytes after its last signed checkpoint`,
    );
  }

  #take(
    buffer: Buffer,
    from: number,
    to: number,
    offset: number,
    segment: SegmentFile,
    trusted: boolean,
    before: Signed | null,
  ): Fault | null {
    this.#line++;
    if (this.#line === 1) {
      const fault = this.#first(buffer.toString('utf8', from, to), segment, trusted, before);
      if (fault) return fault;
      return this.#next(buffer, from, to);
    }
    const name = buffer[from + NAME_AT];
    const index = this.tree.size;
    if (name === RECORD) {
      // What stands around its number and the hash is bound by its own hash, which the next line holds.
      let at = from + INDEX_AT,
        number = 0;
      for (let c = buffer[at] ?? 0; c >= ZERO && c <= NINE; c = buffer[++at] ?? 0) number = number * 10 + c - ZERO;
      if (number !== index || latin1At(buffer, from + CHAIN_AT, HASH) !== this.chain)
        return this.#astray(buffer.toString('utf8', from, to));
      const kind = buffer[at + KIND_AFTER];
      this.#next(buffer, from, to);
      this.tree.push(this.chain, this.hooks.node);
      this.records++;
      if (this.hooks.record && (this.hooks.all === true || kind === OPEN || kind === CLOSE))
        this.hooks.record({ index, hash: this.chain, file: this.#file, text: () => buffer.toString('utf8', from, to) });
      const wrong = this.hooks.grown?.(this.tree) ?? null;
      return wrong === null ? null : this.#fault('altered', wrong, index);
    }
    const head = checkpointHead(this.chain, this.origin, this.lane, index);
    if (name !== CHECKPOINT || latin1At(buffer, from, head.length) !== head)
      return this.#astray(buffer.toString('utf8', from, to));
    const text = buffer.toString('utf8', from, to);
    this.#next(buffer, from, to);
    this.#last = { text, offset, chain: this.chain, tree: this.tree.copy() };
    this.checkpoints++;
    const due = this.hooks.everySignature === true || index - this.#looked >= SIGNATURE_EVERY;
    return due ? this.#look() : null;
  }
  #next(buffer: Buffer, from: number, to: number): null {
    buffer[from - 1] = 0;
    this.chain = prefixedLeafHash(buffer.subarray(from - 1, to));
    return null;
  }

  /** Looks at the signature and the root of the checkpoint that was read last. */
  #look(): Fault | null {
    const last = this.#last;
    if (!last) return null;
    this.#last = null;
    const { offset, chain, tree } = last;
    this.#looked = tree.size;
    const note = noteOf(last.text);
    const checkpoint = note === null ? null : this.keys.open(note);
    if (note === null || !checkpoint)
      return this.#fault('altered', 'a checkpoint is not signed by the key of this log', tree.size);
    if (checkpoint.root !== tree.root())
      return this.#fault('altered', 'a signed root is another one than that of the records', tree.size);
    this.signed = { note, time: checkpoint.time, size: tree.size, offset, chain, tree };
    return null;
  }

  #first(text: string, segment: SegmentFile, trusted: boolean, before: Signed | null): Fault | null {
    if (trusted) {
      let header: ReturnType<typeof parseLine>;
      try {
        header = parseLine(text);
      } catch {
        return this.#fault('altered', 'it does not begin as a file of a log does');
      }
      const { chain, segment: s } = header;
      if (!s || typeof chain !== 'string' || segmentLine(chain, s.first, s.peaks, s.checkpoint) !== text)
        return this.#fault('altered', 'it does not begin as a file of a log does');
      const tree = new Frontier(s.first, s.peaks);
      const signed = s.checkpoint === null ? null : this.keys.open(s.checkpoint);
      const born = s.first === 0 && s.checkpoint === null && chain === NO_LINE && s.peaks.length === 0;
      const borne =
        signed?.origin === this.origin &&
        signed.lane === Number(this.lane) &&
        signed.size === s.first &&
        tree.ranges().length === s.peaks.length &&
        signed.root === tree.root();
      if (s.first !== segment.first || !(born || borne))
        return this.#fault('altered', 'what it says of the records before it is not what was signed');
      this.tree = tree;
      this.chain = chain;
      this.#looked = s.first;
      this.hooks.began?.(tree);
      return null;
    }
    const { size, peaks } = this.tree;
    if (segment.first !== size)
      return segment.first > size
        ? this.#fault('missing', `records ${size} to ${segment.first - 1} are missing: a file of the log is gone`, size)
        : this.#fault('order', `it begins at record ${segment.first}, wanted ${size}`, size);
    if (segmentLine(this.chain, size, peaks, before?.note ?? null) !== text)
      return this.#fault('altered', 'it does not go on from where the file before it ended', size);
    return null;
  }

  /** A line that does not follow the one before it: why, as far as that can be told. */
  #astray(text: string): Fault {
    const expected = this.tree.size;
    const [, chain, name, digits] =
      /^\{"chain":"([0-9a-f]{64})","(index|checkpoint)":(?:"[^"\\]{1,80}\\n)?([0-9]{1,15})/.exec(text) ?? [];
    if (chain === undefined) return this.#fault('altered', 'it is no line of a log', expected);
    const number = Number(digits);
    const record = name === 'index';
    if (chain === this.chain) return this.#fault('altered', `its number is ${number}, wanted ${expected}`, expected);
    if (number > expected)
      return this.#fault('missing', `records ${expected} to ${number - 1} are missing before it`, expected);
    if (number < expected)
      return this.#fault('order', `${record ? 'record' : 'the checkpoint of'} ${number} is out of its place`, number);
    return this.#fault(
      'altered',
      `it does not follow the line before it: that one was altered, or one between them is gone`,
      Math.max(0, expected - 1),
    );
  }
}

/** The note in the line of a checkpoint; null: it is none, to the byte. */
export function noteOf(line: string): string | null {
  try {
    const { checkpoint } = parseLine(line);
    if (typeof checkpoint !== 'string') return null;
    return line.endsWith(`"checkpoint":${JSON.stringify(checkpoint)}}`) ? checkpoint : null;
  } catch {
    return null;
  }
}

// The keys of a log, one after the other. DIR/keys.jsonl has a line for each handover: the old key and the new one both
// sign how far each stream was and which key comes next. Up to there a checkpoint counts by the old key alone, and
// after it by the new one alone: who has a key that was handed over can add nothing.
import { sign, verify } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../base/digest.js';
import { IntegrityError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { canonicalJson } from './canonical.js';
import { parseVerifierLine, type Signer, type Verifier, verifierLine } from './keys.js';
import { type Descriptor, NO_LINE, readDescriptor } from './layout.js';
import { type Checkpoint, type NoteReader, parseNote } from './note.js';

export const HANDOVER = 'temper-log-handover/1';
export const keysFile = (dir: string): string => join(dir, 'keys.jsonl');

/** How far a stream was. */
export type HandoverHead = {
  readonly lane: number;
  readonly root: string;
  readonly size: number;
};
export type Handover = {
  readonly format: typeof HANDOVER;
  /** By the clock of who made it, ISO 8601. */
  readonly at: string;
  readonly origin: string;
  /** From 1. */
  readonly number: number;
  /** sha256 of the handover's line before it, hex. */
  readonly previous: string;
  /** Keys as notes have them. */
  readonly from: string;
  readonly to: string;
  /** Of every stream that had records, in their order. */
  readonly heads: readonly HandoverHead[];
};

const bytesOf = (handover: Handover): Buffer => Buffer.from(`${HANDOVER}\n${canonicalJson(handover)}`);
const lineOf = (handover: Handover, signatures: readonly string[]): string => canonicalJson({ handover, signatures });

/** The keys that a log had and has. */
export class KeyRing implements NoteReader {
  readonly keys: Verifier[];
  readonly handovers: Handover[] = [];
  readonly lines: string[] = [];
  /** sha256 of each line. */
  readonly digests: string[] = [];
  readonly #heads: ReadonlyMap<number, number>[] = [];
  constructor(
    readonly origin: string,
    first: Verifier,
  ) {
    this.keys = [first];
  }
  /** The one that signs now. */
  get last(): Verifier {
    return this.keys.at(-1) as Verifier;
  }
  has(key: Verifier): boolean {
    return this.keys.some((k) => k.raw.equals(key.raw));
  }
  /** The one that signs a checkpoint of so many records. */
  keyFor(lane: number, size: number): Verifier {
    const next = this.#heads.findIndex((heads) => size <= (heads.get(lane) ?? 0));
    return this.keys[next < 0 ? this.keys.length - 1 : next] as Verifier;
  }
  open(note: string): Checkpoint | null {
    const parsed = parseNote(note);
    if (!parsed) return null;
    const { lane, size } = parsed.checkpoint;
    return parsed.isSignedBy(this.keyFor(lane, size)) ? parsed.checkpoint : null;
  }
  /** The handover to the next key, signed by both. */
  handOver(from: Signer, to: Signer, heads: readonly HandoverHead[], at: string): string {
    const handover: Handover = {
      at,
      format: HANDOVER,
      from: verifierLine(this.origin, from),
      heads,
      number: this.handovers.length + 1,
      origin: this.origin,
      previous: this.digests.at(-1) ?? NO_LINE,
      to: verifierLine(this.origin, to),
    };
    const bytes = bytesOf(handover);
    return lineOf(
      handover,
      [from, to].map((signer) => sign(null, bytes, signer.private).toString('base64')),
    );
  }
  /** Takes a line of keys.jsonl. @returns what is wrong with it; null: its key signs from there on */
  take(line: string): string | null {
    const read = parseHandover(line);
    if (typeof read === 'string') return read;
    const { handover, signatures, to } = read;
    const last = verifierLine(this.origin, this.last);
    if (handover.origin !== this.origin) return 'is of another log';
    if (handover.number !== this.handovers.length + 1) return 'is out of its place, or one before it is gone';
    if (handover.previous !== (this.digests.at(-1) ?? NO_LINE)) return 'does not follow the one before it';
    if (handover.from !== last) return 'is not from the key that signed before it';
    if (this.has(to)) return 'is to a key that the log had before';
    const before = this.#heads.at(-1);
    const heads = new Map(handover.heads.map(({ lane, size }) => [lane, size]));
    if ([...(before ?? [])].some(([lane, size]) => (heads.get(lane) ?? 0) < size))
      return 'knows fewer records than the one before it';
    const bytes = bytesOf(handover);
    const signed = [this.last, to].every(({ key }, i) =>
      verify(null, bytes, key, Buffer.from(signatures[i] as string, 'base64')),
    );
    if (!signed) return 'is not signed by the old key and the new one';
    this.keys.push(to);
    this.handovers.push(handover);
    this.lines.push(line);
    this.digests.push(sha256(line));
    this.#heads.push(heads);
    return null;
  }
}

const isHead = (v: unknown): v is HandoverHead => {
  const h = v as Partial<HandoverHead> | null;
  const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
  return (
    typeof h === 'object' && h !== null && isCount(h.lane) && isCount(h.size) && /^[0-9a-f]{64}$/.test(`${h.root}`)
  );
};

function parseHandover(
  line: string,
): string | { readonly handover: Handover; readonly signatures: readonly string[]; readonly to: Verifier } {
  const no = 'is not as it was written';
  let value: { readonly handover?: Partial<Handover>; readonly signatures?: unknown } | null;
  try {
    value = decodeJson(Buffer.from(line)) as typeof value;
  } catch {
    return no;
  }
  const { handover, signatures } = typeof value === 'object' && value !== null ? value : {};
  if (typeof handover !== 'object' || handover === null || handover.format !== HANDOVER) return no;
  const { heads, to: next } = handover;
  if (!Array.isArray(heads) || !heads.every(isHead)) return no;
  if (heads.some((h, i) => i > 0 && (heads[i - 1] as HandoverHead).lane >= h.lane)) return no;
  const areTexts = [handover.at, handover.origin, handover.previous, handover.from, next].every(
    (v) => typeof v === 'string',
  );
  if (!areTexts || !Number.isSafeInteger(handover.number)) return no;
  if (!Array.isArray(signatures) || signatures.length !== 2 || !signatures.every((s) => typeof s === 'string'))
    return no;
  const to = parseVerifierLine(next as string);
  if (!to || to.name !== handover.origin) return no;
  // What it says, written again, is what was there: no second form of the same.
  if (lineOf(handover as Handover, signatures as readonly string[]) !== line) return no;
  if (signatures.some((s: string) => Buffer.from(s, 'base64').toString('base64') !== s)) return no;
  return { handover: handover as Handover, signatures: signatures as readonly string[], to: to.verifier };
}

/**
 * The keys of the log in a folder.
 * @throws {DataError} log_missing · {IntegrityError} log_altered: log.json or keys.jsonl is not as it was written
 */
export function readLog(dir: string): { readonly descriptor: Descriptor; readonly ring: KeyRing } {
  const { descriptor, verifier } = readDescriptor(dir);
  const ring = new KeyRing(descriptor.origin, verifier);
  const file = keysFile(dir);
  if (!existsSync(file)) return { descriptor, ring };
  const altered = (why: string): IntegrityError =>
    new IntegrityError('log_altered', `${file}: ${why}; nothing after it can be trusted`, { file });
  const lines = readInputText(file, 'record').split('\n');
  if (lines.length < 2 || lines.pop() !== '') throw altered('ends in the middle of a line, or is empty');
  for (const [i, line] of lines.entries()) {
    const wrong = ring.take(line);
    if (wrong !== null) throw altered(`handover ${i + 1} ${wrong}`);
  }
  return { descriptor, ring };
}

/**
 * The keys that a proof tells of, by one of them that is known to be right.
 * @param lines handovers, the first one first · @returns null: they do not lead to the key, or do not hold
 */
export function ringOf(origin: string, known: Verifier, lines: readonly string[]): KeyRing | null {
  const [first] = lines;
  if (first === undefined) return new KeyRing(origin, known);
  const read = parseHandover(first);
  const from = typeof read === 'string' ? null : parseVerifierLine(read.handover.from);
  if (from?.name !== origin) return null;
  const ring = new KeyRing(origin, from.verifier);
  return lines.every((line) => ring.take(line) === null) && ring.has(known) ? ring : null;
}

// Proofs that stand alone: that a record is in a log, and that a log goes on from what it was. Whoever has the
// public key checks them without the log.

import { ConfigError, DataError, IntegrityError } from '../base/errors.js';
import { canonicalJson, type JsonObject } from './canonical.js';
import { contentDigest } from './content.js';
import { type KeyRing, readLog, ringOf } from './key-ring.js';
import { parseVerifierLine, readSigner, type Verifier, verifierLine } from './keys.js';
import {
  type Descriptor,
  lanesOf,
  parseLine,
  parseReceipt,
  type Receipt,
  receiptText,
  recordLine,
  segmentsOf,
  shortOrigin,
} from './layout.js';
import {
  Collector,
  consistencyRanges,
  Frontier,
  inclusionRanges,
  isConsistent,
  isIncluded,
  leafHash,
  type Range,
} from './merkle.js';
import { type Checkpoint, laneName, parseNote } from './note.js';
import { LaneScan, type ScannedRecord, type Signed } from './scan.js';
import { readCheckpoints, type Watch } from './verify.js';

export const INCLUSION = 'temper-log-proof/1';
export const CONSISTENCY = 'temper-log-consistency/1';
export interface InclusionProof {
  readonly format: typeof INCLUSION;
  readonly receipt: string;
  /** The record's line as it lies in the log. */
  readonly line: string;
  /** Hashes from the leaf to the root, hex. */
  readonly path: readonly string[];
  /** Signed note of the tree that it is in. */
  readonly checkpoint: string;
  /** Under which the digests of its contents were made; hex. Opens this record alone. */
  readonly salt?: string;
  /** Handovers of the log's key, where it had several. */
  readonly keys?: readonly string[];
}
export interface ConsistencyProof {
  readonly format: typeof CONSISTENCY;
  readonly first: string;
  readonly second: string;
  readonly path: readonly string[];
  readonly keys?: readonly string[];
}

const altered = (what: string): IntegrityError =>
  new IntegrityError('log_altered', `${what}; \`temper log verify\` says more`);

interface Read {
  readonly signed: Signed;
  readonly hashes: readonly string[];
}
/** Reads a stream from the file that holds record `from` on, and collects hashes. */
function readLane(
  at: { readonly dir: string; readonly lane: string; readonly descriptor: Descriptor; readonly ring: KeyRing },
  from: number,
  ranges: (size: number) => readonly Range[],
  watch: Watch,
  onRecord?: (record: ScannedRecord) => void,
): Read {
  const { dir, lane, descriptor, ring } = at;
  const all = segmentsOf(dir, lane);
  const begin = all.findLastIndex((s) => s.first <= from);
  const segments = all.slice(Math.max(0, begin));
  // Sizes of trees are known by their checkpoints: the last one says which hashes are wanted.
  let size = 0;
  const tail = segments.at(-1);
  if (!tail || begin < 0) throw altered(`${dir}/${lane}: the file that holds record ${from} is gone`);
  const pause = (bytes: number): void => {
    watch.signal?.throwIfAborted();
    watch.onProgress?.(bytes);
  };
  const sizing = new LaneScan(descriptor.origin, lane, ring, { pause });
  const fault = sizing.scan(tail, true);
  if (fault && fault.kind !== 'unsigned') throw altered(`${fault.file}: ${fault.message}`);
  let { signed } = sizing;
  size = signed?.size ?? 0;
  const collector = new Collector(ranges(size));
  let reached = new Frontier();
  const scan = new LaneScan(descriptor.origin, lane, ring, {
    pause,
    all: true,
    began: (tree) => collector.seed(tree),
    node: (range, hash) => {
      if (range.hi <= size) collector.node(range, hash);
    },
    grown: (tree) => {
      if (tree.size === size) reached = tree.copy();
      return null;
    },
    ...(onRecord ? { record: onRecord } : {}),
  });
  for (const [i, segment] of segments.entries()) {
    const wrong = scan.scan(segment, i === 0);
    if (wrong && wrong.kind !== 'unsigned') throw altered(`${wrong.file}: ${wrong.message}`);
    if (scan.signed && scan.signed.size === size) signed = scan.signed;
  }
  if (!signed || reached.size !== size) throw altered(`${dir}/${lane}: holds no signed checkpoint of ${size} records`);
  return { signed, hashes: collector.hashes(reached) };
}

/**
 * Proves that the record of a receipt is in the log, under its stream's last checkpoint.
 * @param open private key of the log: the proof then opens the record's digests to who knows the contents
 * @throws {DataError} log_missing, log_receipt: of another log, or no such record · {IntegrityError} log_altered
 */
export function proveRecord(
  request: { readonly dir: string; readonly receipt: string; readonly open?: string },
  watch: Watch = {},
): InclusionProof {
  const { dir } = request;
  const receipt = parseReceipt(request.receipt);
  const { descriptor, ring } = readLog(dir);
  const unknown = (why: string): DataError =>
    new DataError('log_receipt', `${receiptText(receipt)}: ${why}`, { file: dir });
  if (receipt.log !== shortOrigin(descriptor.origin)) throw unknown(`is of another log than ${dir}`);
  const lane = laneName(receipt.lane);
  if (!lanesOf(dir).includes(lane)) throw unknown(`${dir} has no stream ${lane}`);
  let line: string | null = null,
    hash = '';
  const { signed, hashes } = readLane(
    { dir, lane, descriptor, ring },
    receipt.index,
    (size) => {
      if (receipt.index >= size) throw unknown(`stream ${lane} has ${size} signed records`);
      return inclusionRanges(receipt.index, { lo: 0, hi: size });
    },
    watch,
    (record) => {
      if (record.index === receipt.index) [line, hash] = [record.text(), record.hash];
    },
  );
  if (line === null) throw altered(`${dir}/${lane}: record ${receipt.index} is gone`);
  if (hash !== receipt.hash) throw altered(`${dir}/${lane}: record ${receipt.index} is not the one of the receipt`);
  const nonce = request.open === undefined ? null : nonceOf(line);
  return {
    format: INCLUSION,
    receipt: receiptText(receipt),
    line,
    path: hashes,
    checkpoint: signed.note,
    ...(request.open === undefined || nonce === null
      ? {}
      : { salt: saltOf(request.open, ring, receipt, nonce).toString('hex') }),
    ...keysOf(ring),
  };
}
const keysOf = ({ lines }: KeyRing): { readonly keys?: readonly string[] } =>
  lines.length === 0 ? {} : { keys: lines };
/** By the key that signed the record: salts follow from it. @throws {ConfigError} log_key: that is another one */
function saltOf(file: string, ring: KeyRing, { lane, index }: Receipt, nonce: string): Buffer {
  const signer = readSigner(file);
  const due = ring.keyFor(lane, index + 1);
  if (due.raw.equals(signer.raw)) return signer.salt(nonce);
  throw new ConfigError(
    'log_key',
    `${file}: is not the key under which record ${index} was written, ${verifierLine(ring.origin, due)}; give that one`,
    { file },
  );
}
function nonceOf(line: string): string | null {
  const nonce = parseLine(line).record?.nonce;
  return typeof nonce === 'string' ? nonce : null;
}

/**
 * Proves that the log goes on from a checkpoint that was kept.
 * @param since file of it: of each stream that it speaks of there is a proof
 * @throws {DataError} log_missing, log_proof · {IntegrityError} log_altered: it does not
 */
export function proveGrowth(
  request: { readonly dir: string; readonly since: string },
  watch: Watch = {},
): readonly ConsistencyProof[] {
  const { dir } = request;
  const { descriptor, ring } = readLog(dir);
  return readCheckpoints(request.since, descriptor, ring).map((first) => {
    const lane = laneName(first.lane);
    if (!lanesOf(dir).includes(lane)) throw altered(`${dir}: stream ${lane} is gone`);
    const { signed, hashes } = readLane(
      { dir, lane, descriptor, ring },
      Math.max(0, first.size - 1),
      (size) => {
        if (size < first.size) throw altered(`${dir}/${lane}: has ${size} signed records, it had ${first.size}`);
        return size === first.size || first.size === 0 ? [] : consistencyRanges(first.size, size);
      },
      watch,
    );
    const second = { size: signed.size, root: signed.tree.root() };
    if (!(first.size === 0 || isConsistent(first.size, second.size, hashes, first.root, second.root)))
      throw altered(`${dir}/${lane}: its first ${first.size} records are not those of ${request.since}`);
    return { format: CONSISTENCY, first: first.note, second: signed.note, path: hashes, ...keysOf(ring) };
  });
}

export interface CheckedProof {
  readonly kind: 'record' | 'growth';
  readonly origin: string;
  readonly lane: string;
  /** Of the checkpoint that it leads to. */
  readonly size: number;
  readonly time: string;
  readonly receipt?: string;
  readonly record?: JsonObject;
  /** Channels whose content is the text that was given; absent: no text was. */
  readonly matches?: readonly string[];
}
const isText = (v: unknown): v is string => typeof v === 'string';
const isPath = (v: unknown): v is readonly string[] =>
  Array.isArray(v) && v.length <= 128 && v.every((h) => isText(h) && /^[0-9a-f]{64}$/.test(h));

/**
 * Checks a proof by itself.
 * @param proof as it was written, parsed
 * @param text  sha256 of a content, hex: whether the record speaks of it
 * @throws {IntegrityError} log_altered: it proves nothing · {DataError} log_proof: it is none
 */
export function checkProof(proof: unknown, key: Verifier, text?: string): CheckedProof {
  const p = (typeof proof === 'object' && proof !== null ? proof : {}) as Partial<
    Readonly<Record<keyof InclusionProof | keyof ConsistencyProof, unknown>>
  >;
  const areLines = p.keys === undefined || (Array.isArray(p.keys) && p.keys.length <= 1000 && p.keys.every(isText));
  if (!isPath(p.path) || !areLines) throw new DataError('log_proof', 'it is no proof of a log');
  const opened = (note: string): Checkpoint | null => {
    const origin = parseNote(note)?.checkpoint.origin;
    return origin === undefined ? null : (ringOf(origin, key, (p.keys ?? []) as readonly string[])?.open(note) ?? null);
  };
  if (p.format === CONSISTENCY && isText(p.first) && isText(p.second))
    return checkGrowth(opened(p.first), opened(p.second), p.path);
  if (p.format !== INCLUSION || !isText(p.receipt) || !isText(p.line) || !isText(p.checkpoint))
    throw new DataError('log_proof', 'it is no proof of a log');
  const fails = (why: string): IntegrityError => new IntegrityError('log_altered', `the proof does not hold: ${why}`);
  const receipt = parseReceipt(p.receipt);
  const checkpoint = opened(p.checkpoint);
  if (!checkpoint) throw fails('its checkpoint is not signed by the key');
  if (shortOrigin(checkpoint.origin) !== receipt.log || checkpoint.lane !== receipt.lane)
    throw fails('its checkpoint is of another log, or of another stream');
  const hash = leafHash(p.line);
  if (hash !== receipt.hash) throw fails('its record is not the one of the receipt');
  if (!isIncluded(hash, receipt.index, checkpoint.size, p.path, checkpoint.root))
    throw fails('its record is not in the signed tree');
  let line: ReturnType<typeof parseLine>;
  try {
    line = parseLine(p.line);
  } catch {
    throw fails('its record is no line of a log');
  }
  const { chain = '', kind = '', record = {} } = line;
  if (line.index !== receipt.index || recordLine(chain, receipt.index, kind, canonicalJson(record)) !== p.line)
    throw fails('its record is no line of a log');
  return {
    kind: 'record',
    origin: checkpoint.origin,
    lane: laneName(checkpoint.lane),
    size: checkpoint.size,
    time: checkpoint.time,
    receipt: p.receipt,
    record: { kind, ...record },
    ...(text === undefined ? {} : { matches: matchesOf(record, p.salt, text) }),
  };
}
/** @throws {DataError} log_proof: without a salt nobody can tell */
function matchesOf(record: JsonObject, salt: unknown, text: string): readonly string[] {
  if (!isText(salt) || !/^[0-9a-f]{64}$/.test(salt))
    throw new DataError(
      'log_proof',
      'the proof holds no salt, so its contents cannot be compared; `temper log prove --open KEY` puts it in',
    );
  const digest = contentDigest(Buffer.from(salt, 'hex'), text);
  const contents = (record.contents ?? {}) as Readonly<Record<string, unknown>>;
  return Object.entries(contents).flatMap(([channel, d]) => (d === digest ? [channel] : []));
}
function checkGrowth(a: Checkpoint | null, b: Checkpoint | null, path: readonly string[]): CheckedProof {
  const fails = (why: string): IntegrityError => new IntegrityError('log_altered', `the proof does not hold: ${why}`);
  if (!a || !b) throw fails('a checkpoint is not signed by the key');
  if (a.origin !== b.origin || a.lane !== b.lane) throw fails('its checkpoints are of two logs, or of two streams');
  if (!(a.size === 0 || isConsistent(a.size, b.size, path, a.root, b.root)))
    throw fails('the second checkpoint does not go on from the first');
  return { kind: 'growth', origin: b.origin, lane: laneName(b.lane), size: b.size, time: b.time };
}

/**
 * The last signed checkpoint of each stream, as notes.
 * @throws {DataError} log_missing · {IntegrityError} log_altered
 */
export function checkpointsOf(dir: string, watch: Watch = {}): string {
  const { descriptor, ring } = readLog(dir);
  return lanesOf(dir)
    .flatMap((lane) => {
      const last = segmentsOf(dir, lane).at(-1);
      if (!last) return [];
      const scan = new LaneScan(descriptor.origin, lane, ring, {
        pause: () => watch.signal?.throwIfAborted(),
      });
      const fault = scan.scan(last, true);
      if (fault && fault.kind !== 'unsigned') throw altered(`${fault.file}: ${fault.message}`);
      return scan.signed ? [scan.signed.note] : [];
    })
    .join('\n');
}
/** The key of a log, as notes have it. */
export const keyOf = (dir: string): string => {
  const { descriptor, ring } = readLog(dir);
  return verifierLine(descriptor.origin, ring.last);
};
/** A key on one line. @throws {DataError} log_proof */
export function verifierIn(line: string): Verifier {
  const parsed = parseVerifierLine(line);
  if (!parsed) throw new DataError('log_proof', `${JSON.stringify(line.slice(0, 120))}: is no key of a log`);
  return parsed.verifier;
}

// How a log lies on disk. DIR/log.json says whose it is. Each writer that is there at the same time has a stream of its
// own, DIR/0000, DIR/0001, …: files of lines, named by the first record in them. Every line holds the hash of the line
// before it; records are the leaves of the stream's Merkle tree, and a signed checkpoint follows each group of them.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DataError, IntegrityError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { asReadError } from '../base/system-error.js';
import { canonicalJson, type JsonObject } from './canonical.js';
import { parseVerifierLine, type Verifier } from './keys.js';
import { LANE } from './note.js';

export const FORMAT = 'temper-verdict-log/1';
export interface Descriptor {
  readonly format: typeof FORMAT;
  /** `temper-log/` and 16 hexadecimal digits: what checkpoints and receipts call it. */
  readonly origin: string;
  /** The public key, as notes have it. */
  readonly key: string;
  readonly created: string;
}
export const descriptorFile = (dir: string): string => join(dir, 'log.json');
/** Where the key lies that is made where none is given. */
export const ownKeyFile = (dir: string): string => join(dir, 'key.pem');
export const descriptorText = (d: Descriptor): string => `${canonicalJson({ ...d })}\n`;

/** @throws {DataError} log_missing: no log · {IntegrityError} log_altered: not as it was written */
export function readDescriptor(dir: string): { readonly descriptor: Descriptor; readonly verifier: Verifier } {
  const file = descriptorFile(dir);
  let text: string;
  try {
    text = readInputText(file, 'config');
  } catch (e) {
    throw asReadError(e, file, 'wanted a folder that --log wrote', (m) => new DataError('log_missing', m, { file }));
  }
  const altered = (): IntegrityError =>
    new IntegrityError('log_altered', `${file}: is not as it was written; nothing of this log can be trusted`, {
      file,
    });
  let d: Partial<Descriptor>;
  try {
    d = decodeJson(Buffer.from(text)) as Partial<Descriptor>;
  } catch {
    throw altered();
  }
  if (typeof d !== 'object' || d === null || typeof d.key !== 'string' || typeof d.origin !== 'string') throw altered();
  const key = parseVerifierLine(d.key);
  const descriptor = d as Descriptor;
  if (d.format !== FORMAT || !key || key.name !== d.origin || descriptorText(descriptor) !== text) throw altered();
  return { descriptor, verifier: key.verifier };
}
/** As receipts have it. */
export const shortOrigin = (origin: string): string => origin.slice(origin.indexOf('/') + 1);

const SEGMENT = /^([0-9]{12})\.jsonl$/;
export const segmentName = (first: number): string => `${String(first).padStart(12, '0')}.jsonl`;
export interface SegmentFile {
  readonly name: string;
  readonly path: string;
  /** Index of its first record. */
  readonly first: number;
}
/** The files of a stream, in their order. @throws {DataError} log_missing */
export function segmentsOf(dir: string, lane: string): readonly SegmentFile[] {
  return list(join(dir, lane))
    .flatMap((name) => {
      const first = SEGMENT.exec(name)?.[1];
      return first === undefined
        ? []
        : [{ name: `${lane}/${name}`, path: join(dir, lane, name), first: Number(first) }];
    })
    .sort((a, b) => a.first - b.first);
}
export const lanesOf = (dir: string): readonly string[] =>
  list(dir)
    .filter((name) => LANE.test(name))
    .sort();
function list(dir: string): readonly string[] {
  try {
    return readdirSync(dir);
  } catch (e) {
    throw asReadError(
      e,
      dir,
      'wanted a folder that --log wrote',
      (m) => new DataError('log_missing', m, { file: dir }),
    );
  }
}

/** What is before the first line. */
export const NO_LINE = '0'.repeat(64);
const chained = (chain: string): string => `{"chain":"${chain}",`;
/** The beginning of a record's line, up to the name of its kind. */
export const recordHead = (chain: string, index: number): string => `${chained(chain)}"index":${index},"kind":"`;
/** @param json canonical */
export const recordLine = (chain: string, index: number, kind: string, json: string): string =>
  `${recordHead(chain, index)}${kind}","record":${json}}`;
/** The beginning of a checkpoint's line, up to its size. */
export const checkpointHead = (chain: string, origin: string, lane: string, size: number): string =>
  `${chained(chain)}"checkpoint":"${origin}/${lane}\\n${size}\\n`;
export const checkpointLine = (chain: string, note: string): string =>
  `${chained(chain)}"checkpoint":${JSON.stringify(note)}}`;
/** The first line of a file: what the tree is before its first record, as was signed. */
export const segmentLine = (chain: string, first: number, peaks: readonly string[], note: string | null): string =>
  `${chained(chain)}"segment":${canonicalJson({ checkpoint: note, first, peaks })}}`;

export interface RecordLine {
  readonly chain: string;
  readonly index: number;
  readonly kind: string;
  readonly record: JsonObject;
}
/** @throws {SyntaxError} */
export const parseLine = (
  text: string,
): Partial<RecordLine> & { readonly checkpoint?: string } & {
  readonly segment?: { readonly first: number; readonly peaks: readonly string[]; readonly checkpoint: string | null };
} => decodeJson(Buffer.from(text)) as ReturnType<typeof parseLine>;

/** What names a record, and binds it: the hash of its line. */
export interface Receipt {
  /** 16 hexadecimal digits. */
  readonly log: string;
  readonly lane: number;
  readonly index: number;
  readonly hash: string;
}
export const receiptText = ({ log, lane, index, hash }: Receipt): string => `${log}.${lane}.${index}.${hash}`;
/** @throws {DataError} log_receipt */
export function parseReceipt(text: string): Receipt {
  const [, log, lane, index, hash] =
    /^([0-9a-f]{16})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,14})\.([0-9a-f]{64})$/.exec(text.trim()) ?? [];
  if (log === undefined || hash === undefined)
    throw new DataError(
      'log_receipt',
      `${JSON.stringify(text.slice(0, 120))}: no receipt; wanted LOG.STREAM.INDEX.HASH`,
    );
  return { log, lane: Number(lane), index: Number(index), hash };
}

// Whether a log is what was signed: every line follows the one before it, every root is that of the records, the
// signatures are the key's, and nothing that others remember of it is gone.

import { join } from 'node:path';
import { DataError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import { heldSince } from '../base/lock.js';
import { asReadError } from '../base/system-error.js';
import { canonicalJson, type JsonObject } from './canonical.js';
import { type KeyRing, readLog } from './key-ring.js';
import { readVerifier, verifierLine } from './keys.js';
import type { Head } from './lane.js';
import { type Descriptor, lanesOf, parseLine, type SegmentFile, segmentsOf } from './layout.js';
import { laneName, notesIn } from './note.js';
import { type Fault, LaneScan, type ScannedRecord, type Signed } from './scan.js';

export interface VerifyLogRequest {
  readonly dir: string;
  /** File of the public key; default: the one that the log names, which proves no more than that it is one log. */
  readonly key?: string;
  /** Files of checkpoints that were kept elsewhere: the log must go on from each. */
  readonly since?: readonly string[];
  /** It must have been closed, so that an end that was cut off at a checkpoint shows. */
  readonly closed?: boolean;
  /** The oldest files of a stream may have been taken away. */
  readonly pruned?: boolean;
  /** Look at every signature, not at one in 4,096 records and the last of each file. */
  readonly everySignature?: boolean;
}
export interface LaneReport {
  readonly lane: string;
  readonly files: number;
  readonly bytes: number;
  /** Records that were read, of `size` that are signed. */
  readonly records: number;
  readonly size: number;
  readonly root: string | null;
  /** When the last checkpoint was signed. */
  readonly time: string | null;
  readonly checkpoints: number;
  /** `open`: its writer is there, was killed, or its end was cut off at a checkpoint. */
  readonly ended: 'closed' | 'open';
  readonly first: number;
}
export interface LogReport {
  readonly ok: boolean;
  readonly dir: string;
  readonly origin: string;
  /** The one that signs now. */
  readonly key: string;
  /** How the key before it came to be that one. */
  readonly handovers: readonly {
    readonly number: number;
    readonly at: string;
    readonly from: string;
    readonly to: string;
  }[];
  /** `own`: no key was given. */
  readonly trust: 'given' | 'own';
  readonly records: number;
  readonly bytes: number;
  readonly lanes: readonly LaneReport[];
  readonly faults: readonly Fault[];
  /** What is no fault, and cannot be told from one. */
  readonly notes: readonly string[];
  readonly ms: number;
}
export interface Watch {
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytes: number) => void;
}

/** What somebody remembers of a stream. */
interface Claim extends Head {
  readonly who: string;
}
const isHead = (v: unknown): v is Head => {
  const h = v as Partial<Head> | null;
  return (
    typeof h === 'object' && h !== null && [h.lane, h.size].every(Number.isSafeInteger) && typeof h.root === 'string'
  );
};

/** @throws {DataError} log_proof: holds no checkpoint of this log */
export function readCheckpoints(
  file: string,
  descriptor: Descriptor,
  ring: KeyRing,
): readonly (Head & { readonly note: string })[] {
  let text: string;
  try {
    text = readInputText(file, 'record');
  } catch (e) {
    throw asReadError(
      e,
      file,
      'wanted what `temper log checkpoint` wrote',
      (m) => new DataError('log_proof', m, { file }),
    );
  }
  const heads = notesIn(text).map((note) => {
    const checkpoint = ring.open(note);
    if (checkpoint?.origin !== descriptor.origin)
      throw new DataError(
        'log_proof',
        `${file}: holds a checkpoint that is not of ${descriptor.origin}, or not signed by its key`,
        { file },
      );
    return { lane: checkpoint.lane, size: checkpoint.size, root: checkpoint.root, note };
  });
  if (heads.length === 0)
    throw new DataError('log_proof', `${file}: holds no checkpoint; \`temper log checkpoint DIR\` writes some`, {
      file,
    });
  return heads;
}

/** How often, and how long apart, one looks whether what is being written is signed. */
const [LOOKS, LOOK_MS] = [20, 100];

class LogCheck {
  readonly faults: Fault[] = [];
  readonly notes: string[] = [];
  readonly lanes: LaneReport[] = [];
  readonly claims: Claim[] = [];
  constructor(
    readonly request: VerifyLogRequest,
    readonly descriptor: Descriptor,
    readonly ring: KeyRing,
    readonly watch: Watch,
  ) {}
  fault(file: string, message: string, kind: Fault['kind'] = 'altered'): void {
    this.faults.push({ kind, file, line: null, index: null, message });
  }

  /** @param only claims alone: the stream was read before */
  lane(lane: string, only = false): void {
    const { request, descriptor, ring, watch } = this;
    const { dir } = request;
    const segments = segmentsOf(dir, lane);
    const mine = (): Claim[] =>
      this.claims.filter((c) => laneName(c.lane) === lane && c.size > 0).sort((a, b) => a.size - b.size);
    const claims = mine();
    let next = 0;
    let ended = 'open' as LaneReport['ended'];
    const scan = new LaneScan(descriptor.origin, lane, ring, {
      everySignature: request.everySignature === true,
      pause: (bytes) => {
        watch.signal?.throwIfAborted();
        if (!only) watch.onProgress?.(bytes);
      },
      record: (record) => {
        ended = this.#own(record, lane, only);
      },
      grown: (tree) => {
        if (tree.size < (claims[next]?.size ?? Number.POSITIVE_INFINITY)) return null;
        for (let root = ''; claims[next]?.size === tree.size; next++) {
          root ||= tree.root();
          if (claims[next]?.root !== root)
            return `its first ${tree.size} records are not those that ${claims[next]?.who} saw`;
        }
        return null;
      },
    });
    const last = segments.at(-1);
    let first = 0,
      signed: Signed | null = null,
      fault: Fault | null = null;
    if (!last) this.fault(lane, 'the stream holds no file', 'missing');
    for (const [i, segment] of segments.entries()) {
      const pruned = i === 0 && segment.first > 0 && request.pruned === true;
      if (pruned) {
        first = segment.first;
        next = claims.findIndex((c) => c.size > first);
        if (next < 0) next = claims.length;
        if (!only) this.notes.push(`${lane}: records 0 to ${first - 1} are not here; where they end is signed`);
      }
      fault = scan.scan(segment, pruned);
      signed = scan.signed ?? signed;
      if (fault?.kind === 'unsigned' && segment === last && this.#isBeingWritten(lane, segment, scan.fileBytes)) {
        if (!only) this.notes.push(`${lane}: its writer is at work; what it wrote meanwhile was not read`);
        fault = null;
      }
      if (fault) break;
    }
    if (fault && !only)
      this.faults.push(
        fault.kind !== 'unsigned'
          ? fault
          : {
              ...fault,
              message:
                `${fault.message}: a write that was cut off, or an end that was altered; ` +
                'a writer that opens the log cuts them off and says so in it',
            },
      );
    const size = signed?.size ?? 0;
    // Claims that came up while it was read are looked at by a second reading.
    if (!fault)
      for (const c of claims.filter((c) => c.size > size))
        this.fault(lane, `has ${size} signed records, ${c.who} saw ${c.size}: its end was cut off`, 'missing');
    if (only) return;
    if (request.closed === true && ended !== 'closed' && !fault)
      this.fault(lane, 'its writer did not close it: it was killed, is at work, or the end was cut off', 'missing');
    this.lanes.push({
      lane,
      files: segments.length,
      bytes: scan.bytes,
      records: scan.records,
      size,
      root: signed ? signed.tree.root() : null,
      time: signed?.time ?? null,
      checkpoints: scan.checkpoints,
      ended,
      first,
    });
  }

  /**
   * What follows the last checkpoint may be under way: then it is signed soon. That somebody holds the lock says
   * nothing by itself, as anybody can put one there.
   */
  #isBeingWritten(lane: string, segment: SegmentFile, bytes: number): boolean {
    if (heldSince(join(this.request.dir, lane)) === null) return false;
    for (let look = 0; look < LOOKS; look++) {
      this.watch.signal?.throwIfAborted();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS);
      const scan = new LaneScan(this.descriptor.origin, lane, this.ring);
      const fault = scan.scan(segment, true);
      if (fault && fault.kind !== 'unsigned') return false;
      if ((scan.signed?.offset ?? 0) >= bytes) return true;
    }
    return false;
  }

  /** What a log says of itself. @returns how the stream stands after it */
  #own(record: ScannedRecord, lane: string, only: boolean): LaneReport['ended'] {
    let line: ReturnType<typeof parseLine>;
    try {
      line = parseLine(record.text());
    } catch {
      return 'open';
    }
    const { kind, record: said = {} } = line;
    if (kind !== 'open' && kind !== 'close') return 'open';
    if (
      kind === 'open' &&
      !only &&
      canonicalJson((said.log ?? null) as JsonObject) !== canonicalJson({ ...this.descriptor })
    )
      this.fault('log.json', `is not what record ${record.index} of stream ${lane} says of the log`);
    const { handover } = said;
    if (kind === 'open' && !only && handover !== undefined && !this.ring.digests.includes(String(handover)))
      this.fault('keys.jsonl', `record ${record.index} of stream ${lane} knows a handover of keys that is not there`);
    const others: unknown = said.others;
    if (!only && Array.isArray(others))
      for (const other of others as readonly unknown[])
        if (isHead(other)) this.claims.push({ ...other, who: `record ${record.index} of stream ${lane}` });
    return kind === 'close' ? 'closed' : 'open';
  }
}

/**
 * Reads the whole log.
 * @throws {DataError} log_missing, log_proof · {ConfigError} log_key
 * @throws {IntegrityError} log_altered: log.json or keys.jsonl is not as it was
 */
export function verifyLog(request: VerifyLogRequest, watch: Watch = {}): LogReport {
  const from = performance.now();
  const { dir } = request;
  const { descriptor, ring } = readLog(dir);
  const given = request.key === undefined ? null : readVerifier(request.key);
  const check = new LogCheck(request, descriptor, ring, watch);
  if (given && !ring.has(given)) check.fault('log.json', 'names another key than the one given');
  else if (given && !given.raw.equals(ring.last.raw))
    check.notes.push(
      `the key given was handed over: its owner signed for ${verifierLine(descriptor.origin, ring.last)}, which ` +
        'signs now; whoever has the old key could have signed for another, so give --key of the new one',
    );
  for (const { number, heads } of ring.handovers)
    for (const { lane, root, size } of heads)
      check.claims.push({ lane, root, size, who: `handover ${number} of keys.jsonl` });
  for (const file of request.since ?? [])
    for (const head of readCheckpoints(file, descriptor, ring)) check.claims.push({ ...head, who: file });
  const lanes = lanesOf(dir);
  if (lanes.length === 0) check.fault(dir, 'holds no stream', 'missing');
  const read = new Map<string, number>();
  for (const lane of lanes) {
    read.set(lane, check.claims.length);
    check.lane(lane);
  }
  // What later streams saw of earlier ones.
  for (const lane of lanes) {
    const late = check.claims.slice(read.get(lane) ?? 0).filter((c) => laneName(c.lane) === lane);
    if (late.length > 0 && !check.faults.some((f) => f.file.startsWith(lane))) check.lane(lane, true);
  }
  const most = Math.max(-1, ...lanes.map(Number), ...check.claims.map((c) => c.lane));
  for (let n = 0; n <= most; n++)
    if (!lanes.includes(laneName(n))) check.fault(laneName(n), 'the stream is gone', 'missing');
  if (!given)
    check.notes.push(
      'no key was given: this is one log, signed by the key that lies with it; give --key to know whose it is',
    );
  const sum = (of: (lane: LaneReport) => number): number => check.lanes.reduce((n, lane) => n + of(lane), 0);
  return {
    ok: check.faults.length === 0,
    dir,
    origin: descriptor.origin,
    key: verifierLine(descriptor.origin, ring.last),
    handovers: ring.handovers.map(({ number, at, from, to }) => ({ number, at, from, to })),
    trust: given ? 'given' : 'own',
    records: sum((l) => l.records),
    bytes: sum((l) => l.bytes),
    lanes: check.lanes,
    faults: check.faults,
    notes: check.notes,
    ms: performance.now() - from,
  };
}

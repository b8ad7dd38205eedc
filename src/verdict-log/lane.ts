// The stream of one writer: found or made when it opens, gone on with from its last signed checkpoint. What follows
// that was never acknowledged; it is cut off, and kept beside the log.
import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, renameSync, writeSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256 } from '../base/digest.js';
import { IntegrityError, ScreeningError } from '../base/errors.js';
import { makeFolders } from '../base/folders.js';
import { InputFile } from '../base/inputs.js';
import { lockFolder } from '../base/lock.js';
import { syncPath } from '../base/temporary.js';
import type { JsonObject } from './canonical.js';
import type { KeyRing } from './key-ring.js';
import type { Signer } from './keys.js';
import {
  checkpointLine,
  NO_LINE,
  recordLine,
  type SegmentFile,
  segmentLine,
  segmentName,
  segmentsOf,
} from './layout.js';
import { Frontier, leafHash } from './merkle.js';
import { laneName, type NoteReader, signCheckpoint } from './note.js';
import { LaneScan, noteOf } from './scan.js';

const MOST_LANES = 10_000;

/** What was cut off when a stream was opened. */
export interface Cut {
  readonly bytes: number;
  readonly sha256: string;
}
export interface NewRecord {
  readonly kind: string;
  /** Canonical. */
  readonly json: string;
}
export interface Written {
  readonly index: number;
  readonly hash: string;
}
class IsHeld extends Error {}

/** Takes the first stream that nobody writes. */
export function takeLane(dir: string): { readonly lane: number; readonly lock: Disposable } {
  for (let lane = 0; lane < MOST_LANES; lane++)
    try {
      return { lane, lock: lockFolder(join(dir, laneName(lane)), () => new IsHeld()) };
    } catch (e) {
      if (!(e instanceof IsHeld)) throw e;
    }
  throw new ScreeningError('log_failed', `${dir}: ${MOST_LANES} streams are all being written; give another --log DIR`);
}

interface Place {
  readonly segment: SegmentFile | null;
  readonly bytes: number;
  readonly chain: string;
  readonly tree: Frontier;
  readonly note: string | null;
  /** How its last writer ended. */
  readonly ended: 'none' | 'closed' | 'open';
  readonly cut: Cut | null;
}
const NOWHERE: Place = {
  segment: null,
  bytes: 0,
  chain: NO_LINE,
  tree: new Frontier(),
  note: null,
  ended: 'none',
  cut: null,
};

/** Of the bytes from `from` on: whether they hold a checkpoint that was signed, so that they were acknowledged. */
function holdsSigned(bytes: Buffer, lane: string, keys: NoteReader): boolean {
  return bytes
    .toString('utf8')
    .split('\n')
    .some((line) => {
      const note = /^\{"chain":"[0-9a-f]{64}","checkpoint":/.test(line) ? noteOf(line) : null;
      const checkpoint = note === null ? null : keys.open(note);
      return checkpoint !== null && laneName(checkpoint.lane) === lane;
    });
}

/** @throws {IntegrityError} log_altered: what was signed is not there as it was */
export function findPlace(dir: string, lane: string, origin: string, keys: NoteReader): Place {
  const segments = segmentsOf(dir, lane);
  const last = segments.at(-1);
  if (!last) return NOWHERE;
  let closedAt = -1;
  const scan = new LaneScan(origin, lane, keys, {
    record: (r) => {
      if (r.text().includes('"kind":"close"')) closedAt = r.index;
    },
  });
  const fault = scan.scan(last, true);
  const refuse = (why: string): IntegrityError =>
    new IntegrityError(
      'log_altered',
      `${dir}: ${last.name}: ${why}; nothing is added to a log that was altered: see \`temper log verify\`, ` +
        'and give another --log DIR',
      { file: last.path },
    );
  const { signed } = scan;
  const ended = signed && closedAt === signed.size - 1 ? 'closed' : 'open';
  if (!fault && signed)
    return {
      segment: last,
      bytes: signed.offset,
      chain: signed.chain,
      tree: signed.tree,
      note: signed.note,
      ended,
      cut: null,
    };
  // After the last checkpoint that is whole there may be what was being written when power or process ended.
  using file = InputFile.open(last.path);
  const from = signed?.offset ?? 0;
  const rest = Buffer.alloc(file.size - from);
  file.read(from, rest);
  if (holdsSigned(rest, lane, keys)) {
    // Whole but for the end of its line.
    if (fault?.kind === 'unsigned' && rest.at(-1) !== 10) {
      finishLine(last.path);
      return findPlace(dir, lane, origin, keys);
    }
    throw refuse(fault?.message ?? 'it was altered');
  }
  const cut = { bytes: rest.length, sha256: sha256(rest) };
  keepCut(last.path, from, rest, signed === null);
  if (signed === null) return { ...findPlace(dir, lane, origin, keys), cut };
  return { segment: last, bytes: from, chain: signed.chain, tree: signed.tree, note: signed.note, ended: 'open', cut };
}
function finishLine(path: string): void {
  const fd = openSync(path, 'a');
  try {
    writeSync(fd, '\n');
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
/** @param whole nothing of the file is signed */
function keepCut(path: string, from: number, rest: Buffer, whole: boolean): void {
  const aside = `${path}.cut-${Date.now().toString(36)}`;
  if (whole) renameSync(path, aside);
  else {
    const copy = openSync(aside, 'wx', 0o600);
    try {
      for (let at = 0; at < rest.length; ) at += writeSync(copy, rest, at);
      fsyncSync(copy);
    } finally {
      closeSync(copy);
    }
    const fd = openSync(path, 'r+');
    try {
      ftruncateSync(fd, from);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }
  syncPath(join(path, '..'));
}

/** What a writer does to files; tests put faults in between. */
export interface LaneFiles {
  create(path: string): Promise<FileHandle>;
  open(path: string): Promise<FileHandle>;
}
const FILES: LaneFiles = { create: (path) => open(path, 'wx', 0o640), open: (path) => open(path, 'r+') };

export class Lane {
  readonly name: string;
  #place: Place;
  #file: FileHandle | null = null;
  /** Why nothing can be added any more. */
  #broken: unknown = null;

  constructor(
    readonly dir: string,
    readonly lane: number,
    readonly origin: string,
    readonly signer: Signer,
    readonly keys: KeyRing,
    readonly segmentBytes: number,
    readonly files: LaneFiles = FILES,
  ) {
    this.name = laneName(lane);
    makeFolders(join(dir, this.name));
    this.#place = findPlace(dir, this.name, origin, keys);
  }
  get place(): Pick<Place, 'ended' | 'cut' | 'note'> & { readonly size: number } {
    const { ended, cut, note, tree } = this.#place;
    return { ended, cut, note, size: tree.size };
  }
  get broken(): boolean {
    return this.#broken !== null;
  }

  /**
   * Adds records and a checkpoint over them in one write, and waits until they are on the disk. All of them are there
   * when it resolves, none where it rejects.
   */
  async commit(records: readonly NewRecord[]): Promise<readonly Written[]> {
    if (this.#broken !== null) throw this.#broken;
    const { segment, bytes, note: before } = this.#place;
    const fresh = segment === null || bytes >= this.segmentBytes;
    const tree = this.#place.tree.copy();
    let { chain } = this.#place;
    const lines: string[] = [];
    const add = (line: string): void => {
      lines.push(line);
      chain = leafHash(line);
    };
    const first = tree.size;
    if (fresh) add(segmentLine(chain, first, tree.peaks, before));
    const written = records.map(({ kind, json }) => {
      const index = tree.size;
      add(recordLine(chain, index, kind, json));
      tree.push(chain);
      return { index, hash: chain };
    });
    const note = signCheckpoint(
      { origin: this.origin, lane: this.lane, size: tree.size, root: tree.root(), time: new Date().toISOString() },
      this.signer,
    );
    add(checkpointLine(chain, note));
    const data = Buffer.from(`${lines.join('\n')}\n`);
    const name = segmentName(first);
    const into: SegmentFile = fresh
      ? { name: `${this.name}/${name}`, path: join(this.dir, this.name, name), first }
      : (segment as SegmentFile);
    if (fresh) await this.#begin(into, data);
    else await this.#append(into, bytes, data);
    const end = (fresh ? 0 : bytes) + data.length;
    this.#place = { ...this.#place, segment: into, bytes: end, chain, tree, note };
    return written;
  }

  async #begin(into: SegmentFile, data: Buffer): Promise<void> {
    const file = await this.files.create(into.path);
    try {
      await writeAll(file, data, 0);
      await file.datasync();
      syncPath(join(this.dir, this.name));
    } catch (e) {
      await file.close().catch(() => {});
      // Left there, it would be in the way of the next try.
      await rm(into.path, { force: true }).catch((still: unknown) => {
        this.#broken = still;
      });
      throw e;
    }
    await this.#file?.close().catch(() => {});
    this.#file = file;
  }
  async #append({ path }: SegmentFile, at: number, data: Buffer): Promise<void> {
    this.#file ??= await this.files.open(path);
    // Whoever else writes to it took the lock away from this process.
    const { size } = fstatSync(this.#file.fd);
    if (size !== at) {
      this.#broken = new ScreeningError(
        'log_failed',
        `${path}: has ${size} bytes, wanted ${at}: somebody else writes it`,
      );
      throw this.#broken;
    }
    try {
      await writeAll(this.#file, data, at);
    } catch (e) {
      // A disk that is full may have room again: what was written of it goes, and the stream is as it was.
      try {
        await this.#file.truncate(at);
      } catch (still) {
        this.#broken = still;
      }
      throw e;
    }
    try {
      await this.#file.datasync();
    } catch (e) {
      // What of it is on the disk cannot be told any more: whoever opens the log next will see.
      this.#broken = e;
      throw e;
    }
  }
  async close(): Promise<void> {
    await this.#file?.close().catch(() => {});
    this.#file = null;
    this.#broken ??= new ScreeningError('log_failed', `${this.dir}: the log is closed`);
  }
}
async function writeAll(file: FileHandle, data: Buffer, position: number): Promise<void> {
  for (let at = 0; at < data.length; ) {
    const { bytesWritten } = await file.write(data, at, data.length - at, position + at);
    at += bytesWritten;
  }
}

/** What a stream's last signed checkpoint says, as others see it; null: there is none. */
export interface Head {
  readonly lane: number;
  readonly size: number;
  readonly root: string;
}
/** Bytes that a checkpoint's line may have. */
const TAIL = 4096;
/** Of the streams of a log but one's own, without reading them: so that none can vanish unseen. */
export function headsOf(
  dir: string,
  lanes: readonly string[],
  own: string,
  keys: NoteReader,
): readonly (Head & JsonObject)[] {
  return lanes.flatMap((lane) => {
    if (lane === own) return [];
    const last = segmentsOf(dir, lane).at(-1);
    if (!last) return [];
    using file = InputFile.open(last.path);
    const tail = Buffer.alloc(Math.min(TAIL, file.size));
    file.read(file.size - tail.length, tail);
    const lines = tail.toString('utf8').split('\n');
    for (const line of lines.slice(0, -1).reverse()) {
      const note = line.includes('"checkpoint":') ? noteOf(line) : null;
      const checkpoint = note === null ? null : keys.open(note);
      if (checkpoint) return [{ lane: checkpoint.lane, size: checkpoint.size, root: checkpoint.root }];
    }
    return [];
  });
}

// A log of verdicts, open for writing. `append` resolves when the record is on the disk under a signed checkpoint;
// those that come while one group is being written make up the next, so that many cost one write and one flush.

import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError, IntegrityError, ScreeningError, TemperError } from '../base/errors.js';
import { writeFlushed } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { lockFolder } from '../base/lock.js';
import { asWriteError } from '../base/system-error.js';
import { syncPath, temporaryName } from '../base/temporary.js';
import { canonicalJson, type JsonObject } from './canonical.js';
import { contentDigest } from './content.js';
import { type KeyRing, readLog } from './key-ring.js';
import { isOpenToOthers, makeKey, readSigner, type Signer, verifierLine } from './keys.js';
import { type Head, headsOf, Lane, type LaneFiles, type NewRecord, takeLane } from './lane.js';
import {
  type Descriptor,
  descriptorFile,
  descriptorText,
  FORMAT,
  lanesOf,
  ownKeyFile,
  receiptText,
  shortOrigin,
} from './layout.js';

export interface LogOptions {
  /** Made where it is not there. */
  readonly dir: string;
  /** Private key, PEM. Default: one that is made in the folder, and protects from those alone who cannot read it. */
  readonly key?: string | undefined;
  /** What writes: a command. */
  readonly by: string;
  readonly version?: string;
  /** A file that has as many is followed by another; a writer that opens reads the last one. Default 16 MiB. */
  readonly segmentBytes?: number;
  /** Told of each group that was written, or was not. */
  readonly onCommit?: (commit: CommitInfo) => void;
  readonly files?: LaneFiles;
}
export interface CommitInfo {
  readonly records: number;
  readonly ms: number;
  readonly failed: boolean;
}
export interface VerdictLog {
  readonly dir: string;
  readonly origin: string;
  readonly lane: number;
  /** What should be known of it: a key that others can read, an end that was cut off. */
  readonly notices: readonly string[];
  /** The public key, as notes have it. */
  readonly key: string;
  /**
   * @param kind   small letters: `verdict`, `review`, …
   * @param record without contents: the log holds digests (`digest`)
   * @throws {ScreeningError} log_failed: it is not recorded
   */
  append(kind: string, record: JsonObject): Promise<{ readonly receipt: string }>;
  /** A digest of content by which nobody can guess it: a MAC under a salt of its own, which `nonce` names. */
  digest(nonce: string, sha256: string): string;
  /** Nothing can be added any more, and why; null: it can. */
  readonly broken: string | null;
  close(): Promise<void>;
}

const SEGMENT_BYTES = 16 << 20;
/** Of one record. */
const MAX_RECORD = 256 << 10;
/** Records of one group. */
const MAX_GROUP = 4096;
const KIND = /^[a-z][a-z-]{0,30}$/;
const LOCK_MS = 10_000;
/** Kinds that are the log's own. */
const OWN: readonly string[] = ['open', 'close'];

/** One at a time: who makes a log, takes a stream of it, or hands its key over. */
export async function alone<T>(dir: string, work: () => T): Promise<T> {
  const until = performance.now() + LOCK_MS;
  for (;;) {
    let lock: Disposable | undefined;
    try {
      lock = lockFolder(
        join(dir, 'log'),
        () => new ScreeningError('log_failed', `${dir}: another process is making it`),
      );
      return work();
    } catch (e) {
      if (lock || !(e instanceof ScreeningError) || performance.now() > until) throw e;
    } finally {
      lock?.[Symbol.dispose]();
    }
    await new Promise((next) => setTimeout(next, 10));
  }
}

/** @throws {ConfigError} log_key · {IntegrityError} log_altered */
function openOrMake(
  dir: string,
  key: string | undefined,
): { readonly descriptor: Descriptor; readonly signer: Signer; readonly ring: KeyRing } {
  const file = key ?? ownKeyFile(dir);
  const there = existsSync(descriptorFile(dir));
  if (!there && existsSync(dir) && lanesOf(dir).length > 0)
    throw new IntegrityError('log_altered', `${descriptorFile(dir)}: is gone, and its streams are there`, {
      file: dir,
    });
  const signer = key === undefined && !there && !existsSync(file) ? makeKey(file) : readSigner(file);
  if (!there) {
    const origin = `temper-log/${randomBytes(8).toString('hex')}`;
    const made: Descriptor = {
      format: FORMAT,
      origin,
      key: verifierLine(origin, signer),
      created: new Date().toISOString(),
    };
    const temporary = temporaryName(descriptorFile(dir));
    try {
      writeFlushed(temporary, descriptorText(made));
      linkSync(temporary, descriptorFile(dir));
    } finally {
      rmSync(temporary, { force: true });
    }
    syncPath(dir);
  }
  const { descriptor, ring } = readLog(dir);
  requireLast(dir, file, ring, signer);
  return { descriptor, signer, ring };
}
/** @throws {ConfigError} log_key: it is not the key that signs now */
export function requireLast(dir: string, file: string, ring: KeyRing, signer: Signer): void {
  if (ring.last.raw.equals(signer.raw)) return;
  const now = verifierLine(ring.origin, ring.last);
  throw new ConfigError(
    'log_key',
    ring.has(signer)
      ? `${file}: was a key of the log ${dir} and is handed over; give the one of ${now}`
      : `${file}: is not the key of the log ${dir}, which is ${now}; give that one, or another --log DIR`,
    { file },
  );
}

const failed = (dir: string, e: unknown): ScreeningError => {
  const told = asWriteError(e, dir, true);
  const why = told instanceof Error ? told.message : String(told);
  return new ScreeningError(
    'log_failed',
    `--log ${why.startsWith(dir) ? '' : `${dir}: `}${why}: the record is not in the log, and nothing may leave by it`,
    { file: dir },
    { cause: e },
  );
};

interface Waiting extends NewRecord {
  readonly done: (receipt: { readonly receipt: string }) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * Opens a log, or makes one. A second writer of the same folder gets a stream of its own.
 * @throws {ConfigError} log_key, output_unwritable · {IntegrityError} log_altered · {ScreeningError} log_failed
 */
export async function openVerdictLog(options: LogOptions): Promise<VerdictLog> {
  const { dir, by, version = '' } = options;
  try {
    makeFolders(dir);
  } catch (e) {
    throw asWriteError(e, dir);
  }
  const { descriptor, signer, ring, taken } = await alone(dir, () => ({
    ...openOrMake(dir, options.key),
    // In the same moment, that no key is handed over in between.
    taken: takeLane(dir),
  })).catch((e: unknown) => {
    throw e instanceof TemperError ? e : asWriteError(e, dir);
  });
  const { origin } = descriptor;
  const { lane: number, lock } = taken;
  try {
    const lane = new Lane(dir, number, origin, signer, ring, options.segmentBytes ?? SEGMENT_BYTES, options.files);
    const others = (): readonly (Head & JsonObject)[] => headsOf(dir, lanesOf(dir), lane.name, ring);
    const handover = ring.digests.at(-1);
    const { ended, cut } = lane.place;
    const opened: JsonObject = {
      at: new Date().toISOString(),
      by,
      before: ended,
      ...(cut ? { cut: { ...cut } } : {}),
      ...(handover === undefined ? {} : { handover }),
      log: { ...descriptor },
      others: others(),
      version,
    };
    await lane.commit([{ kind: 'open', json: canonicalJson(opened) }]).catch((e: unknown) => {
      throw failed(dir, e);
    });
    return writerOf({ lane, lock, others, descriptor, signer, options, notices: noticesOf(options, lane) });
  } catch (e) {
    lock[Symbol.dispose]();
    throw e;
  }
}

function noticesOf({ dir, key }: LogOptions, lane: Lane): readonly string[] {
  const { ended, cut } = lane.place;
  const file = key ?? ownKeyFile(dir);
  return [
    ...(key === undefined
      ? [
          `log ${dir}: signed by ${file}, which lies in the log itself: whoever can read it can sign another log; ` +
            '`temper key new FILE` makes one that lies elsewhere, --log-key FILE takes it',
        ]
      : []),
    ...(isOpenToOthers(file) ? [`log ${dir}: others can read the private key ${file}; chmod 600 it`] : []),
    ...(ended === 'open' ? [`log ${dir}: its last writer did not close it (killed, or its end was cut off)`] : []),
    ...(cut ? [`log ${dir}: ${cut.bytes} bytes that were never acknowledged are cut off and kept beside it`] : []),
    ...(lane.lane > 0 ? [`log ${dir}: others write it too; this one writes stream ${lane.name}`] : []),
  ];
}

interface Parts {
  readonly lane: Lane;
  readonly lock: Disposable;
  readonly others: () => readonly (Head & JsonObject)[];
  readonly descriptor: Descriptor;
  readonly signer: Signer;
  readonly options: LogOptions;
  readonly notices: readonly string[];
}
function writerOf({ lane, lock, others, descriptor, signer, options, notices }: Parts): VerdictLog {
  const { dir, onCommit } = options;
  const { origin } = descriptor;
  const waiting: Waiting[] = [];
  let running: Promise<void> | null = null;
  let closing: Promise<void> | null = null;
  let broken: string | null = null;

  const run = async (): Promise<void> => {
    while (waiting.length > 0) {
      const group = waiting.splice(0, MAX_GROUP);
      const from = performance.now();
      let told = false;
      try {
        const written = await lane.commit(group);
        told = true;
        onCommit?.({ records: group.length, ms: performance.now() - from, failed: false });
        for (const [i, { index, hash }] of written.entries())
          group[i]?.done({ receipt: receiptText({ log: shortOrigin(origin), lane: lane.lane, index, hash }) });
      } catch (e) {
        const error = failed(dir, e);
        if (lane.broken) broken = error.message;
        if (!told) onCommit?.({ records: group.length, ms: performance.now() - from, failed: true });
        for (const w of group) w.fail(error);
      }
    }
    running = null;
  };
  const push = (kind: string, record: JsonObject): Promise<{ readonly receipt: string }> =>
    new Promise((done, fail) => {
      const json = canonicalJson(record);
      if (json.length > MAX_RECORD)
        throw new ScreeningError(
          'log_failed',
          `--log ${dir}: a record has ${json.length} characters, at most ${MAX_RECORD}`,
        );
      waiting.push({ kind, json, done, fail });
      // Whatever is appended in this turn of the event loop is one group.
      running ??= Promise.resolve().then(run);
    });
  return {
    dir,
    origin,
    lane: lane.lane,
    notices,
    key: verifierLine(origin, signer),
    get broken() {
      return broken;
    },
    digest: (nonce, sha256) => contentDigest(signer.salt(nonce), sha256),
    append(kind, record) {
      if (closing) return Promise.reject(new ScreeningError('log_failed', `--log ${dir}: the log is closed`));
      if (!KIND.test(kind) || OWN.includes(kind))
        return Promise.reject(
          new ScreeningError('log_failed', `--log ${dir}: ${JSON.stringify(kind)} is no kind of a record`),
        );
      return push(kind, record).catch((e: unknown) => {
        throw e instanceof TemperError ? e : failed(dir, e);
      });
    },
    close() {
      closing ??= (async () => {
        try {
          await push('close', { at: new Date().toISOString(), others: others() });
        } catch {
          // What was acknowledged is there; that nobody closed it is seen.
        }
        await running;
        await lane.close();
        lock[Symbol.dispose]();
      })();
      return closing;
    },
  };
}

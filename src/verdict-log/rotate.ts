// The key of a log is handed over: both keys sign how far every stream is, and from there on the new one signs.
import { join } from 'node:path';
import { IntegrityError, ScreeningError, TemperError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { lockFolder } from '../base/lock.js';
import { asWriteError } from '../base/system-error.js';
import { type HandoverHead, type KeyRing, keysFile, readLog } from './key-ring.js';
import { readSigner, verifierLine } from './keys.js';
import { lanesOf, ownKeyFile, segmentsOf } from './layout.js';
import { alone, openVerdictLog, requireLast } from './log.js';
import { laneName } from './note.js';
import { LaneScan } from './scan.js';

export interface RotateOptions {
  readonly dir: string;
  /** Private key that signs now; absent: the one that lies in the folder. */
  readonly key?: string | undefined;
  /** Private key that is to sign from now on. */
  readonly to: string;
  readonly version?: string;
}
export interface Rotated {
  readonly dir: string;
  readonly number: number;
  /** Keys as notes have them. */
  readonly from: string;
  readonly to: string;
  readonly heads: readonly HandoverHead[];
}

/** All streams, those included that somebody took and has not begun. @throws {ScreeningError} log_failed */
function holdAll(dir: string): Disposable {
  const locks: Disposable[] = [];
  const release = (): void => {
    for (const lock of locks) lock[Symbol.dispose]();
  };
  const there = new Set(lanesOf(dir));
  try {
    for (let lane = 0; lane === 0 || there.has(laneName(lane - 1)); lane++)
      locks.push(
        lockFolder(
          join(dir, laneName(lane)),
          () =>
            new ScreeningError('log_failed', `${dir}: stream ${laneName(lane)} is being written; end its writer first`),
        ),
      );
  } catch (e) {
    release();
    throw e;
  }
  return { [Symbol.dispose]: release };
}

/** How far each stream is signed. */
function headsIn(dir: string, ring: KeyRing): readonly HandoverHead[] {
  return lanesOf(dir).flatMap((lane) => {
    const last = segmentsOf(dir, lane).at(-1);
    if (!last) return [];
    const scan = new LaneScan(ring.origin, lane, ring);
    const fault = scan.scan(last, true);
    // What follows the last checkpoint is no part of the log: whoever writes next cuts it off, and says so.
    if (fault && fault.kind !== 'unsigned')
      throw new IntegrityError(
        'log_altered',
        `${fault.file}: ${fault.message}; the key of a log that was altered is not handed over`,
        { file: dir },
      );
    const { signed } = scan;
    return signed ? [{ lane: Number(lane), root: signed.tree.root(), size: signed.size }] : [];
  });
}

/**
 * Hands the key of a log over. Nobody may be writing it.
 * @throws {DataError} log_missing · {ConfigError} log_key, output_unwritable · {IntegrityError} log_altered
 * @throws {ScreeningError} log_failed: it is being written
 */
export async function rotateLogKey({ dir, key, to: next, version }: RotateOptions): Promise<Rotated> {
  readLog(dir);
  const file = key ?? ownKeyFile(dir);
  const [from, to] = [readSigner(file), readSigner(next)];
  const handover = await alone(dir, () => {
    const { ring } = readLog(dir);
    requireLast(dir, file, ring, from);
    using _ = holdAll(dir);
    const line = ring.handOver(from, to, headsIn(dir, ring), new Date().toISOString());
    const before = [...ring.lines];
    const wrong = ring.take(line);
    if (wrong !== null) throw new ScreeningError('log_failed', `${dir}: the handover ${wrong}; give another key`);
    writeFileAtomic(keysFile(dir), [...before, line].map((l) => `${l}\n`).join(''));
    return ring;
  }).catch((e: unknown) => {
    throw e instanceof TemperError ? e : asWriteError(e, dir);
  });
  // Its first record knows of the handover, which cannot be taken away any more without being missed.
  const log = await openVerdictLog({ dir, key: next, by: 'key rotate', ...(version === undefined ? {} : { version }) });
  await log.close();
  const made = handover.handovers.at(-1);
  return {
    dir,
    number: handover.handovers.length,
    from: verifierLine(handover.origin, from),
    to: verifierLine(handover.origin, to),
    heads: made?.heads ?? [],
  };
}

// `temper gate lock`: everything that a decision hangs on, by digest, in one file that is committed before the run.
import { writeFileAtomic } from '../base/files.js';
import { versions } from '../base/machine.js';
import { type Lock, type LockJudge, lockDigest, lockText, makeLock, readLock, requireLock } from '../gate/lock.js';
import { type LoadedSuite, loadSuite } from '../gate/suite.js';
import { type JudgeOptions, lockedJudge } from './gate-judge.js';

/** Who judges and how it is asked, as a run says it; without a judge nothing is judged. */
export interface LockRequest extends JudgeOptions {
  /** suite.yaml, with the files that it names beside it. */
  readonly suite: string;
  /** Counts of the judge on labelled texts, or what `temper policy calibrate` wrote. */
  readonly calibration?: string | undefined;
  /** File to write. */
  readonly out: string;
}
export interface Locked {
  readonly file: string;
  /** By which decisions and exports name it, "sha256:…". */
  readonly digest: string;
  readonly lock: Lock;
}
/** @throws {ConfigError} bad_suite, what judge and calibration have wrong, output_unwritable */
export async function lockGate({ suite, calibration, out, ...options }: LockRequest): Promise<Locked> {
  const loaded = loadSuite(suite);
  const { judge: where } = options;
  const judge = where === undefined ? null : await lockedJudge(loaded, { ...options, judge: where, calibration });
  const lock = makeLock(loaded, { judge, version: versions().temper });
  writeFileAtomic(out, lockText(lock));
  return { file: out, digest: lockDigest(lock), lock };
}

/**
 * The lock that a run is given, which must fit suite and judge.
 * @param judge null: nothing is judged, and the lock's word on a judge counts
 * @throws {ConfigError} lock_unreadable · {IntegrityError} bad_lock, lock_mismatch
 */
export function fittingLock(file: string, loaded: LoadedSuite, judge: LockJudge | null): Lock {
  const lock = readLock(file);
  // Calibration is the lock's: it was measured before.
  const asked = judge === null ? lock.judge : { ...judge, calibration: lock.judge?.calibration ?? null };
  requireLock(lock, loaded, makeLock(loaded, { judge: asked, version: versions().temper }), asked);
  return lock;
}

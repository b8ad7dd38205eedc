// `temper gate lock`: everything that a decision hangs on, by digest, in one file that is committed before the run.
import { writeFileAtomic } from '../base/files.js';
import { versions } from '../base/machine.js';
import { type Lock, lockDigest, lockText, makeLock } from '../gate/lock.js';
import { loadSuite } from '../gate/suite.js';
import { lockJudge } from './gate-judge.js';

export interface LockRequest {
  /** suite.yaml, with the files that it names beside it. */
  readonly suite: string;
  /** Folder of the judge's checkpoint; absent: nothing is judged. */
  readonly judge?: string | undefined;
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
export async function lockGate({ suite, judge: dir, calibration, out }: LockRequest): Promise<Locked> {
  const loaded = loadSuite(suite);
  const judge = dir === undefined ? null : await lockJudge(dir, calibration);
  const lock = makeLock(loaded, { judge, version: versions().temper });
  writeFileAtomic(out, lockText(lock));
  return { file: out, digest: lockDigest(lock), lock };
}

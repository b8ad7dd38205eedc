// One writer per run folder.
import { ConfigError } from '../base/errors.js';
import { holderOf, lockFolder } from '../base/lock.js';

/**
 * Locks a run folder, which need not exist yet, until it is disposed of.
 * @throws {ConfigError} run_locked: another process or thread writes to it; output_unwritable
 */
export const lockRun = (run: string): Disposable =>
  lockFolder(
    run,
    ({ pid, who, file }) =>
      new ConfigError(
        'run_locked',
        `${run}: ${who} writes to this run; wait for it or stop it, or remove ${file} if it is gone`,
        { run, pid, file },
      ),
  );

/** Who writes to a run now, as something that can be compared; null: nobody. */
export const writerOf = (run: string): string | null => holderOf(run);

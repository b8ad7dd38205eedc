// One writer per run folder.
import { ConfigError } from '../base/errors.js';
import { heldSince, lockFolder } from '../base/lock.js';

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

/** Since when somebody writes to a run, ns since 1970 as its file system has it; null: nobody does. */
export const writtenSince = (run: string): bigint | null => heldSince(run);

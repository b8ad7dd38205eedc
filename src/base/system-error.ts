// What the operating system refuses, as typed errors: no file handles left, no room, no permission.
import { CheckpointError, ConfigError, NativeError, TemperError } from './errors.js';

/** The errno name of a failed system call; null: the error is something else. */
const errnoOf = (e: unknown): string | null => {
  if (!(e instanceof Error) || !('code' in e) || typeof e.code !== 'string') return null;
  return /^E[A-Z0-9]+$/.test(e.code) ? e.code : null;
};
const pathOf = (e: unknown): string => (e instanceof Error && 'path' in e && e.path ? `${String(e.path)}: ` : '');

/** Too many open files; anything else stays what it is. */
export function asSystemError(e: unknown): unknown {
  const code = errnoOf(e);
  if (e instanceof TemperError || (code !== 'EMFILE' && code !== 'ENFILE')) return e;
  return new NativeError(
    'open_files_limit',
    `${pathOf(e)}too many open files (${code}); close some, or raise the limit with \`ulimit -n\``,
    {},
    { cause: e },
  );
}

/** Any failed system call that nobody knew better: one line with path, call and errno. Other errors stay. */
export function asTypedError(e: unknown): unknown {
  const known = asSystemError(e);
  const code = errnoOf(known);
  if (known instanceof TemperError || code === null || !(known instanceof Error) || !('syscall' in known)) return known;
  return new NativeError(
    'system_error',
    `${pathOf(known)}${String(known.syscall)} failed (${code}); check the path, its permissions and the limits`,
    { code },
    { cause: known },
  );
}

/** Writing failed: no room is `disk_full`, all that a path or its permissions cause `output_unwritable`. */
export function asWriteError(e: unknown, path: string): unknown {
  const known = asSystemError(e);
  const code = errnoOf(known);
  if (known instanceof TemperError || code === null) return known;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG')
    return new CheckpointError(
      'disk_full',
      `${path}: no room left while writing (${code}); nothing was left behind; free some space and run it again`,
      { file: path },
      { cause: e },
    );
  return new ConfigError(
    'output_unwritable',
    `${path}: cannot be written (${code}); choose another place, or change its permissions`,
    { file: path, code },
    { cause: e },
  );
}

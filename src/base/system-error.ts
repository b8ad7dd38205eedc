// What the operating system refuses, as typed errors: no file handles left, no room, no permission.
import { CheckpointError, ConfigError, NativeError, TemperError } from './errors.js';

/** The errno name of a failed system call; null: the error is something else. */
const errnoOf = (e: unknown): string | null => {
  if (!(e instanceof Error) || !('code' in e) || typeof e.code !== 'string') return null;
  if (e.code === 'ERR_INVALID_ARG_VALUE') return 'EINVAL'; // a path with a zero byte, which Node refuses itself
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

/** What an errno says of a file that is to be read, and what to do; '': the reader knows better what it wanted. */
const READ_FAILURES: Readonly<Record<string, readonly [why: string, next: string]>> = {
  ENOENT: ['it is not there', ''],
  EISDIR: ['it is a folder', ''],
  ENOTDIR: ['what the path takes for a folder is a file', ''],
  EACCES: ['no permission', 'change its permissions, or run it as a user who may read it'],
  EPERM: ['no permission', 'change its permissions, or run it as a user who may read it'],
  ELOOP: ['its links go in a circle', 'repair the link'],
  ENAMETOOLONG: ['a name in the path is too long', 'check the path'],
  EIO: ['the disk, or the network it is on, fails', 'copy it from where it came from'],
  ESTALE: ['the network file system has lost it', 'open it again'],
};
/**
 * `FILE: cannot be read: …; …` as the error that `make` makes of it. What says by itself what is wrong stays: too many
 * open files, no regular file, too large, a stop.
 * @param next what to do where the path may be another one than was meant
 */
export function asReadError(e: unknown, path: string, next: string, make: (message: string) => TemperError): unknown {
  const known = asSystemError(e);
  if (known instanceof TemperError || (known instanceof Error && known.name === 'AbortError')) return known;
  const code = errnoOf(known);
  if (code === null) return known;
  const [why, remedy] = READ_FAILURES[code] ?? ['the system refuses', 'check the path'];
  return Object.assign(make(`${path}: cannot be read: ${why} (${code}); ${remedy || next}`), { cause: e });
}

/** Any failed system call that nobody knew better: one line with path, call and errno. Other errors stay. */
export function asTypedError(e: unknown): unknown {
  const known = asSystemError(e);
  const code = errnoOf(known);
  if (known instanceof TemperError || code === null || !(known instanceof Error)) return known;
  // Of Node's own refusals only that of a path with a zero byte is one of the system.
  const call = 'syscall' in known ? String(known.syscall) : /null bytes/.test(known.message) ? 'opening a path' : null;
  if (call === null) return known;
  const why = READ_FAILURES[code]?.[0];
  return new NativeError(
    'system_error',
    `${pathOf(known)}${call} failed${why === undefined ? '' : `: ${why}`} (${code}); check the path, ` +
      'its permissions and the limits',
    { code },
    { cause: known },
  );
}

/**
 * Writing failed: no room is `disk_full`, all that a path or its permissions cause `output_unwritable`.
 * @param stream what was written before stays
 */
export function asWriteError(e: unknown, path: string, stream = false): unknown {
  const known = asSystemError(e);
  const code = errnoOf(known);
  if (known instanceof TemperError || code === null) return known;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG')
    return new CheckpointError(
      'disk_full',
      `${path}: no room left while writing (${code}); ` +
        `${stream ? 'what came before stays' : 'nothing was left behind'}; ` +
        'free some space and run it again',
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

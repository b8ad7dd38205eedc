// One writer per folder: a file beside it names the thread that writes. A lock whose thread is gone is taken over; one
// from another host or container, where that cannot be told, is not.
import {
  closeSync,
  linkSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { makeFolders } from './folders.js';
import { placeOf } from './outputs.js';
import { asWriteError } from './system-error.js';
import { isAlive, processSpace, temporaryName } from './temporary.js';

interface Holder {
  readonly pid: number;
  readonly space: string;
  /** Linux: PID/task/TID, and when that thread began, in clock ticks since the start of the system. */
  readonly thread?: string;
  readonly began?: string;
}
const beganAt = (thread: string): string | undefined => {
  try {
    // The name of the program, in brackets, may hold anything; the 20th field after it is the time.
    return readFileSync(`/proc/${thread}/stat`, 'latin1').split(')').at(-1)?.trim().split(' ')[19];
  } catch {
    return undefined;
  }
};
function self(): Holder {
  const holder = { pid: process.pid, space: processSpace };
  try {
    const thread = readlinkSync('/proc/thread-self');
    const began = beganAt(thread);
    return began === undefined ? holder : { ...holder, thread, began };
  } catch {
    return holder;
  }
}
/** A holder that cannot be read was cut off while it wrote: it is gone. */
function isHeld(text: string): boolean {
  let holder: Partial<Holder> | null;
  try {
    holder = JSON.parse(text) as Partial<Holder> | null;
  } catch {
    return false;
  }
  if (typeof holder?.pid !== 'number') return false;
  if (holder.space !== processSpace) return true;
  if (!isAlive(holder.pid)) return false;
  return holder.thread === undefined || beganAt(holder.thread) === holder.began;
}

const lockFile = (folder: string): string => {
  const { target } = placeOf(folder);
  return join(dirname(target), `.${basename(target)}.lock`);
};
const read = (file: string): string | null => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
};
/** Since when somebody holds a folder's lock, ns since 1970 as its file system has it; null: nobody does. */
export function heldSince(folder: string): bigint | null {
  const file = lockFile(folder);
  const seen = read(file);
  if (seen === null || !isHeld(seen)) return null;
  return statSync(file, { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? null;
}
/** Takes away a lock that nobody holds, unless it has become another one's meanwhile. */
function takeAway(file: string, seen: string): void {
  const aside = `${file}.${process.pid}`;
  try {
    renameSync(file, aside);
    if (read(aside) !== seen) linkSync(aside, file);
  } catch {
    // somebody else was faster
  }
  rmSync(aside, { force: true });
}

/** File systems that know no hard links say so. */
const NO_LINKS: readonly unknown[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV'];
function writeNew(file: string, text: string): void {
  const fd = openSync(file, 'wx');
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
}
/**
 * A new file that is there with its text or not at all: one that is empty for a moment looks like that of a process
 * that was killed meanwhile, and is taken away. @throws EEXIST
 */
function create(file: string, text: string): void {
  const whole = temporaryName(file);
  writeNew(whole, text);
  try {
    linkSync(whole, file);
  } catch (e) {
    if (!NO_LINKS.includes((e as NodeJS.ErrnoException).code)) throw e;
    writeNew(file, text);
  } finally {
    rmSync(whole, { force: true });
  }
}

/** Who holds a lock, and where it is. */
export interface Held {
  readonly pid: number;
  /** As a message names it. */
  readonly who: string;
  /** On another host or in another container: nobody can tell from here whether it lives. */
  readonly elsewhere: boolean;
  readonly file: string;
}

/**
 * Locks a folder, which need not exist yet, until it is disposed of.
 * @param held the error where another process or thread writes to it
 * @throws what `held` makes · {ConfigError} output_unwritable
 */
export function lockFolder(folder: string, held: (by: Held) => Error): Disposable {
  const file = lockFile(folder);
  let made: string | undefined;
  try {
    made = makeFolders(dirname(file));
    for (let tries = 0; ; tries++) {
      try {
        create(file, JSON.stringify(self()));
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code !== 'EEXIST') throw e;
        const seen = read(file);
        if (seen !== null && (isHeld(seen) || tries > 8)) throw held(heldBy(file, seen));
        if (seen !== null) takeAway(file, seen);
        continue;
      }
      break;
    }
  } catch (e) {
    throw asWriteError(e, folder);
  }
  return {
    [Symbol.dispose]() {
      rmSync(file, { force: true });
      // Nothing came of it: what was made on the way goes too.
      for (let at = dirname(file); made !== undefined && at.startsWith(made); at = dirname(at))
        try {
          rmdirSync(at);
        } catch {
          return;
        }
    },
  };
}

function heldBy(file: string, seen: string): Held {
  const { pid, space } = JSON.parse(seen) as Holder;
  const elsewhere = space !== processSpace;
  return { pid, file, elsewhere, who: elsewhere ? `process ${pid} of another host or container` : `process ${pid}` };
}

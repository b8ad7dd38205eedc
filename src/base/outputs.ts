// Where a command writes: a link is followed to what it points to, a FIFO or a device stays the node that it is, a
// descriptor (/dev/stdout) is written to as it is open, and what must not be written over is refused before the work
// begins. files.ts does the writing.
import {
  accessSync,
  constants,
  existsSync,
  fstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { ConfigError } from './errors.js';

const MAX_LINKS = 40;

export interface Place {
  /** What is written or replaced: behind all links, of which the last may point to nothing yet. */
  readonly target: string;
  /** A FIFO, a device, a socket, a descriptor of this process: written to, never replaced. */
  readonly stream: boolean;
  /** The descriptor of this process that the path names; what it leads to may be a regular file (`> file`). */
  readonly descriptor?: number;
  /** Permission bits of the file that is there. */
  readonly mode: number | null;
}

const unwritable = (path: string, why: string): ConfigError =>
  new ConfigError('output_unwritable', `${path}: cannot be written: ${why}; choose another place`, { file: path });

/** undefined: nothing there, or no way there. */
const statOf = (path: string): Stats | undefined => {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
};

const STANDARD = ['stdin', 'stdout', 'stderr'];
/**
 * `/dev/stdout`, `/dev/fd/N`, `/proc/self/fd/N`: its link names a file that is open already, perhaps at its end and
 * for others too, so that file is not what is meant.
 * @throws {ConfigError} output_unwritable: a file that another process has open
 */
function descriptorAt(target: string, path: string): number | null {
  const name = basename(target);
  if (dirname(target) === '/dev' && STANDARD.includes(name)) return STANDARD.indexOf(name);
  if (!/^[0-9]{1,9}$/.test(name)) return null;
  const folder = real(dirname(target));
  if (folder === '/dev/fd') return Number(name);
  const pid = /^\/proc\/([0-9]+)\/(?:task\/[0-9]+\/)?fd$/.exec(folder)?.[1];
  if (pid === undefined) return null;
  if (Number(pid) === process.pid) return Number(name);
  if (statOf(target)?.isFile())
    throw unwritable(path, `it is a file that process ${pid} has open, which only that process can write on`);
  return null;
}
/** Why a descriptor cannot be written to, or null. */
function descriptorRefusal(fd: number): string | null {
  try {
    if (fstatSync(fd).isDirectory()) return 'it is a folder';
  } catch (e) {
    return `descriptor ${fd} is not open (${(e as NodeJS.ErrnoException).code ?? 'error'})`;
  }
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
    // O_RDONLY is 0 of the two bits that say how it was opened.
    return flags !== undefined && (Number.parseInt(flags, 8) & 3) === 0
      ? `descriptor ${fd} is open for reading only`
      : null;
  } catch {
    return null; // no Linux: writing will tell
  }
}

/** @throws {ConfigError} output_unwritable: links in a circle; a file that another process has open */
export function placeOf(path: string): Place {
  let target = resolve(path);
  for (let links = 0; ; links++) {
    if (links > MAX_LINKS) throw unwritable(path, 'its links go in a circle');
    const descriptor = descriptorAt(target, path);
    if (descriptor !== null) return { target, stream: true, descriptor, mode: null };
    let link: string;
    try {
      link = readlinkSync(target);
    } catch {
      break;
    }
    // /proc/self/fd/N names what has no path, such as a pipe: it is what the link says it is.
    if (/^(?:pipe|socket|anon_inode):/.test(link)) break;
    target = resolve(dirname(target), link);
  }
  const s = statOf(target);
  return {
    target,
    stream: s !== undefined && !s.isFile() && !s.isDirectory(),
    mode: s?.isFile() ? s.mode & 0o777 : null,
  };
}

/** What an output must not be: files, and folders nothing may be put into. */
export interface Inputs {
  readonly files?: readonly (string | undefined)[];
  /** Checkpoints and adapters: each of their files, and any new one, as it would change what the folder is. */
  readonly folders?: readonly (string | undefined)[];
}

const identity = (s: Stats): string => `${s.dev}:${s.ino}`;
const real = (path: string): string => {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
};
/** Files of a folder and of the folders in it, behind links. */
function* filesOf(folder: string, depth = 3): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (!entry.isDirectory()) yield path;
    else if (depth > 0) yield* filesOf(path, depth - 1);
  }
}

/** Why the place cannot be written, or null. */
function refusal({ target, stream, descriptor }: Place, folder: boolean): string | null {
  if (descriptor !== undefined) return folder ? 'it is a file' : descriptorRefusal(descriptor);
  let parent = dirname(target);
  // Folders on the way to a new folder are made.
  if (folder) while (!existsSync(parent) && dirname(parent) !== parent) parent = dirname(parent);
  try {
    if (existsSync(target)) {
      if (statSync(target).isDirectory() !== folder) return folder ? 'it is a file' : 'it is a folder';
      accessSync(target, constants.W_OK);
    }
    if (stream) return null;
    if (!statSync(parent).isDirectory()) return `${parent} is no folder`;
    accessSync(parent, constants.W_OK | constants.X_OK);
    return null;
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code === 'ENOENT') return `its folder ${parent} is not there (${code})`;
    return code === undefined ? String(e) : `${SAYS[code] ?? 'the system refuses'} (${code})`;
  }
}
const SAYS: Readonly<Record<string, string>> = {
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'the file system is read-only',
  ENOTDIR: 'what the path takes for a folder is a file',
  ELOOP: 'its links go in a circle',
  ENAMETOOLONG: 'a name in the path is too long',
};

/**
 * Refuses outputs that could not be written at the end, or that would overwrite an input or one another. Call it before
 * the work.
 * @param outputs what the user calls each, as in `--out`, and its path; undefined ones are not written
 * @param kind what they are; folders, and those on the way to them, need not be there
 * @throws {ConfigError} output_unwritable, output_clash
 */
export function checkOutputs(
  outputs: Readonly<Record<string, string | undefined>>,
  inputs: Inputs = {},
  kind: 'file' | 'folder' = 'file',
): void {
  const taken = new Map<string, string>();
  for (const file of inputs.files ?? []) {
    const s = file === undefined ? undefined : statOf(file);
    if (s) taken.set(identity(s), `an input, ${file}`);
  }
  const folders = (inputs.folders ?? []).filter(
    (f): f is string => f !== undefined && statOf(f)?.isDirectory() === true,
  );
  for (const folder of folders)
    for (const file of filesOf(folder)) {
      const s = statOf(file);
      if (s) taken.set(identity(s), `a file of ${folder}`);
    }
  for (const [name, path] of Object.entries(outputs)) {
    if (path === undefined) continue;
    const place = placeOf(path);
    const why = refusal(place, kind === 'folder');
    if (why !== null) throw unwritable(`${name} ${path}`, why);
    const s = place.descriptor === undefined ? statOf(place.target) : fstatSync(place.descriptor);
    if (place.stream && !(place.descriptor !== undefined && s?.isFile())) continue;
    const at = join(real(dirname(place.target)), basename(place.target));
    const keys = [at, ...(s ? [identity(s)] : [])];
    const clash = (what: string): ConfigError =>
      new ConfigError('output_clash', `${name} ${path}: is ${what}; it would be overwritten, choose another file`, {
        file: path,
      });
    const other = keys.map((k) => taken.get(k)).find((w) => w !== undefined);
    if (other) throw clash(other);
    const around = folders.find((f) => at.startsWith(`${real(f)}${sep}`));
    if (around) throw clash(`in ${around}, which is read`);
    for (const key of keys) taken.set(key, `also what ${name} writes`);
  }
}

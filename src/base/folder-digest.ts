// The digest of a folder's files, and a manifest of them that is remembered, so that nothing hashes 13 GB at each
// start.
//
// A remembered digest is what the bytes hashed to when they were read; it is taken for what they hash to now only where
// the system would have shown a change: same path, device, inode, size, mtime and ctime of every file, on this machine,
// on a local file system known to keep ctime (no user can set it). It is not taken, and not kept, where a change could
// hide: a file that was touched within 2 s of being read (timestamps are that coarse), one from the future, a clock
// that stands before the time of hashing, a record of another user's or one that does not match its own checksum.
// Whoever can set the clock back or write to the disk below the file system can fool it: commands that prove something
// read every byte (`fresh`).
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { chmod, readdir, readFile, realpath, rm, stat, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { cacheFolder } from './cache.js';
import { sha256 } from './digest.js';
import { writeFileAtomic } from './files.js';
import { makeFolders } from './folders.js';
import { inputPieces } from './inputs.js';

export interface FileDigest {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}
export interface FolderDigest {
  /** In the order of the names given. */
  readonly files: readonly FileDigest[];
  /** sha256 over `name NUL bytes NUL` of each file in that order, hex. */
  readonly digest: string;
  /** Whether it was remembered: no byte was read. */
  readonly remembered: boolean;
}
export interface DigestOptions {
  readonly signal?: AbortSignal;
  /** Bytes done so far, of all files. */
  readonly onProgress?: (bytes: number) => void;
  /** Read every byte, whatever is remembered; what is found is remembered. */
  readonly fresh?: boolean;
  /** For tests: where and when it runs. */
  readonly surroundings?: Partial<Surroundings>;
}
export interface Surroundings {
  /** Folder of the records; null: nothing is remembered. */
  readonly cache: string | null;
  /** What tells this machine from another that sees the same home folder. */
  readonly host: string;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Whether the file system of a file keeps ctime faithfully. */
  readonly faithful: (file: string) => Promise<boolean>;
}

const PIECE_BYTES = 1 << 20;
/** Two timestamps nearer than this may be of one moment: ext3 and some kernels count whole seconds. */
const RACY_MS = 2000;
/** A record is a few kilobytes. */
const MAX_RECORDS = 256;

/** statfs types of Linux whose ctime is the kernel's own; network, FUSE and FAT file systems are not among them. */
const FAITHFUL = new Set([
  0xef53, // ext2, ext3, ext4
  0x58465342, // XFS
  0x9123683e, // Btrfs
  0x01021994, // tmpfs
  0x2fc12fc1, // ZFS
  0x794c7630, // overlayfs
  0xf2f52010, // F2FS
]);

/** Name and machine id: the name alone may come again. */
function hostName(): string {
  let id = '';
  try {
    id = readFileSync('/etc/machine-id', 'utf8').trim();
  } catch {
    // not every system has one
  }
  return `${hostname()}/${id}`;
}

const HERE: Surroundings = {
  get cache() {
    return cacheFolder('digests');
  },
  get host() {
    return hostName();
  },
  now: () => Date.now(),
  faithful: async (file) => process.platform === 'linux' && FAITHFUL.has((await statfs(file)).type),
};

/** What shows that a file was changed or replaced; symbolic links are followed, so theirs is that of their target. */
interface Identity {
  readonly name: string;
  readonly dev: string;
  readonly ino: string;
  readonly size: number;
  readonly mtimeNs: string;
  readonly ctimeNs: string;
}
interface Manifest {
  readonly version: 1;
  readonly dir: string;
  readonly host: string;
  /** When hashing began, ms. */
  readonly hashedAt: number;
  readonly files: readonly (Identity & { readonly sha256: string })[];
  readonly digest: string;
}

async function identities(dir: string, names: readonly string[]): Promise<Identity[]> {
  return Promise.all(
    names.map(async (name) => {
      const s = await stat(join(dir, name), { bigint: true });
      return {
        name,
        dev: String(s.dev),
        ino: String(s.ino),
        size: Number(s.size),
        mtimeNs: String(s.mtimeNs),
        ctimeNs: String(s.ctimeNs),
      };
    }),
  );
}
const identity = ({ name, dev, ino, size, mtimeNs, ctimeNs }: Identity): string =>
  JSON.stringify([name, dev, ino, size, mtimeNs, ctimeNs]);
const same = (a: readonly Identity[], b: readonly Identity[]): boolean =>
  a.length === b.length && a.every((x, i) => identity(x) === identity(b[i] as Identity));

/** Whether each file was last touched well before `time`. */
const settled = (files: readonly Identity[], time: number): boolean =>
  files.every((f) => [f.mtimeNs, f.ctimeNs].every((t) => Number(BigInt(t) / 1_000_000n) < time - RACY_MS));

const recordFile = (cache: string, dir: string, names: readonly string[]): string =>
  join(cache, `${sha256(JSON.stringify([dir, names]))}.json`);

/** The record of a file, or null where there is none that can be believed. */
async function readRecord(file: string): Promise<Manifest | null> {
  try {
    const s = await stat(file);
    if (s.uid !== process.getuid?.() || (s.mode & 0o022) !== 0) return null;
    const { check, ...record } = JSON.parse(await readFile(file, 'utf8')) as Manifest & { readonly check: string };
    return check === sha256(JSON.stringify(record)) && record.version === 1 ? record : null;
  } catch {
    return null;
  }
}

/** Folders come and go; the records not written for longest go first. */
async function prune(cache: string): Promise<void> {
  const names = await readdir(cache);
  if (names.length <= MAX_RECORDS) return;
  const aged = await Promise.all(names.map(async (name) => ({ name, at: (await stat(join(cache, name))).mtimeMs })));
  aged.sort((a, b) => a.at - b.at);
  for (const { name } of aged.slice(0, names.length - MAX_RECORDS)) await rm(join(cache, name), { force: true });
}

/** A cache that cannot be written to costs time, nothing else. */
async function writeRecord(file: string, cache: string, record: Manifest): Promise<void> {
  try {
    makeFolders(cache, 0o700);
    writeFileAtomic(file, JSON.stringify({ ...record, check: sha256(JSON.stringify(record)) }));
    await chmod(file, 0o600);
    await prune(cache);
  } catch {
    // read-only home, full disk
  }
}

async function readAll(
  dir: string,
  names: readonly string[],
  options: DigestOptions,
): Promise<{ readonly files: FileDigest[]; readonly digest: string }> {
  const whole = createHash('sha256');
  const files: FileDigest[] = [];
  let done = 0;
  for (const name of names) {
    const one = createHash('sha256');
    let bytes = 0;
    whole.update(`${name}\0`);
    for await (const piece of inputPieces(join(dir, name), PIECE_BYTES)) {
      options.signal?.throwIfAborted();
      whole.update(piece);
      one.update(piece);
      bytes += piece.length;
      done += piece.length;
      options.onProgress?.(done);
    }
    whole.update('\0');
    files.push({ name, bytes, sha256: one.digest('hex') });
  }
  return { files, digest: whole.digest('hex') };
}

/**
 * Digests of the files `names` in `dir`, remembered where that is safe.
 * @throws the signal's reason, or what the file system says
 */
export async function digestFolder(
  dir: string,
  names: readonly string[],
  options: DigestOptions = {},
): Promise<FolderDigest> {
  options.signal?.throwIfAborted();
  const around = {
    cache: HERE.cache,
    host: HERE.host,
    now: HERE.now,
    faithful: HERE.faithful,
    ...options.surroundings,
  };
  const at = await realpath(dir);
  // Files may be links into other file systems: each is asked.
  const faithful = await Promise.all(names.map((name) => around.faithful(join(at, name))));
  const file = around.cache !== null && faithful.every(Boolean) ? recordFile(around.cache, at, names) : null;
  const before = await identities(at, names);
  const began = around.now();

  if (file && !options.fresh) {
    const known = await readRecord(file);
    if (
      known &&
      known.dir === at &&
      known.host === around.host &&
      known.hashedAt <= began &&
      settled(known.files, known.hashedAt) &&
      same(known.files, before)
    ) {
      options.onProgress?.(before.reduce((n, f) => n + f.size, 0));
      return {
        files: known.files.map(({ name, size, sha256 }) => ({ name, bytes: size, sha256 })),
        digest: known.digest,
        remembered: true,
      };
    }
  }

  const { files, digest } = await readAll(at, names, options);
  const untouched = same(before, await identities(at, names)) && files.every((f, i) => f.bytes === before[i]?.size);
  if (file && around.cache && untouched && settled(before, began))
    await writeRecord(file, around.cache, {
      version: 1,
      dir: at,
      host: around.host,
      hashedAt: began,
      files: before.map((f, i) => ({ ...f, sha256: files[i]?.sha256 ?? '' })),
      digest,
    });
  return { files, digest, remembered: false };
}

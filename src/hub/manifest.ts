// What a pull left in a folder: which commit of which repo, and the files with their digests, so that the next one need
// not read or ask for what is there.
import { type BigIntStats, lstatSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { MANIFEST_FILE } from './names.js';

const Identity = z.tuple([z.string(), z.string(), z.string(), z.string(), z.string()]);
/** dev, ino, size, mtime and ctime of a file, the times in ns. */
export type Identity = z.infer<typeof Identity>;
const Entry = z.object({
  path: z.string(),
  size: z.number(),
  algorithm: z.enum(['sha256', 'git-sha1']),
  digest: z.string(),
  identity: Identity,
});
const Manifest = z.object({
  version: z.literal(1),
  endpoint: z.string(),
  kind: z.enum(['model', 'dataset']),
  name: z.string(),
  /** As it was asked for. */
  revision: z.string(),
  commit: z.string(),
  /** Selections that were there as a whole when this was written (selectionKey). */
  covered: z.array(z.string()),
  /** When it was written, ms since 1970. */
  at: z.number(),
  files: z.array(Entry),
});
export type Manifest = z.infer<typeof Manifest>;
export type ManifestEntry = z.infer<typeof Entry>;

const identity = (s: BigIntStats): Identity => [
  String(s.dev),
  String(s.ino),
  String(s.size),
  String(s.mtimeNs),
  String(s.ctimeNs),
];
/** Of a regular file, behind links; null: there is none. */
export function identityOf(file: string): Identity | null {
  const s = statSync(file, { bigint: true, throwIfNoEntry: false });
  return s?.isFile() ? identity(s) : null;
}
const sameIdentity = (a: Identity, b: Identity): boolean => a.every((x, i) => x === b[i]);

/**
 * How near to the writing of a manifest a file may have been touched unseen: clocks of files tick some 4 to 10 ms, or
 * whole seconds.
 */
export const RACY_MS = 100;
const racyMs = (ns: bigint): number => (ns % 1_000_000_000n === 0n ? 2000 : RACY_MS);
/** Whether the file is surely the one that the manifest speaks of, by what cannot be set back. */
export function isUntouched(folder: string, entry: ManifestEntry, at: number): boolean {
  const now = identityOf(join(folder, entry.path));
  if (now === null || !sameIdentity(now, entry.identity)) return false;
  const changed = BigInt(now[4]);
  return Number(changed / 1_000_000n) < at - racyMs(changed);
}

/** null: nothing was pulled there. @throws {ConfigError} hub_folder: it cannot be read */
export function readManifest(folder: string): Manifest | null {
  const file = join(folder, MANIFEST_FILE);
  const s = lstatSync(file, { throwIfNoEntry: false });
  if (s === undefined) return null;
  try {
    if (!s.isFile()) throw new Error('no regular file');
    return Manifest.parse(decodeJson(readInput(file, 'manifest')));
  } catch (e) {
    throw new ConfigError(
      'hub_folder',
      `${file}: is not what a pull writes, so what is in this folder is not known; remove it to have every file read ` +
        'and compared again',
      { file },
      { cause: e },
    );
  }
}
/**
 * The repo and commit that a folder is of, as far as nobody has touched a file of it since it was pulled; null: it was
 * not pulled, or is no longer what was.
 */
export function pulledFrom(folder: string): Pick<Manifest, 'kind' | 'name' | 'commit'> | null {
  try {
    const manifest = readManifest(folder);
    return manifest?.files.every((f) => isUntouched(folder, f, manifest.at)) ? manifest : null;
  } catch {
    return null;
  }
}
export const writeManifest = (folder: string, manifest: Manifest): void =>
  writeFileAtomic(join(folder, MANIFEST_FILE), `${JSON.stringify(manifest, null, 1)}\n`);

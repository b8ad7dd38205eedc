// What of a selection is in a folder already, and what stands in its way there.
import { lstatSync, mkdtempSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { CheckpointError, ConfigError } from '../base/errors.js';
import { formatBytes } from '../base/units.js';
import { digestOf } from './file-digest.js';
import type { HubFile } from './listing.js';
import { isUntouched, type Manifest, type ManifestEntry } from './manifest.js';

export type Standing =
  /** With the very bytes. */
  | 'there'
  | 'absent'
  /** A pull of another commit put it there, and nobody has touched it. */
  | 'outdated'
  /** A pull put it there, and it has been changed since. */
  | 'changed'
  /** Not of a pull. */
  | 'foreign';
export interface Surveyed {
  readonly file: HubFile;
  readonly standing: Standing;
}
const blocked = (path: string, why: string): ConfigError =>
  new ConfigError('hub_folder', `${path}: ${why}; nothing was written; move it away, or choose another folder`, {
    path,
  });

/** Folders on the way to a file: real ones, or not there yet. @throws {ConfigError} hub_folder */
export function checkWay(folder: string, name: string): void {
  const parts = name.split('/').slice(0, -1);
  let at = folder;
  for (const part of parts) {
    at = join(at, part);
    const s = lstatSync(at, { throwIfNoEntry: false });
    if (s === undefined) return;
    if (s.isSymbolicLink()) throw blocked(at, 'is a symbolic link, and a pull writes through none');
    if (!s.isDirectory()) throw blocked(at, `is no folder, and ${JSON.stringify(name)} belongs into one`);
  }
}

/**
 * Reads what cannot be told without reading.
 * @param onBytes bytes that were read
 * @throws {ConfigError} hub_folder · the signal's reason
 */
export async function survey(
  folder: string,
  files: readonly HubFile[],
  manifest: Manifest | null,
  signal?: AbortSignal,
  onBytes?: (bytes: number) => void,
): Promise<Surveyed[]> {
  const known = new Map<string, ManifestEntry>(manifest?.files.map((f) => [f.path, f]));
  const out: Surveyed[] = [];
  for (const file of files) {
    signal?.throwIfAborted();
    checkWay(folder, file.path);
    const path = join(folder, file.path);
    const entry = known.get(file.path);
    const link = lstatSync(path, { throwIfNoEntry: false });
    const s = link && statSync(path, { throwIfNoEntry: false });
    const untouched = entry !== undefined && manifest !== null && isUntouched(folder, entry, manifest.at);
    let standing: Standing;
    if (link === undefined) standing = 'absent';
    else if (!s?.isFile()) throw blocked(path, link.isSymbolicLink() ? 'is a link to no file' : 'is no regular file');
    else if (untouched)
      standing = entry.digest === file.digest && entry.algorithm === file.algorithm ? 'there' : 'outdated';
    else if (s.size === file.size && (await digestOf(path, file, signal, onBytes)) === file.digest) standing = 'there';
    else if (link.isSymbolicLink()) throw blocked(path, 'is a symbolic link to other bytes');
    else if (entry === undefined) standing = 'foreign';
    else
      standing =
        (await digestOf(path, { ...entry, size: s.size }, signal, onBytes)) === entry.digest ? 'outdated' : 'changed';
    out.push({ file, standing });
  }
  return out;
}

/** Whether names that differ in case alone are one here. Asked of the folder, or of the nearest one above it. */
export function foldsCase(folder: string): boolean {
  let at = folder;
  while (!statSync(at, { throwIfNoEntry: false })?.isDirectory() && dirname(at) !== at) at = dirname(at);
  let probe: string;
  try {
    probe = mkdtempSync(`${at}${sep}.temper-case-`);
  } catch {
    return false; // what cannot be written to is told when something is
  }
  try {
    writeFileSync(join(probe, 'a'), '');
    return statSync(join(probe, 'A'), { throwIfNoEntry: false }) !== undefined;
  } finally {
    rmSync(probe, { recursive: true, force: true });
  }
}

/** Bytes that a download takes of the disk beyond what its parts have. */
export function bytesNeeded(parts: string, files: readonly HubFile[]): number {
  let bytes = 0;
  for (const file of files) {
    bytes += file.size;
    const s = statSync(join(parts, `${file.digest}.part`), { throwIfNoEntry: false });
    // Parts are as long as the file from the start; what is not written yet takes no room.
    if (s?.isFile() && s.size === file.size) bytes -= Math.min(file.size, s.blocks * 512);
  }
  return bytes;
}
/** What is left free beside what comes: maps of parts, the manifest, the blocks that files do not fill. */
const SPARE_BYTES = 16 * 2 ** 20;

/** @throws {CheckpointError} disk_full: before anything is asked for */
export function requireRoom(folder: string, need: number): void {
  let at = folder;
  while (!statSync(at, { throwIfNoEntry: false })?.isDirectory() && dirname(at) !== at) at = dirname(at);
  const { bavail, bsize } = statfsSync(at);
  const room = bavail * bsize;
  if (need === 0 || need + SPARE_BYTES <= room) return;
  throw new CheckpointError(
    'disk_full',
    `${folder}: ${formatBytes(need)} are to come and ${formatBytes(room)} are free there; free some space, choose ` +
      'another folder, or fewer files with --include and --exclude; nothing was fetched',
    { folder, need, free: room },
  );
}

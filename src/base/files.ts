// Files and folders appear whole or not at all: written under a temporary name beside their place, flushed, renamed.
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CheckpointError } from './errors.js';

function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A write that failed for lack of room becomes `disk_full`; anything else stays what it is. */
export function asDiskFull(error: unknown, path: string): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code !== 'ENOSPC' && code !== 'EDQUOT' && code !== 'EFBIG') return error;
  return new CheckpointError(
    'disk_full',
    `${path}: no room left while writing (${code}); nothing was left behind; free some space and run it again`,
    { file: path },
    { cause: error },
  );
}

let counter = 0;
/**
 * A name beside `path` that no other writer of this or another process uses; hidden, so that no reader takes it for the
 * thing itself.
 */
export const temporaryName = (path: string): string =>
  join(dirname(path), `.${basename(path)}.${process.pid}.${Date.now().toString(36)}${counter++}.tmp`);

/** Writes all bytes, flushed; not atomic by itself: for files inside a folder that is renamed as a whole. */
export function writeFlushed(path: string, data: string | Uint8Array): void {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  const fd = openSync(path, 'w');
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, Math.min(bytes.length - at, 1 << 26));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Replaces `path` with `data`, or leaves it as it was. */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  const temporary = temporaryName(path);
  try {
    writeFlushed(temporary, data);
    renameSync(temporary, path);
  } catch (e) {
    rmSync(temporary, { force: true });
    throw asDiskFull(e, path);
  }
  syncPath(dirname(path));
}

/**
 * Fills a new folder and puts it at `path` in one step; a folder that was there is replaced.
 * @param fill writes into the folder it is given
 */
export async function writeFolderAtomic(path: string, fill: (folder: string) => void | Promise<void>): Promise<void> {
  const temporary = temporaryName(path);
  try {
    mkdirSync(temporary, { recursive: true });
    await fill(temporary);
    syncTree(temporary);
    if (existsSync(path)) {
      // Two renames cannot be one; a kill between them leaves the old folder under its hidden name and the new one
      // ready beside it.
      const old = temporaryName(path);
      renameSync(path, old);
      renameSync(temporary, path);
      rmSync(old, { recursive: true, force: true });
    } else {
      renameSync(temporary, path);
    }
  } catch (e) {
    rmSync(temporary, { recursive: true, force: true });
    throw asDiskFull(e, path);
  }
  syncPath(dirname(path));
}

function syncTree(folder: string): void {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) syncTree(path);
    else syncPath(path);
  }
  syncPath(folder);
}

/** Removes what an interrupted writer left in `folder` for the place `name` (any name when absent). */
export function removeTemporaries(folder: string, name?: string): void {
  if (!existsSync(folder)) return;
  for (const entry of readdirSync(folder))
    if (entry.endsWith('.tmp') && entry.startsWith(name === undefined ? '.' : `.${name}.`))
      rmSync(join(folder, entry), { recursive: true, force: true });
}

// Folders made where they are missing, with those above them.
import { mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
const codeOf = (e: unknown): unknown => (e instanceof Error && 'code' in e ? e.code : undefined);

/**
 * As mkdir with `recursive`, which never comes back where a file system knows a folder and lets nobody make another in
 * it (/proc/none/x).
 * @returns the first folder that was made; undefined: all were there
 * @throws the system's error, of the first that cannot be made
 */
export function makeFolders(path: string, mode?: number): string | undefined {
  const missing: string[] = [];
  let at = resolve(path);
  try {
    for (; !isFolder(at) && dirname(at) !== at; at = dirname(at)) missing.unshift(at);
  } catch {
    // What stands in the way says so when it is written to.
    missing.splice(0, missing.length, resolve(path));
  }
  let first: string | undefined;
  for (const folder of missing)
    try {
      mkdirSync(folder, mode === undefined ? {} : { mode });
      first ??= folder;
    } catch (e) {
      if (codeOf(e) !== 'EEXIST' || !isFolder(folder)) throw e;
    }
  return first;
}

// Paths with * ? [ ] { }: the files that they name, in the order of their names. A path that exists is never a pattern.
import { existsSync } from 'node:fs';
import { globSync } from 'tinyglobby';
import { DataError } from './errors.js';

const MAGIC = /[*?[\]{}]/;
const MAX_FILES = 100_000;

/** By name, numbers in it as numbers: part-2 stands before part-10. */
export const byName = (a: string, b: string): number => a.localeCompare(b, 'en', { numeric: true }) || (a < b ? -1 : 1);

/**
 * The files that a pattern names; null: it is a path as it stands.
 * @param most files that it may name
 * @throws {DataError} no_data_files: too many
 */
export function matching(path: string, most = MAX_FILES): string[] | null {
  if (!MAGIC.test(path) || existsSync(path)) return null;
  const found = globSync(path, { absolute: true, onlyFiles: true, dot: false, expandDirectories: false });
  // What was left out would be missed by nobody.
  if (found.length > most)
    throw new DataError(
      'no_data_files',
      `${path}: names ${found.length} files, at most ${most} are read at once; give patterns for parts of them`,
      { file: path },
    );
  return found.sort(byName);
}
/** Whether a path, or anything that a pattern names, is there. */
export const isThere = (path: string): boolean => existsSync(path) || (matching(path)?.length ?? 0) > 0;

// Paths with * ? [ ] { }: the files that they name, in the order of their names. A path that exists is never a pattern.
import { existsSync } from 'node:fs';
import { globSync } from 'tinyglobby';

const MAGIC = /[*?[\]{}]/;
/** Most files that a pattern may name. */
const MAX_FILES = 100_000;

/** By name, numbers in it as numbers: part-2 stands before part-10. */
export const byName = (a: string, b: string): number => a.localeCompare(b, 'en', { numeric: true }) || (a < b ? -1 : 1);

/** The files that a pattern names; null: it is a path as it stands. */
export function matching(path: string): string[] | null {
  if (!MAGIC.test(path) || existsSync(path)) return null;
  const found = globSync(path, { absolute: true, onlyFiles: true, dot: false, expandDirectories: false });
  return found.slice(0, MAX_FILES).sort(byName);
}
/** Whether a path, or anything that a pattern names, is there. */
export const isThere = (path: string): boolean => existsSync(path) || (matching(path)?.length ?? 0) > 0;

// Which files of a repo are wanted.
import picomatch from 'picomatch';
import { ConfigError } from '../base/errors.js';
import type { HubFile } from './listing.js';

export interface Selection {
  /** Globs; none: every file. */
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  /** Only this file, this folder, or what this glob names (of an hf:// reference); '': all. */
  readonly under?: string;
}
/** What tells selections apart. */
export const selectionKey = ({ include, exclude, under = '' }: Selection): string =>
  JSON.stringify([[...include].sort(), [...exclude].sort(), under]);

/** The weights of gpt-oss come three times; these two are of other programs. Left out unless --include names files. */
export const LEFT_OUT: readonly string[] = ['original/**', 'metal/**'];

/** `*` stays in a folder, `**` does not; a glob without a slash means the name in any folder, `dir/` all below it. */
export function matcher(glob: string): (path: string) => boolean {
  const pattern = glob.replace(/^\.\//, '').replace(/\/$/, '/**');
  const matches = picomatch(pattern, { dot: true, basename: !pattern.includes('/'), nonegate: true });
  return (path) => matches(path);
}

/** A file, a folder with all in it, or else a glob from the root of the repo. */
export function pathMatcher(files: readonly { readonly path: string }[], under: string): (path: string) => boolean {
  const below = (path: string): boolean => path === under || path.startsWith(`${under}/`);
  if (files.some((f) => below(f.path))) return below;
  const matches = picomatch(under, { dot: true, nonegate: true });
  return (path) => matches(path);
}

const filterBy = (files: readonly HubFile[], matches: (path: string) => boolean): readonly HubFile[] =>
  files.filter((f) => matches(f.path));

/** @throws {ConfigError} hub_no_match: a glob of --include that is no file's */
export function selectFiles(what: string, all: readonly HubFile[], selection: Selection): HubFile[] {
  const { include, exclude, under = '' } = selection;
  const files = under === '' ? all : filterBy(all, pathMatcher(all, under));
  if (files.length === 0 && under !== '')
    throw new ConfigError('hub_no_match', `${what}: ${under} is none of its ${all.length} files`, { glob: under });
  const wanted = include.map(matcher);
  for (const [i, matches] of wanted.entries())
    if (!files.some((f) => matches(f.path)))
      throw new ConfigError(
        'hub_no_match',
        `${what}: --include ${include[i]} is none of its ${files.length} files` +
          `${files.length > 0 && files.length <= 8 ? ` (${files.map((f) => JSON.stringify(f.path)).join(', ')})` : ''}`,
        { glob: include[i] },
      );
  const not = [...(include.length > 0 || under !== '' ? [] : LEFT_OUT), ...exclude].map(matcher);
  const chosen = files.filter(
    ({ path }) => (wanted.length === 0 || wanted.some((m) => m(path))) && !not.some((m) => m(path)),
  );
  if (chosen.length === 0)
    throw new ConfigError('hub_no_match', `${what}: none of its ${files.length} files is left to pull`, {
      files: files.length,
    });
  return chosen;
}

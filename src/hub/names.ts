// Names that a hub offers for files, before any of them becomes a path here. A name is used as it is or not at all.
import { HubError } from '../base/errors.js';

/** Our own in the folder of a pull: parts under way, and what is there. */
export const PARTS_FOLDER = '.temper-pull';
export const MANIFEST_FILE = '.temper-pull.json';

/** Why a name cannot become a path below a folder; null: it can. */
export function nameProblem(name: string): string | null {
  if (name === '') return 'is empty';
  if (!name.isWellFormed()) return 'is not Unicode';
  if (/\p{Cc}|[\u2028\u2029]/u.test(name)) return 'has a control character';
  if (name.includes('\\')) return 'has a backslash';
  if (name.startsWith('/') || /^[A-Za-z]:/.test(name)) return 'is absolute';
  if (Buffer.byteLength(name) > 2048) return 'is too long';
  for (const part of name.split('/')) {
    if (part === '' || part === '.' || part === '..') return 'leaves the folder or names none';
    if (Buffer.byteLength(part) > 255) return 'is too long';
    const folded = part.toLowerCase();
    // Git's own folder would be another one's code, run by the next git command.
    if (folded === '.git' || folded.startsWith(PARTS_FOLDER)) return 'is reserved';
  }
  return null;
}

/** Names that mean one file where `fold` makes them equal, or of which one is a folder of the other. */
export function clashOf(names: readonly string[], fold: (name: string) => string): readonly [string, string] | null {
  const seen = new Map(names.map((name) => [fold(name), name]));
  const folders = new Map<string, string>();
  for (const name of names) {
    const other = seen.get(fold(name));
    if (other !== undefined && other !== name) return [other, name];
    for (let at = name.lastIndexOf('/'); at > 0; at = name.lastIndexOf('/', at - 1)) {
      const folder = name.slice(0, at);
      const file = seen.get(fold(folder));
      if (file !== undefined) return [file, name];
      const spelt = folders.get(fold(folder));
      if (spelt !== undefined && spelt !== folder) return [`${spelt}/`, name];
      folders.set(fold(folder), folder);
    }
  }
  return names.length === new Set(names).size ? null : [names.find((n, i) => names.indexOf(n) !== i) ?? '', 'itself'];
}

/**
 * @param folds whether the file system takes `A` and `a` for one name
 * @throws {HubError} hub_listing: a name that cannot be used, or two for one file
 */
export function checkNames(what: string, names: readonly string[], folds: boolean): void {
  for (const name of names) {
    const problem = nameProblem(name);
    if (problem !== null)
      throw new HubError(
        'hub_listing',
        `${what}: offers a file named ${JSON.stringify(name)}, which ${problem}; nothing was written; leave it out ` +
          'with --exclude, or do not trust this repo',
        { name },
      );
  }
  const clash = clashOf(names, folds ? (name) => name.normalize('NFC').toLowerCase() : (name) => name);
  if (clash)
    throw new HubError(
      'hub_listing',
      `${what}: offers ${JSON.stringify(clash[0])} and ${JSON.stringify(clash[1])}, which would be one file here; ` +
        'leave one out with --exclude',
      { names: clash },
    );
}

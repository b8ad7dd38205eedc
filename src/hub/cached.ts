// Where hf:// references lie on this machine: a folder for each commit of a repo below TEMPER_CACHE, and what each
// branch or tag was when it was last asked for.
import { existsSync } from 'node:fs';
import { join, sep } from 'node:path';
import { cacheFolder } from '../base/cache.js';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import { type HubReference, isCommit, parseReference, pinnedReference, type Repo } from './reference.js';

/** @throws {ConfigError} hub_cache: there is none */
export function hubCache(): string {
  const folder = cacheFolder('hub');
  if (folder !== null) return folder;
  throw new ConfigError(
    'hub_cache',
    'TEMPER_CACHE is set to nothing, so there is no place for what hf:// names; set it to a folder, or pull it with ' +
      '`temper pull` and name that folder',
  );
}
// Names of owners and repos have no `--`.
const repoKey = ({ kind, name }: Repo): string => `${kind}s--${name.replace('/', '--')}`;
export const commitFolder = (repo: Repo, commit: string): string => join(hubCache(), `${repoKey(repo)}@${commit}`);
export const revisionFile = (repo: Repo, revision: string): string =>
  join(hubCache(), 'refs', `${repoKey(repo)}@${encodeURIComponent(revision)}`);

/** The commit that a revision is, or was when it was last asked for; null: it never was. */
export function knownCommit(repo: Repo, revision: string): string | null {
  if (isCommit(revision)) return revision;
  const file = revisionFile(repo, revision);
  const commit = existsSync(file) ? readInputText(file, 'config').trim() : '';
  return isCommit(commit) ? commit : null;
}
export const localPath = (reference: HubReference, commit: string): string =>
  join(commitFolder(reference, commit), reference.path);

/**
 * The local path of a reference, as far as it can be told without asking: whether it is there is another question.
 * @param pins commits by reference, which come before what was last asked for
 * @throws {ConfigError} hub_repo, hub_cache
 */
export function cachedPath(given: string, pins: Readonly<Record<string, string>> = {}): string | null {
  const reference = parseReference(given);
  const commit = pins[given] ?? knownCommit(reference, reference.revision);
  return commit === null ? null : localPath(reference, commit);
}

/** The pinned reference of a path in the cache; null: it is not in there. */
export function referenceOf(path: string): string | null {
  const cache = cacheFolder('hub');
  if (cache === null || !path.startsWith(`${cache}${sep}`)) return null;
  const [folder = '', ...rest] = path.slice(cache.length + 1).split(sep);
  const [, kind, name, commit] = /^(model|dataset)s--(.+)@([0-9a-f]{40})$/.exec(folder) ?? [];
  if (kind === undefined || name === undefined || commit === undefined) return null;
  return pinnedReference({ kind: kind as Repo['kind'], name: name.replace('--', '/') }, commit, rest.join('/'));
}

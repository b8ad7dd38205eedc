// How things on the hub are named: REPO[@REV] on a command line, hf://REPO[@REV][/PATH] where a path may stand.
import { ConfigError } from '../base/errors.js';

export interface Repo {
  readonly kind: 'model' | 'dataset';
  /** `owner/name`; old ones have no owner. */
  readonly name: string;
}
export interface RepoRevision extends Repo {
  /** Branch, tag, commit, or refs/pr/N; as it was written, `main` where it was not. */
  readonly revision: string;
}
/** What an hf:// reference means: a repo (path ''), or a file, a folder or a glob in it. */
export interface HubReference extends RepoRevision {
  readonly path: string;
}

export const HF = 'hf://';
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?$/;
const COMMIT = /^[0-9a-f]{40}$/;
export const isCommit = (revision: string): boolean => COMMIT.test(revision);
export const isReference = (text: string): boolean => text.startsWith(HF);

const bad = (given: string, why: string): ConfigError =>
  new ConfigError(
    'hub_repo',
    `${given}: ${why}; wanted OWNER/NAME[@REVISION], or datasets/OWNER/NAME[@REVISION] for a dataset`,
    { given },
  );

function repo(given: string, text: string, revision: string): RepoRevision {
  if (/^spaces\//.test(text)) throw bad(given, 'is a space, which is no model and no dataset');
  const kind = text.startsWith('datasets/') ? 'dataset' : 'model';
  const name = text.replace(/^(?:datasets|models)\//, '');
  const parts = name.split('/');
  if (parts.length > 2 || !parts.every((p) => NAME.test(p) && !p.includes('..') && !p.includes('--')))
    throw bad(given, 'is not the name of a repo');
  // What git takes for a ref, less what has a meaning in a path.
  if (
    revision.length > 255 ||
    !/^[^\s\p{Cc}~^:?*[\\]+$/u.test(revision) ||
    /^[-/]|\.\.|\/\/|\/$|@\{/.test(revision) ||
    !revision.isWellFormed()
  )
    throw bad(given, 'names no branch, tag or commit after the @');
  return { kind, name, revision };
}

/** REPO[@REV], with or without `hf://` before it. @throws {ConfigError} hub_repo */
export function parseRepo(given: string): RepoRevision {
  const text = given.startsWith(HF) ? given.slice(HF.length) : given;
  const at = text.indexOf('@');
  return at < 0 ? repo(given, text, 'main') : repo(given, text.slice(0, at), text.slice(at + 1));
}

/**
 * `hf://[datasets/]OWNER/NAME[@REV][/PATH]`. A revision with a slash is written with %2F, but for refs/pr/N and
 * refs/convert/NAME.
 * @throws {ConfigError} hub_repo
 */
export function parseReference(given: string): HubReference {
  const text = given.slice(HF.length);
  const kind = /^(?:datasets|models|spaces)\//.exec(text)?.[0] ?? '';
  const rest = text.slice(kind.length);
  const [first = '', second] = rest.split('/', 2);
  const head = first.includes('@') || second === undefined ? first : `${first}/${second}`;
  const [name = '', ...after] = head.split('@');
  if (!given.startsWith(HF) || after.length > 1) throw bad(given, 'is no reference to a repo');
  let tail = rest.slice(head.length);
  let revision = after[0] ?? 'main';
  const special = revision === 'refs' ? /^\/(?:pr\/\d+|convert\/[^/]+)(?=\/|$)/.exec(tail)?.[0] : undefined;
  if (special !== undefined) {
    revision += special;
    tail = tail.slice(special.length);
  }
  try {
    revision = decodeURIComponent(revision);
  } catch {
    throw bad(given, 'names no branch, tag or commit after the @');
  }
  const path = tail.replace(/^\//, '').replace(/\/+$/, '');
  if (path.split('/').some((p) => p === '..' || p === '.') || /\p{Cc}|\\/u.test(path))
    throw bad(given, 'leaves the repo');
  return { ...repo(given, `${kind}${name}`, revision), path };
}

/** As people write it: `openai/gpt-oss-20b`, `datasets/OWNER/NAME`. */
export const repoText = ({ kind, name }: Repo): string => (kind === 'dataset' ? `datasets/${name}` : name);
/** The reference that means just this commit for ever. */
export const pinnedReference = (repo: Repo, commit: string, path = ''): string =>
  `${HF}${repoText(repo)}@${commit}${path === '' ? '' : `/${path}`}`;

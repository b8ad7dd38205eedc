// What a repo holds at one commit: names, sizes and digests, which all that is fetched is held against.
import { z } from 'zod';
import { HubError } from '../base/errors.js';
import type { HubClient } from './http.js';
import { isCommit, type Repo, type RepoRevision, repoText } from './reference.js';

/** How a file is told to be whole: sha256 of its bytes, or git's sha1 of `blob SIZE NUL bytes`. */
export type DigestKind = 'sha256' | 'git-sha1';
export interface HubFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly algorithm: DigestKind;
  /** Hex. */
  readonly digest: string;
}

const MAX_FILES = 50_000;
const size = z.int().min(0);
const Entry = z.object({
  type: z.string(),
  path: z.string(),
  size: size.optional(),
  oid: z.string().optional(),
  lfs: z.object({ oid: z.string(), size }).nullish(),
});
const Revision = z.object({ sha: z.string().refine(isCommit) });

const parts = (text: string): string => text.split('/').map(encodeURIComponent).join('/');
const apiPath = ({ kind, name }: Repo): string => `/api/${kind}s/${parts(name)}`;
/** Where the hub gives a file of a commit. */
export const resolvePath = (repo: Repo, commit: string, path: string): string =>
  `/${repo.kind === 'dataset' ? 'datasets/' : ''}${parts(repo.name)}/resolve/${commit}/${parts(path)}`;

const unusable = (what: string, why: string): HubError =>
  new HubError('hub_answer', `${what}: the hub's answer cannot be used: ${why}`, { what });

/** The commit that a revision is now. @throws {ConfigError} hub_access, hub_not_found · {HubError} */
export async function commitOf(client: HubClient, at: RepoRevision, signal?: AbortSignal): Promise<string> {
  if (isCommit(at.revision)) return at.revision;
  const what = `${repoText(at)}@${at.revision}`;
  const url = client.urlOf(`${apiPath(at)}/revision/${encodeURIComponent(at.revision)}`);
  const found = Revision.safeParse((await client.json(what, url, signal)).value);
  if (!found.success) throw unusable(what, 'it names no commit');
  return found.data.sha;
}

function fileOf(what: string, entry: z.infer<typeof Entry>): HubFile {
  const { path, lfs } = entry;
  const named = `${what}: ${JSON.stringify(path)}`;
  if (lfs) {
    const digest = lfs.oid.replace(/^sha256:/, '');
    if (!/^[0-9a-f]{64}$/.test(digest)) throw unusable(named, 'no sha256 is given');
    if (entry.size !== undefined && entry.size !== lfs.size)
      throw unusable(named, `two sizes are given, ${entry.size} and ${lfs.size}`);
    return { path, size: lfs.size, algorithm: 'sha256', digest };
  }
  if (entry.size === undefined || !isCommit(entry.oid ?? '')) throw unusable(named, 'no size or no digest is given');
  return { path, size: entry.size, algorithm: 'git-sha1', digest: entry.oid ?? '' };
}

/** The address of the next page, in the manner of RFC 8288. */
function nextPage(what: string, client: HubClient, link: string | undefined): URL | null {
  const next = link === undefined ? undefined : /<([^>]*)>\s*;[^,]*\brel="?next"?/.exec(link)?.[1];
  if (next === undefined) return null;
  const own = new URL(client.settings.endpoint);
  let url: URL;
  try {
    url = new URL(next, own);
  } catch {
    throw unusable(what, 'its next page has no address');
  }
  if (url.origin !== own.origin) throw unusable(what, `its next page is of another host, ${url.host}`);
  return url;
}

/** Every file of a commit, in the hub's order. @throws as commitOf */
export async function filesOf(client: HubClient, repo: Repo, commit: string, signal?: AbortSignal): Promise<HubFile[]> {
  const what = `${repoText(repo)}@${commit.slice(0, 12)}`;
  const files: HubFile[] = [];
  const seen = new Set<string>();
  for (
    let url: URL | null = client.urlOf(`${apiPath(repo)}/tree/${commit}?recursive=true&expand=false`);
    url !== null;
  ) {
    if (seen.has(url.href)) throw unusable(what, 'its pages go in a circle');
    seen.add(url.href);
    const page: Awaited<ReturnType<HubClient['json']>> = await client.json(what, url, signal);
    const entries = z.array(Entry).safeParse(page.value);
    if (!entries.success) throw unusable(what, `it is no list of files (${entries.error.issues[0]?.message ?? ''})`);
    for (const entry of entries.data) if (entry.type === 'file') files.push(fileOf(what, entry));
    if (files.length > MAX_FILES || seen.size > MAX_FILES)
      throw unusable(what, `it lists more than ${MAX_FILES} files; choose some with --include`);
    url = nextPage(what, client, page.header('link'));
  }
  return files;
}

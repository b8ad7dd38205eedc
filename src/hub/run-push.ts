// A folder as one commit of a repo. Runs in the hub's thread.
import { setMaxListeners } from 'node:events';
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { commit as commitTo, createBranch, createRepo, HubApiError } from '@huggingface/hub';
import { z } from 'zod';
import { ConfigError, HubError, IntegrityError, TemperError } from '../base/errors.js';
import { CheckedBlob, type HashedFile, hashFile } from './checked-blob.js';
import { digestOf } from './file-digest.js';
import type { FillHooks } from './folder.js';
import { HubClient } from './http.js';
import { hubFetch, ownError } from './hub-fetch.js';
import { commitOf, filesOf } from './listing.js';
import { nameProblem } from './names.js';
import { isCommit, parseRepo, type RepoRevision, repoText } from './reference.js';
import { type HubOptions, hubSettings } from './settings.js';

export interface PushFiles extends HubOptions {
  readonly dir: string;
  /** OWNER/NAME, or datasets/OWNER/NAME. */
  readonly repo: string;
  /** sha256 by name of what was exported and verified: these files are pushed, and no others may be there. */
  readonly files: Readonly<Record<string, string>>;
  /** A new repo is seen by all, and a repo that all see may be pushed to. */
  readonly public?: boolean;
  /** Branch; default main. Made where it is not there. */
  readonly revision?: string;
  /** Open a pull request in place of a commit to the branch. */
  readonly pullRequest?: boolean;
  readonly message?: string;
}
export interface PushResult {
  readonly repo: string;
  readonly url: string;
  readonly commit: string;
  readonly revision: string;
  /** Whether the repo was made for it. */
  readonly created: boolean;
  readonly private: boolean;
  readonly pullRequest: string | null;
  readonly files: readonly { readonly path: string; readonly size: number; readonly sha256: string }[];
}

/** Names of the folder, in order. @throws {ConfigError} hub_push: something that is no regular file */
function namesIn(dir: string, below = ''): string[] {
  return readdirSync(join(dir, below))
    .sort()
    .flatMap((one) => {
      const name = below === '' ? one : `${below}/${one}`;
      const s = lstatSync(join(dir, name));
      if (s.isDirectory()) return namesIn(dir, name);
      if (s.isFile() && nameProblem(name) === null) return [name];
      const kind = s.isSymbolicLink() ? 'a symbolic link' : 'no regular file';
      throw new ConfigError(
        'hub_push',
        `${join(dir, name)}: is ${s.isFile() ? 'named as no file of a repo may be' : kind}; only regular files of ` +
          'the folder are pushed; take it away',
        { file: name },
      );
    });
}

/** Every file that was verified is there, and no other one. */
function checkNames(dir: string, names: readonly string[], files: PushFiles['files']): void {
  const extra = names.filter((n) => !Object.hasOwn(files, n));
  const gone = Object.keys(files).filter((n) => !names.includes(n));
  if (extra.length > 0)
    throw new ConfigError(
      'hub_push',
      `${dir}: ${extra.map((n) => JSON.stringify(n)).join(', ')} ${extra.length === 1 ? 'is' : 'are'} not of the ` +
        'export that was verified (temper.json); take them away, or export again',
      { files: extra },
    );
  if (gone.length > 0)
    throw new IntegrityError(
      'export_changed',
      `${dir}: ${gone.map((n) => JSON.stringify(n)).join(', ')} ${gone.length === 1 ? 'is' : 'are'} gone since it ` +
        'was exported; export it again',
      { files: gone },
    );
}

async function hashAll(request: PushFiles, names: readonly string[], hooks: FillHooks): Promise<HashedFile[]> {
  const { dir, files } = request;
  const total = names.reduce((n, name) => n + lstatSync(join(dir, name)).size, 0);
  let done = 0;
  const out: HashedFile[] = [];
  for (const name of names) {
    const hashed = await hashFile(join(dir, name), name, hooks.signal, (bytes) => {
      done += bytes;
      hooks.onProgress?.({ phase: 'check', done, total });
    });
    const wanted = files[name];
    if (hashed.sha256 !== wanted)
      throw new IntegrityError(
        'export_changed',
        `${join(dir, name)}: digest is ${hashed.sha256.slice(0, 12)}, verified was ${(wanted ?? '').slice(0, 12)}; ` +
          'nothing was pushed; export it again',
        { file: name, got: hashed.sha256, wanted },
      );
    out.push(hashed);
  }
  return out;
}

const Info = z.object({ sha: z.string().optional(), private: z.boolean() });

/** What the library says went wrong, as an error of ours without addresses and without the token. */
function pushError(client: HubClient, what: string, e: unknown): unknown {
  const own = ownError(e);
  if (own || (e instanceof Error && e.name === 'AbortError')) return own ?? e;
  if (!(e instanceof Error)) return e;
  const said = client.hide(e.message.replaceAll(/https?:\/\/[^\s"')]+/g, '(address)'));
  const details = { what, ...(e instanceof HubApiError ? { status: e.statusCode } : {}) };
  if (!(e instanceof HubApiError)) return new HubError('hub_answer', `${what}: ${said}`, details, { cause: undefined });
  const { statusCode: status } = e;
  if (status === 401 || status === 403)
    return new ConfigError('hub_access', `${what}: the token may not write there (${status}: ${said})`, details);
  if (status === 404) return new ConfigError('hub_not_found', `${what}: is not there (404: ${said})`, details);
  if (status === 409 || status === 412)
    return new ConfigError('hub_conflict', `${what}: changed meanwhile (${status}: ${said}); push again`, details);
  return new HubError('hub_answer', `${what}: the hub answers ${status}: ${said}`, details);
}

/** What is known of a repo; null: it is not there. */
async function infoOf(client: HubClient, at: RepoRevision, signal?: AbortSignal): Promise<z.infer<typeof Info> | null> {
  const url = client.urlOf(`/api/${at.kind}s/${at.name}`);
  try {
    const found = Info.safeParse((await client.json(repoText(at), url, signal)).value);
    if (found.success) return found.data;
  } catch (e) {
    if (e instanceof TemperError && e.code === 'hub_not_found') return null;
    throw e;
  }
  throw new HubError('hub_answer', `${repoText(at)}: the hub does not say whether it is private`, {});
}

/** @throws {TemperError} in one line, which says whether anything can be seen · the signal's reason */
export async function runPush(request: PushFiles, hooks: FillHooks = {}): Promise<PushResult> {
  const { dir, signal = undefined } = { ...request, ...hooks };
  const given = parseRepo(request.repo);
  const at: RepoRevision = { ...given, revision: request.revision ?? given.revision };
  const what = repoText(at);
  if (isCommit(at.revision))
    throw new ConfigError('hub_repo', `${what}@${at.revision}: is a commit; wanted a branch to push to`, {});
  const settings = hubSettings(request);
  if (settings.offline)
    throw new ConfigError('hub_offline', `${what}: HF_HUB_OFFLINE is set; unset it to push`, { what });
  if (settings.token === null)
    throw new ConfigError('hub_access', `${what}: pushing needs a token that may write; give it as HF_TOKEN`, { what });
  // No number of listeners is a leak here; 0, which would say so, is a value that undici's fetch cannot read back.
  if (signal) setMaxListeners(1e6, signal);
  const names = namesIn(dir);
  checkNames(dir, names, request.files);
  const files = await hashAll(request, names, hooks);
  const client = new HubClient(settings);
  const hub = {
    repo: { type: at.kind, name: at.name },
    accessToken: settings.token,
    hubUrl: settings.endpoint,
    fetch: hubFetch(client, what, signal),
  };
  let created = false;
  let committed: string | null = null;
  try {
    const before = await infoOf(client, at, signal);
    if (before && !before.private && request.public !== true)
      throw new ConfigError(
        'hub_public',
        `${what}: can be seen by everybody; give --public to push to it all the same, or choose another repo`,
        { what },
      );
    if (!before) {
      // Seen by nobody until all of it is there.
      await createRepo({ ...hub, visibility: 'private' });
      created = true;
      if ((await infoOf(client, at, signal))?.private !== true)
        throw new HubError('hub_answer', `${what}: was to be private, and can be seen by everybody; nothing was sent`, {
          what,
        });
      hooks.onNotice?.(`${what} was made, private`);
    }
    await needBranch(client, hub, at, request.pullRequest === true, hooks);
    const head = request.pullRequest === true ? null : await commitOf(client, at, signal);
    const made = commitTo({
      ...hub,
      title: request.message ?? 'Upload with temper push',
      branch: at.revision,
      ...(request.pullRequest ? { isPullRequest: true } : {}),
      operations: files.map((file) => ({
        operation: 'addOrUpdate' as const,
        path: file.name,
        content: new CheckedBlob(file),
      })),
      ...(signal ? { abortSignal: signal } : {}),
    });
    const answer = await made.catch(async (e: unknown) => {
      const oid = head === null ? null : await landed(client, at, head, files, signal);
      if (oid === null) throw e;
      hooks.onNotice?.(`${what}: the answer to the commit got lost, but it is there`);
      return { commit: { oid }, pullRequestUrl: undefined };
    });
    committed = answer?.commit.oid ?? '';
    if (!answer || !isCommit(committed))
      throw new HubError('hub_answer', `${what}: the hub names no commit for what was pushed`);
    const others = await checkPushed(client, at, committed, files, signal);
    if (others.length > 0)
      hooks.onNotice?.(
        `${what}: holds ${others
          .slice(0, 5)
          .map((n) => JSON.stringify(n))
          .join(', ')}` +
          `${others.length > 5 ? ` and ${others.length - 5} more` : ''} beside what was pushed, of which no gate and ` +
          'no signature says anything; take them away there',
      );
    if (created && request.public === true) await publish(client, hub, at);
    return {
      repo: what,
      url: `${settings.endpoint}/${what}`,
      commit: committed,
      revision: at.revision,
      created,
      private: created ? request.public !== true : (before?.private ?? true),
      pullRequest: answer.pullRequestUrl ?? null,
      files: files.map(({ name, size, sha256 }) => ({ path: name, size, sha256 })),
    };
  } catch (e) {
    signal?.throwIfAborted();
    throw withState(pushError(client, what, e), what, created, committed);
  } finally {
    await client.close();
  }
}

interface Hub {
  readonly repo: { readonly type: 'model' | 'dataset'; readonly name: string };
  readonly accessToken: string;
  readonly hubUrl: string;
  readonly fetch: typeof fetch;
}

/** The branch that is pushed to, made of main where it is not there. */
async function needBranch(
  client: HubClient,
  hub: Hub,
  at: RepoRevision,
  pullRequest: boolean,
  { signal, onNotice }: FillHooks,
): Promise<void> {
  if (at.revision === 'main' || pullRequest) return;
  const url = client.urlOf(`/api/${at.kind}s/${at.name}/revision/${encodeURIComponent(at.revision)}`);
  try {
    await client.json(`${repoText(at)}@${at.revision}`, url, signal);
  } catch (e) {
    if (!(e instanceof TemperError) || e.code !== 'hub_not_found') throw e;
    await createBranch({ ...hub, branch: at.revision });
    onNotice?.(`branch ${at.revision} was made`);
  }
}

/** The hub's own. */
const HUB_FILES: readonly string[] = ['.gitattributes'];
/**
 * What the hub lists for the commit is what was verified.
 * @returns what else lies there, of pushes before
 * @throws {IntegrityError} hub_digest
 */
async function checkPushed(
  client: HubClient,
  at: RepoRevision,
  commit: string,
  files: readonly HashedFile[],
  signal?: AbortSignal,
): Promise<readonly string[]> {
  const there = new Map((await filesOf(client, at, commit, signal)).map((f) => [f.path, f]));
  for (const file of files) {
    const found = there.get(file.name);
    const wanted =
      found?.algorithm === 'git-sha1'
        ? await digestOf(file.path, { algorithm: 'git-sha1', size: file.size }, signal)
        : file.sha256;
    if (found?.digest === wanted && found.size === file.size) continue;
    throw new IntegrityError(
      'hub_digest',
      `${repoText(at)}: ${JSON.stringify(file.name)} is ${found ? 'there with other bytes' : 'not there'} in commit ` +
        `${commit.slice(0, 12)}; do not use that commit, and push again`,
      { file: file.name, got: found?.digest ?? null, wanted },
    );
  }
  const own = new Set([...files.map((f) => f.name), ...HUB_FILES]);
  return [...there.keys()].filter((name) => !own.has(name)).sort();
}

/** The commit where one was made in spite of an answer that says otherwise, or none; null: it was not, or who knows. */
async function landed(
  client: HubClient,
  at: RepoRevision,
  head: string,
  files: readonly HashedFile[],
  signal?: AbortSignal,
): Promise<string | null> {
  try {
    const now = await commitOf(client, at, signal);
    if (now === head) return null;
    await checkPushed(client, at, now, files, signal);
    return now;
  } catch {
    return null;
  }
}

async function publish(client: HubClient, { fetch: ask }: Hub, at: RepoRevision): Promise<void> {
  const { token } = client.settings;
  const response = await ask(client.urlOf(`/api/${at.kind}s/${at.name}/settings`), {
    method: 'PUT',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ private: false }),
  });
  await response.body?.cancel();
  if (!response.ok)
    throw new HubError(
      'hub_answer',
      `${repoText(at)}: everything is pushed, but it could not be made public (${response.status}); do so in its ` +
        'settings',
      { status: response.status },
    );
}

/** Says what of a failed push can be seen. */
function withState(e: unknown, what: string, created: boolean, committed: string | null): unknown {
  if (!(e instanceof TemperError)) return e;
  const state =
    committed !== null
      ? `commit ${committed.slice(0, 12)} is there`
      : created
        ? `${what} was made and is empty; nothing of the folder can be seen in it`
        : 'nothing was changed there';
  const Kind = e.constructor as new (code: TemperError['code'], message: string, details: object) => TemperError;
  return new Kind(e.code, `${e.message}; ${state}`, { ...e.details, created, committed });
}

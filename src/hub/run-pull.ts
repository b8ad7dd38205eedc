// A pull into a folder that somebody names, or into the cache for hf:// references. Runs in the hub's thread.
import { setMaxListeners } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { ConfigError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { type Held, lockFolder } from '../base/lock.js';
import { placeOf } from '../base/outputs.js';
import { commitFolder, knownCommit, localPath, revisionFile } from './cached.js';
import { type Filled, type FillHooks, fillFolder } from './folder.js';
import { HubClient } from './http.js';
import { commitOf } from './listing.js';
import { isUntouched, type Manifest, readManifest } from './manifest.js';
import { type HubReference, isCommit, parseReference, parseRepo, type RepoRevision, repoText } from './reference.js';
import { pathMatcher, type Selection, selectionKey } from './select.js';
import { type HubOptions, hubSettings } from './settings.js';

export interface PullRequest extends HubOptions {
  /** OWNER/NAME[@REV], or datasets/OWNER/NAME[@REV]. */
  readonly repo: string;
  readonly dir: string;
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  /** Files that no pull put there may be replaced. */
  readonly replace?: boolean;
  /** Requests at once; default 8. */
  readonly connections?: number;
  /** Bytes that one of them asks for at most; default 16 MiB. */
  readonly segmentBytes?: number;
}
export interface PullResult {
  readonly dir: string;
  readonly kind: 'model' | 'dataset';
  readonly name: string;
  readonly revision: string;
  /** The commit that every file is of. */
  readonly commit: string;
  readonly files: readonly {
    readonly path: string;
    /** Bytes. */
    readonly size: number;
    readonly algorithm: 'sha256' | 'git-sha1';
    readonly digest: string;
    /** false: it was there. */
    readonly fetched: boolean;
  }[];
  readonly removed: readonly string[];
  /** Bytes of all files, and of those that were fetched. */
  readonly bytes: number;
  readonly fetchedBytes: number;
  readonly seconds: number;
}
const CONNECTIONS = 8;
const SEGMENT_BYTES = 16 * 2 ** 20;

const offlineError = (what: string, missing: string): ConfigError =>
  new ConfigError('hub_offline', `${what}: HF_HUB_OFFLINE is set, and ${missing}; unset it to pull`, { what });

/** What a manifest says is all there, untouched; null: that cannot be told without asking the hub. */
function believed(folder: string, at: RepoRevision, selection: Selection, commit: string | null): Manifest | null {
  const manifest = readManifest(folder);
  if (manifest === null || manifest.kind !== at.kind || manifest.name !== at.name) return null;
  if (commit !== null ? manifest.commit !== commit : manifest.revision !== at.revision) return null;
  const { include, exclude, under = '' } = selection;
  const keys = [selectionKey(selection), selectionKey({ include, exclude })];
  if (!keys.some((key) => manifest.covered.includes(key))) return null;
  const matches = under === '' ? () => true : pathMatcher(manifest.files, under);
  const files = manifest.files.filter((f) => matches(f.path));
  if (files.length === 0 || !files.every((f) => isUntouched(folder, f, manifest.at))) return null;
  return { ...manifest, files };
}

async function locked(
  folder: string,
  hooks: FillHooks,
  waits: boolean,
  held: (by: Held) => ConfigError,
): Promise<Disposable> {
  for (let said = false; ; ) {
    hooks.signal?.throwIfAborted();
    try {
      return lockFolder(folder, held);
    } catch (e) {
      if (!waits || !(e instanceof ConfigError) || e.code !== 'hub_locked') throw e;
      if (!said) hooks.onNotice?.(`waiting for another pull: ${e.message}`);
      said = true;
      await wait(200);
    }
  }
}
const lockedBy =
  (folder: string) =>
  ({ who, pid, file }: Held): ConfigError =>
    new ConfigError(
      'hub_locked',
      `${folder}: ${who} pulls into it; wait for it or stop it, or remove ${file} if it is gone`,
      { folder, pid, file },
    );

const resultOf = (dir: string, at: RepoRevision, filled: Filled, began: number): PullResult => {
  const sum = (files: Filled['files']): number => files.reduce((n, f) => n + f.size, 0);
  return {
    dir,
    kind: at.kind,
    name: at.name,
    revision: at.revision,
    commit: filled.commit,
    files: filled.files.map(({ path, size, algorithm, digest, fetched }) => ({
      path,
      size,
      algorithm,
      digest,
      fetched,
    })),
    removed: filled.removed,
    bytes: sum(filled.files),
    fetchedBytes: sum(filled.files.filter((f) => f.fetched)),
    seconds: (performance.now() - began) / 1000,
  };
};

/** @throws {TemperError} in one line · the signal's reason; what came is kept for the next pull */
export async function runPull(request: PullRequest, hooks: FillHooks = {}): Promise<PullResult> {
  const began = performance.now();
  const at = parseRepo(request.repo);
  const settings = hubSettings(request);
  const folder = placeOf(request.dir).target;
  if (existsSync(folder) && !statSync(folder).isDirectory())
    throw new ConfigError('hub_folder', `${request.dir}: is no folder; choose another place`, { folder });
  const selection = { include: request.include ?? [], exclude: request.exclude ?? [] };
  if (hooks.signal) setMaxListeners(0, hooks.signal);
  using _lock = await locked(folder, hooks, false, lockedBy(request.dir));
  if (settings.offline) {
    const there = believed(folder, at, selection, isCommit(at.revision) ? at.revision : null);
    if (!there) throw offlineError(`${repoText(at)}@${at.revision}`, `${request.dir} does not hold it as a whole`);
    const files = there.files.map((f) => ({ ...f, fetched: false }));
    return resultOf(request.dir, at, { commit: there.commit, files, removed: [] }, began);
  }
  const client = new HubClient(settings);
  try {
    const commit = await commitOf(client, at, hooks.signal);
    const { replace = false, connections = CONNECTIONS, segmentBytes = SEGMENT_BYTES } = request;
    const how = { connections, segmentBytes, replace };
    const filled = await fillFolder(client, { at, commit, folder, selection, ...how }, hooks);
    return resultOf(request.dir, at, filled, began);
  } finally {
    await client.close();
  }
}

export interface CacheRequest extends HubOptions {
  /** hf:// references. */
  readonly references: readonly string[];
  /** Commits that some of them are pinned to. */
  readonly pins?: Readonly<Record<string, string>>;
}
/** By reference: the commit that it means, and where that is now. */
export type CacheResult = Readonly<Record<string, { readonly commit: string; readonly local: string }>>;

/** Brings what references mean into the cache, each repo at one commit. @throws as runPull · {ConfigError} hub_cache */
export async function pullIntoCache(request: CacheRequest, hooks: FillHooks = {}): Promise<CacheResult> {
  const settings = hubSettings(request);
  const client = new HubClient(settings);
  const commits = new Map<string, string>();
  const out: Record<string, { commit: string; local: string }> = {};
  if (hooks.signal) setMaxListeners(0, hooks.signal);
  try {
    for (const given of new Set(request.references)) {
      const reference = parseReference(given);
      const key = `${repoText(reference)}@${reference.revision}`;
      const pin = request.pins?.[given];
      const commit = pin ?? commits.get(key) ?? (await currentCommit(client, reference, hooks));
      if (pin === undefined) commits.set(key, commit);
      await cache(client, reference, commit, hooks);
      out[given] = { commit, local: localPath(reference, commit) };
      if (pin === undefined && !isCommit(reference.revision)) remember(reference, commit);
    }
    return out;
  } finally {
    await client.close();
  }
}

async function currentCommit(client: HubClient, at: HubReference, hooks: FillHooks): Promise<string> {
  if (!client.settings.offline) return commitOf(client, at, hooks.signal);
  const known = knownCommit(at, at.revision);
  if (known === null) throw offlineError(`${repoText(at)}@${at.revision}`, 'its commit was never asked for');
  return known;
}
function remember(at: HubReference, commit: string): void {
  const file = revisionFile(at, at.revision);
  makeFolders(dirname(file));
  writeFileAtomic(file, `${commit}\n`);
}

async function cache(client: HubClient, reference: HubReference, commit: string, hooks: FillHooks): Promise<void> {
  const folder = commitFolder(reference, commit);
  const selection = { include: [], exclude: [], under: reference.path };
  if (believed(folder, reference, selection, commit)) return;
  using _lock = await locked(folder, hooks, true, lockedBy(folder));
  if (believed(folder, reference, selection, commit)) return;
  if (client.settings.offline)
    throw offlineError(`${repoText(reference)}@${commit.slice(0, 12)}`, `${join(folder)} does not hold it as a whole`);
  const at = { kind: reference.kind, name: reference.name, revision: reference.revision };
  const how = { connections: CONNECTIONS, segmentBytes: SEGMENT_BYTES, replace: false };
  await fillFolder(client, { at, commit, folder, selection, ...how }, hooks);
}

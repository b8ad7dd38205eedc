// A folder that becomes what a repo holds at one commit: what is there stays, what is not comes, and nothing is in its
// place before its digest is right.
import { constants, copyFileSync, existsSync, lstatSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { ConfigError } from '../base/errors.js';
import { makeFolders } from '../base/folders.js';
import { asWriteError } from '../base/system-error.js';
import { syncPath } from '../base/temporary.js';
import { download, missingError } from './download.js';
import type { HubClient } from './http.js';
import { filesOf, type HubFile } from './listing.js';
import {
  identityOf,
  isUntouched,
  type Manifest,
  type ManifestEntry,
  RACY_MS,
  readManifest,
  writeManifest,
} from './manifest.js';
import { checkNames, PARTS_FOLDER } from './names.js';
import { partFile } from './part.js';
import { type RepoRevision, repoText } from './reference.js';
import { type Selection, selectFiles, selectionKey } from './select.js';
import { bytesNeeded, checkWay, foldsCase, requireRoom, type Surveyed, survey } from './survey.js';

export interface FillRequest {
  readonly at: RepoRevision;
  readonly commit: string;
  /** Behind all links. */
  readonly folder: string;
  readonly selection: Selection;
  readonly connections: number;
  readonly segmentBytes: number;
  /** Files that no pull put there may be replaced. */
  readonly replace: boolean;
}
export interface FillHooks {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: PullProgress) => void;
  /** What should be known, a sentence each. */
  readonly onNotice?: (notice: string) => void;
}
export interface PullProgress {
  /** `check` reads what is there, `fetch` brings the rest. */
  readonly phase: 'check' | 'fetch';
  /** Bytes so far, and in all. */
  readonly done: number;
  readonly total: number;
}
export interface Filled {
  readonly commit: string;
  readonly files: readonly (HubFile & { readonly fetched: boolean })[];
  /** Of another commit, gone in this one. */
  readonly removed: readonly string[];
}

/** @throws {ConfigError} hub_folder: the folder is another repo's */
function requireSameRepo(folder: string, manifest: Manifest | null, { kind, name }: RepoRevision): void {
  if (manifest === null || (manifest.kind === kind && manifest.name === name)) return;
  throw new ConfigError(
    'hub_folder',
    `${folder}: holds ${repoText(manifest)}@${manifest.commit.slice(0, 12)}, wanted ${repoText({ kind, name })}; ` +
      'choose another folder',
    { folder, holds: repoText(manifest) },
  );
}

/** What is replaced is said, or refused. @throws {ConfigError} hub_folder */
function sayReplaced(folder: string, surveyed: readonly Surveyed[], replace: boolean, hooks: FillHooks): void {
  const of = (standing: Surveyed['standing']): string[] =>
    surveyed.filter((s) => s.standing === standing).map((s) => JSON.stringify(s.file.path));
  const list = (names: readonly string[]): string =>
    names.length > 8 ? `${names.slice(0, 8).join(', ')}, … (${names.length})` : names.join(', ');
  const [foreign, changed, outdated] = [of('foreign'), of('changed'), of('outdated')];
  if (foreign.length > 0 && !replace)
    throw new ConfigError(
      'hub_folder',
      `${folder}: has ${list(foreign)} with other bytes, which no pull put there; nothing was written; choose ` +
        'another folder, or have them replaced with --replace',
      { folder, files: foreign },
    );
  if (foreign.length > 0) hooks.onNotice?.(`replaced: ${list(foreign)}`);
  if (changed.length > 0) hooks.onNotice?.(`changed here since they were pulled, and fetched again: ${list(changed)}`);
  if (outdated.length > 0) hooks.onNotice?.(`of another commit, and replaced: ${list(outdated)}`);
}

/** Files that the manifest's commit had and this one has not, or has with other bytes and does not pull now. */
function staleFiles(
  folder: string,
  manifest: Manifest | null,
  commit: string,
  listing: readonly HubFile[],
  chosen: readonly HubFile[],
): readonly ManifestEntry[] {
  if (manifest === null || manifest.commit === commit) return [];
  const wanted = new Set(chosen.map((f) => f.path));
  const same = new Set(listing.map((f) => `${f.digest} ${f.path}`));
  return manifest.files.filter(
    (f) => !wanted.has(f.path) && !same.has(`${f.digest} ${f.path}`) && isUntouched(folder, f, manifest.at),
  );
}

/** Puts what was fetched in its place. */
function publish(folder: string, parts: string, files: readonly HubFile[]): void {
  const left = new Map<string, number>();
  for (const { digest } of files) left.set(digest, (left.get(digest) ?? 0) + 1);
  const touched = new Set<string>([folder]);
  for (const file of files) {
    const path = join(folder, file.path);
    checkWay(folder, file.path);
    makeFolders(dirname(path));
    let from = partFile(parts, file);
    const more = (left.get(file.digest) ?? 1) - 1;
    left.set(file.digest, more);
    if (more > 0) {
      copyFileSync(from, `${from}.copy`, constants.COPYFILE_FICLONE);
      from = `${from}.copy`;
      syncPath(from);
    }
    renameSync(from, path);
    for (let at = dirname(path); at.length >= folder.length; at = dirname(at)) touched.add(at);
  }
  for (const at of touched) syncPath(at);
}

/** Files side by side of one digest are fetched once. */
const distinct = (files: readonly HubFile[]): HubFile[] => [...new Map(files.map((f) => [f.digest, f])).values()];

/** The folder of parts: our own, or none. @throws {ConfigError} hub_folder */
function openParts(folder: string): string {
  const parts = join(folder, PARTS_FOLDER);
  const s = lstatSync(parts, { throwIfNoEntry: false });
  if (s !== undefined && !s.isDirectory())
    throw new ConfigError('hub_folder', `${parts}: is no folder, though it has the name of ours; remove it`, {
      path: parts,
    });
  return parts;
}

/**
 * The caller holds the folder's lock.
 * @throws {TemperError} what is missing, or in the way, in one line · the signal's reason; what came is kept
 */
export async function fillFolder(client: HubClient, request: FillRequest, hooks: FillHooks): Promise<Filled> {
  const { at, commit, folder, selection } = request;
  const { signal } = hooks;
  const what = `${repoText(at)}@${commit.slice(0, 12)}`;
  const manifest = readManifest(folder);
  requireSameRepo(folder, manifest, at);
  const listing = await filesOf(client, at, commit, signal);
  const chosen = selectFiles(what, listing, selection);
  checkNames(
    what,
    chosen.map((f) => f.path),
    foldsCase(folder),
  );
  const parts = openParts(folder);
  const total = chosen.reduce((n, f) => n + f.size, 0);
  let checked = 0;
  const surveyed = await survey(folder, chosen, manifest, signal, (bytes) => {
    checked += bytes;
    hooks.onProgress?.({ phase: 'check', done: checked, total });
  });
  sayReplaced(folder, surveyed, request.replace, hooks);
  const wanted = surveyed.filter((s) => s.standing !== 'there').map((s) => s.file);
  requireRoom(folder, bytesNeeded(parts, distinct(wanted)) + repeated(wanted));
  const gone = staleFiles(folder, manifest, commit, listing, chosen);

  try {
    makeFolders(folder);
    if (wanted.length > 0) {
      makeFolders(parts);
      await fetchAll(client, request, wanted, parts, what, chosen.length, hooks);
      // Until the new one is written nobody may believe that the folder is whole.
      if (manifest) writeManifest(folder, { ...manifest, covered: [] });
      publish(folder, parts, wanted);
    }
    for (const { path } of gone) rmSync(join(folder, path), { force: true });
    rmSync(parts, { recursive: true, force: true });
  } catch (e) {
    throw asWriteError(e, folder);
  }
  if (gone.length > 0)
    hooks.onNotice?.(`of another commit, and removed: ${gone.map((f) => JSON.stringify(f.path)).join(', ')}`);
  await record(request, client.settings.endpoint, manifest, gone, chosen, wanted.length > 0);
  const fetched = new Set(wanted);
  return {
    commit,
    files: chosen.map((f) => ({ ...f, fetched: fetched.has(f) })),
    removed: gone.map((f) => f.path),
  };
}
const repeated = (files: readonly HubFile[]): number =>
  files.reduce((n, f) => n + f.size, 0) - distinct(files).reduce((n, f) => n + f.size, 0);

async function fetchAll(
  client: HubClient,
  { at, commit, connections, segmentBytes }: FillRequest,
  wanted: readonly HubFile[],
  parts: string,
  what: string,
  of: number,
  { signal, onProgress, onNotice }: FillHooks,
): Promise<void> {
  const files = distinct(wanted);
  const total = files.reduce((n, f) => n + f.size, 0);
  let done = 0;
  const missing = await download(client, files, {
    repo: at,
    commit,
    folder: parts,
    connections,
    segmentBytes,
    ...(signal ? { signal } : {}),
    onNotice: (notice) => onNotice?.(notice),
    onBytes: (bytes) => {
      done += bytes;
      onProgress?.({ phase: 'fetch', done, total });
    },
  });
  if (missing.length > 0) throw missingError(what, missing, of);
}

/** Writes what is there now. */
async function record(
  { at, commit, folder, selection }: FillRequest,
  endpoint: string,
  before: Manifest | null,
  gone: readonly { readonly path: string }[],
  chosen: readonly HubFile[],
  fetched: boolean,
): Promise<void> {
  // Clocks of files tick: what is touched from here on shows.
  if (fetched) await wait(RACY_MS + 20);
  const same = before?.commit === commit;
  const without = new Set([...gone, ...chosen].map((f) => f.path));
  const kept = before?.files.filter((f) => !without.has(f.path) && existsSync(join(folder, f.path))) ?? [];
  const now = chosen.flatMap((f) => {
    const identity = identityOf(join(folder, f.path));
    return identity ? [{ ...f, identity }] : [];
  });
  writeManifest(folder, {
    version: 1,
    endpoint,
    kind: at.kind,
    name: at.name,
    revision: at.revision,
    commit,
    covered: [...new Set([...(same ? before.covered : []), selectionKey(selection)])],
    at: Date.now(),
    files: [...kept, ...now].sort((a, b) => (a.path < b.path ? -1 : 1)),
  });
}

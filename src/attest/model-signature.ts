// OpenSSF model signing v1.0: a Statement that lists every file of a folder with its digest, and one digest over all of
// them in that order as its subject. Files by the whole, or in shards; SHA-256 or BLAKE2b. What is not listed and not
// ignored by name must not be there.
import { createHash } from 'node:crypto';
import { basename, resolve } from 'node:path';
import { z } from 'zod';
import { ConfigError, IntegrityError } from '../base/errors.js';
import type { Json } from '../verdict-log/canonical.js';
import { type Folder, isBelow, nameProblem } from './folder.js';
import { readStatement, type Statement, statementOf } from './statement.js';

export const MODEL_SIGNATURE = 'https://model_signing/signature/v1.0';
export const SIGNATURE_FILE = 'model.sig';
/** Nothing of a model, whoever signs. */
const GIT_PATHS = ['.git', '.gitattributes', '.github', '.gitignore'] as const;
/** Names of the format and of node:crypto. */
const HASHES: Readonly<Record<string, string>> = { sha256: 'sha256', blake2b: 'blake2b512' };

const Hex = z.string().regex(/^(?:[0-9a-f]{2})+$/, 'is no digest in hex');
const Count = z
  .union([
    z.int(),
    z
      .string()
      .regex(/^[1-9][0-9]{0,14}$/)
      .transform(Number),
  ])
  .pipe(z.int().positive());
const Predicate = z.object({
  resources: z.array(z.object({ name: z.string(), algorithm: z.string(), digest: Hex })).min(1),
  serialization: z.object({
    method: z.enum(['files', 'shards']),
    hash_type: z.string(),
    allow_symlinks: z.boolean(),
    ignore_paths: z.array(z.string()).default([]),
    shard_size: Count.optional(),
  }),
});
export interface SignedFile {
  readonly name: string;
  readonly digest: string;
  readonly start: number;
  /** Infinity: to its end. */
  readonly end: number;
}
export interface ModelManifest {
  /** What the signer called it; says nothing. */
  readonly name: string;
  /** Over the digests of all, hex. */
  readonly root: string;
  readonly files: readonly SignedFile[];
  readonly sharded: boolean;
  /** As node:crypto names it. */
  readonly hash: string;
  readonly ignored: readonly string[];
  readonly links: boolean;
}

const bad = (file: string, why: string): IntegrityError =>
  new IntegrityError('bad_manifest', `${file}: ${why}; sign the folder again`, { file });
const rootOf = (digests: readonly string[]): string => {
  const sum = createHash('sha256');
  for (const digest of digests) sum.update(Buffer.from(digest, 'hex'));
  return sum.digest('hex');
};

/** The hash of a serialization or a resource: `sha256`, or `sha256-sharded-1000`. */
function hashOf(file: string, name: string, shard: number | undefined): string {
  const [, base = '', size] = /^([a-z0-9]+?)(?:-sharded-([0-9]+))?$/.exec(name) ?? [];
  if (!Object.hasOwn(HASHES, base))
    throw bad(file, `its hash is ${JSON.stringify(name)}, wanted one of ${Object.keys(HASHES).join(', ')}`);
  if (size !== undefined && Number(size) !== shard)
    throw bad(file, `${name} is of another size of shards than it says`);
  return HASHES[base] as string;
}
function fileOf(file: string, name: string, digest: string, sharded: boolean): SignedFile {
  const [, path = '', start, end] = sharded ? (/^(.*):([0-9]{1,15}):([0-9]{1,15})$/s.exec(name) ?? []) : [name, name];
  const problem = nameProblem(path);
  if (problem !== null) throw bad(file, `it lists ${JSON.stringify(name)}, which ${problem}`);
  return { name: path, digest, start: Number(start ?? 0), end: end === undefined ? Infinity : Number(end) };
}
/** Shards of a file follow each other from its first byte on, each but the last of the full size. */
function requireShards(file: string, files: readonly SignedFile[], size: number): void {
  const ends = new Map<string, number>();
  for (const { name, start, end } of [...files].sort((a, b) => a.start - b.start)) {
    const before = ends.get(name) ?? 0;
    if (start !== before || end < start || end - start > size || before % size !== 0)
      throw bad(file, `its shards of ${JSON.stringify(name)} leave something out or cover it twice`);
    ends.set(name, end);
  }
}

/** @throws {IntegrityError} bad_statement, bad_manifest: what is signed is no manifest of that format */
export function readManifest(payload: Uint8Array, file: string): ModelManifest {
  return manifestOf(readStatement(payload, file), file);
}
export function manifestOf({ predicateType, predicate, subject }: Statement, file: string): ModelManifest {
  if (predicateType !== MODEL_SIGNATURE)
    throw bad(file, `its predicate is ${JSON.stringify(predicateType)}, wanted ${MODEL_SIGNATURE}`);
  const parsed = Predicate.safeParse(predicate);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw bad(file, `${issue?.path.join('.') || 'its predicate'}: ${issue?.message ?? 'is of another form'}`);
  }
  const { resources, serialization: s } = parsed.data;
  const sharded = s.method === 'shards';
  if (sharded && s.shard_size === undefined) throw bad(file, 'its shards have no size');
  const hash = hashOf(file, s.hash_type, s.shard_size);
  for (const r of resources)
    if (hashOf(file, r.algorithm, s.shard_size) !== hash)
      throw bad(file, `${JSON.stringify(r.name)} is hashed by ${r.algorithm}, the folder by ${s.hash_type}`);
  const files = resources.map((r) => fileOf(file, r.name, r.digest, sharded));
  const names = resources.map((r) => r.name);
  if (new Set(names).size < names.length) throw bad(file, 'it lists a file twice');
  if (sharded) requireShards(file, files, s.shard_size as number);
  if (subject.length !== 1) throw bad(file, `it is about ${subject.length} things, wanted one`);
  const [{ name = '', digest } = { digest: {} as Record<string, string> }] = subject;
  const root = rootOf(files.map((f) => f.digest));
  if (digest.sha256 !== root) throw bad(file, 'the digest of its subject is not that of the files that it lists');
  const ignored = s.ignore_paths.map((path) => path.replace(/\/+$/, ''));
  return { name, root, files, sharded, hash, ignored, links: s.allow_symlinks };
}

export interface ManifestProblem {
  readonly name: string;
  readonly what: 'changed' | 'missing' | 'added' | 'link' | 'not a file';
}
export interface ManifestResult {
  readonly problems: readonly ManifestProblem[];
  /** Files that are there and that the signer left out by name. */
  readonly uncovered: readonly string[];
}
/** Signatures stand beside each other: none lists another. */
const isSignature = (name: string): boolean => !name.includes('/') && name.endsWith('.sig');

/** Holds a folder against what was signed. @throws what the file system says · the signal's reason */
export async function compareFolder(folder: Folder, manifest: ModelManifest): Promise<ManifestResult> {
  const problems: ManifestProblem[] = [];
  const listed = new Map<string, SignedFile[]>();
  for (const file of manifest.files) listed.set(file.name, [...(listed.get(file.name) ?? []), file]);
  const uncovered: string[] = [];
  const present = new Set<string>();
  for (const { name, kind } of folder.entries) {
    const known = listed.has(name);
    if (!known && (isSignature(name) || isBelow(name, GIT_PATHS))) continue;
    if (!known && isBelow(name, manifest.ignored)) uncovered.push(name);
    else if (kind === 'other') problems.push({ name, what: 'not a file' });
    else if (kind === 'link' && !(manifest.links && folder.leadsInside(name))) problems.push({ name, what: 'link' });
    else if (!known) problems.push({ name, what: 'added' });
    else present.add(name);
  }
  for (const [name, parts] of listed) {
    if (!present.has(name)) {
      if (!problems.some((p) => p.name === name)) problems.push({ name, what: 'missing' });
      continue;
    }
    if (!(await isUnchanged(folder, manifest, parts))) problems.push({ name, what: 'changed' });
  }
  return { problems, uncovered };
}
async function isUnchanged(
  folder: Folder,
  { sharded, hash }: ModelManifest,
  parts: readonly SignedFile[],
): Promise<boolean> {
  const [first] = parts;
  if (!first) return false;
  if (!sharded)
    return (await (hash === 'sha256' ? folder.sha256(first.name) : folder.hash(first.name, hash))) === first.digest;
  if (Math.max(...parts.map((p) => p.end)) !== folder.size(first.name)) return false;
  for (const { name, start, end, digest } of parts)
    if ((await folder.hash(name, hash, start, end)) !== digest) return false;
  return true;
}

/**
 * What is signed of a folder: every file but signatures and what is git's.
 * @throws {ConfigError} sign_refused: it is empty, or holds a link or what is no file
 */
export async function manifestStatement(folder: Folder): Promise<Json> {
  const resources: { name: string; algorithm: string; digest: string }[] = [];
  const left: string[] = [...GIT_PATHS];
  for (const { name, kind } of folder.entries) {
    if (isBelow(name, GIT_PATHS)) continue;
    if (isSignature(name)) {
      left.push(name);
      continue;
    }
    if (kind !== 'file' || nameProblem(name) !== null)
      throw new ConfigError(
        'sign_refused',
        `${folder.path(name)}: is ${kind === 'link' ? 'a link' : 'no plain file'}, which a signature cannot hold to; ` +
          'put a file in its place, or take it away',
        { file: name },
      );
    resources.push({ name, algorithm: 'sha256', digest: await folder.sha256(name) });
  }
  if (resources.length === 0)
    throw new ConfigError('sign_refused', `${folder.dir}: holds no file to sign; give the folder of an export`, {
      dir: folder.dir,
    });
  const ignore = [...new Set([...left, SIGNATURE_FILE])].sort();
  return statementOf(
    [{ name: basename(resolve(folder.dir)), digest: { sha256: rootOf(resources.map((r) => r.digest)) } }],
    MODEL_SIGNATURE,
    {
      serialization: { method: 'files', hash_type: 'sha256', allow_symlinks: false, ignore_paths: ignore },
      resources,
    },
  );
}

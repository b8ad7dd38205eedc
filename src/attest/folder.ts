// What a folder holds, and what its files hash to: each is read once, whoever asks. Links and what is no file are
// named, never followed.
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { join, sep } from 'node:path';
import { InputFile, inputPieces } from '../base/inputs.js';

export type EntryKind = 'file' | 'link' | 'other';
export interface FolderEntry {
  /** From the folder, with '/'. */
  readonly name: string;
  readonly kind: EntryKind;
}
export interface HashOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of bytes that were read. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

/** Whether a name is one of `paths`, or lies below one. */
export const isBelow = (name: string, paths: readonly string[]): boolean =>
  paths.some((path) => name === path || name.startsWith(`${path}/`));

/** Why a name cannot be of a file below a folder; null: it can. */
export function nameProblem(name: string): string | null {
  if (name === '') return 'is empty';
  if (!name.isWellFormed() || name.includes('\0')) return 'is no text';
  if (name.startsWith('/') || /^[A-Za-z]:[\\/]/.test(name)) return 'is absolute';
  return name.split('/').some((part) => part === '' || part === '.' || part === '..') ? 'leaves the folder' : null;
}

/** Names by their parts, as paths sort: `a/b` before `a.b`. */
function byParts(a: string, b: string): number {
  const [x, y] = [a.split('/'), b.split('/')];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const order = Buffer.compare(Buffer.from(x[i] ?? ''), Buffer.from(y[i] ?? ''));
    if (order !== 0) return order;
  }
  return x.length - y.length;
}

const PIECE_BYTES = 1 << 20;

/** A folder, looked at once. */
export class Folder {
  readonly entries: readonly FolderEntry[];
  readonly #digests = new Map<string, Promise<string>>();
  constructor(
    readonly dir: string,
    readonly options: HashOptions = {},
  ) {
    const entries: FolderEntry[] = [];
    const walk = (at: string): void => {
      for (const e of readdirSync(join(dir, at), { withFileTypes: true })) {
        const name = at === '' ? e.name : `${at}/${e.name}`;
        if (e.isDirectory()) walk(name);
        else entries.push({ name, kind: e.isFile() ? 'file' : e.isSymbolicLink() ? 'link' : 'other' });
      }
    };
    walk('');
    this.entries = entries.sort((a, b) => byParts(a.name, b.name));
  }
  path(name: string): string {
    return join(this.dir, ...name.split('/'));
  }
  /** A plain file of that name, not a link to one. */
  has(name: string): boolean {
    return nameProblem(name) === null && this.entries.some((e) => e.name === name && e.kind === 'file');
  }
  below(path: string): readonly string[] {
    return this.entries.flatMap((e) => (e.kind === 'file' && e.name.startsWith(`${path}/`) ? [e.name] : []));
  }
  size(name: string): number {
    return statSync(this.path(name)).size;
  }
  /** Whether a link leads to a file inside the folder. */
  leadsInside(name: string): boolean {
    try {
      const root = realpathSync(this.dir);
      const target = realpathSync(this.path(name));
      return target.startsWith(`${root}${sep}`) && lstatSync(target).isFile();
    } catch {
      return false;
    }
  }
  /** SHA-256 of a file, hex. @throws what the file system says · the signal's reason */
  sha256(name: string): Promise<string> {
    const known = this.#digests.get(name);
    if (known) return known;
    const digest = this.hash(name, 'sha256');
    // One that fails is for who asked; nobody may be asking any more.
    digest.catch(() => undefined);
    this.#digests.set(name, digest);
    return digest;
  }
  /** Of the bytes from `start` up to, not including, `end`. @param algorithm as node:crypto names it */
  async hash(name: string, algorithm: string, start = 0, end = Infinity): Promise<string> {
    const sum = createHash(algorithm);
    this.options.signal?.throwIfAborted();
    using small = InputFile.open(this.path(name));
    if (small.size <= PIECE_BYTES) {
      const bytes = new Uint8Array(small.size);
      small.read(0, bytes);
      this.options.onProgress?.(bytes.length);
      return sum.update(bytes.subarray(start, Math.min(end, bytes.length))).digest('hex');
    }
    let at = 0;
    for await (const piece of inputPieces(this.path(name), PIECE_BYTES)) {
      this.options.signal?.throwIfAborted();
      const [from, to] = [Math.max(start - at, 0), Math.min(end - at, piece.length)];
      if (to > from) sum.update(piece.subarray(from, to));
      at += piece.length;
      this.options.onProgress?.(piece.length);
      if (at >= end) break;
    }
    return sum.digest('hex');
  }
}

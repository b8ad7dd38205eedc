// Digests of files as the hub counts them.
import { createHash, type Hash } from 'node:crypto';
import { inputPieces } from '../base/inputs.js';
import type { DigestKind, HubFile } from './listing.js';

/** A hash that begins as the digest of a file of that size does. */
export function hashOf(algorithm: DigestKind, size: number): Hash {
  if (algorithm === 'sha256') return createHash('sha256');
  return createHash('sha1').update(`blob ${size}\0`);
}

/** Digest of a regular file, behind links. @throws the signal's reason, or what the file system says */
export async function digestOf(
  path: string,
  { algorithm, size }: Pick<HubFile, 'algorithm' | 'size'>,
  signal?: AbortSignal,
  onBytes?: (bytes: number) => void,
): Promise<string> {
  const hash = hashOf(algorithm, size);
  for await (const piece of inputPieces(path)) {
    signal?.throwIfAborted();
    hash.update(piece);
    onBytes?.(piece.length);
  }
  return hash.digest('hex');
}

// sha256, hex, of text, bytes and files: what identifies recipes, data, checkpoints and judged text.
import { createHash, hash } from 'node:crypto';
import { inputPieces } from './inputs.js';

/**
 * Text counts as its UTF-8 bytes. Half of a surrogate pair has none, and would be hashed as U+FFFD whichever it is:
 * such a text counts as its UTF-16 code units, after a byte that no UTF-8 has.
 */
export const sha256 = (data: string | Uint8Array): string => {
  if (typeof data !== 'string' || data.isWellFormed()) return hash('sha256', data, 'hex');
  return createHash('sha256').update(Uint8Array.of(0xff)).update(Buffer.from(data, 'utf16le')).digest('hex');
};

/** Bytes hashed between two turns of the event loop: a few milliseconds of a thread. */
const PIECE_BYTES = 1 << 20;

/** @throws the signal's reason, or what the file system says */
export async function sha256File(path: string, options: { readonly signal?: AbortSignal } = {}): Promise<string> {
  const sum = createHash('sha256');
  for await (const piece of inputPieces(path, PIECE_BYTES)) {
    options.signal?.throwIfAborted();
    sum.update(piece);
  }
  return sum.digest('hex');
}

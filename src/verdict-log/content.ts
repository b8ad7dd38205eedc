// Digests of contents in a log. Short answers, names and numbers can be guessed, and a plain SHA-256 of them tells
// who guessed right; so each record's digests are MACs under a salt of its own. The salt follows from the private
// key and the record's nonce: who holds the key can open any record, and can hand out the salt of one without
// opening another.
import { createHmac } from 'node:crypto';

/** @param sha256 of the content, hex: whoever records need not hold the content itself */
export const contentDigest = (salt: Uint8Array, sha256: string): string =>
  createHmac('sha256', salt).update(sha256).digest('hex');

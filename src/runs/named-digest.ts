// A digest as files of the gate name it: the algorithm, a colon, hexadecimal digits.
import { z } from 'zod';

/** "sha256:" and 64 hexadecimal digits. */
export const NamedDigest = z.string().regex(/^sha256:[0-9a-f]{64}$/, 'wanted sha256: and 64 hex digits');
/** Enough of a digest for a person to tell two apart. */
export const shortDigest = (digest: string): string => digest.replace(/^sha256:/, '').slice(0, 12);

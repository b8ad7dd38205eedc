// An entry of a transparency log (Rekor), as a bundle brings it, checked offline: that it is about this envelope, that
// it is in the log of that size and root, and, where the log's key is given, that the log signed so and when.
import { verify, type X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { parseJson } from '../base/json.js';
import { canonicalJson } from '../verdict-log/canonical.js';
import { isIncluded, leafHash } from '../verdict-log/merkle.js';
import type { Envelope } from './dsse.js';
import type { Trust, TrustedKey } from './keys.js';

const Count = z.union([z.int().nonnegative(), z.string().regex(/^(?:0|[1-9][0-9]{0,14})$/)]).transform(Number);
const Text = z.string().max(1 << 20);
/** Base64 as one text for one value: padded, nothing else in it, no bits left over. */
export const Base64 = z
  .string()
  .refine((text) => Buffer.from(text, 'base64').toString('base64') === text, 'is no base64');
export const TlogEntry = z.strictObject({
  logIndex: Count,
  logId: z.strictObject({ keyId: Base64 }),
  kindVersion: z.strictObject({ kind: z.literal('dsse'), version: z.literal('0.0.1') }),
  integratedTime: Count.optional(),
  inclusionPromise: z.strictObject({ signedEntryTimestamp: Base64 }).optional(),
  inclusionProof: z
    .strictObject({
      logIndex: Count,
      rootHash: Base64,
      treeSize: Count,
      hashes: z.array(Base64).max(64),
      checkpoint: z.strictObject({ envelope: Text }),
    })
    .optional(),
  canonicalizedBody: Base64,
});
export type TlogEntry = z.infer<typeof TlogEntry>;

/** What an entry of kind dsse says. */
const Body = z.object({
  kind: z.literal('dsse'),
  apiVersion: z.literal('0.0.1'),
  spec: z.object({
    payloadHash: z.object({ algorithm: z.literal('sha256'), value: z.string() }),
    signatures: z.array(z.object({ signature: z.string(), verifier: z.string() })).length(1),
  }),
});
export interface EntryResult {
  readonly problem: string | null;
  /** When it was taken into the log, ms since 1970, as the log signed it; null: nobody vouches for it. */
  readonly time: number | null;
  readonly notes: readonly string[];
}

const hex = (base64: string): string => Buffer.from(base64, 'base64').toString('hex');
const idOf = ({ key }: TrustedKey): string => sha256(key.export({ type: 'spki', format: 'der' }));
function holds(body: string, signature: Uint8Array, { key }: TrustedKey): boolean {
  try {
    return verify(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', Buffer.from(body), key, signature);
  } catch {
    return false;
  }
}

/** Why an entry is not about this envelope; null: it is. */
function aboutProblem(entry: TlogEntry, { payload, signature }: Envelope, leaf: X509Certificate): string | null {
  let body: unknown;
  try {
    body = parseJson(Buffer.from(entry.canonicalizedBody, 'base64').toString('utf8'));
  } catch {
    return 'its entry in the log cannot be read';
  }
  const parsed = Body.safeParse(body);
  if (!parsed.success) return 'its entry in the log is of another kind than dsse 0.0.1';
  const { payloadHash, signatures } = parsed.data.spec;
  const [one] = signatures;
  if (payloadHash.value !== sha256(payload) || hex(one?.signature ?? '') !== signature.toString('hex'))
    return 'its entry in the log is about something else';
  const pem = Buffer.from(one?.verifier ?? '', 'base64').toString('utf8');
  return pem.trim() === leaf.toString().trim() ? null : 'its entry in the log is of another certificate';
}

/** @param log the key of the log; null: it is not at hand */
function inclusionProblem(
  { inclusionProof: proof, canonicalizedBody }: TlogEntry,
  log: TrustedKey | null,
): string | null {
  if (!proof) return 'its entry has no proof that it is in the log';
  const leaf = leafHash(Buffer.from(canonicalizedBody, 'base64'));
  const root = hex(proof.rootHash);
  if (!isIncluded(leaf, proof.logIndex, proof.treeSize, proof.hashes.map(hex), root))
    return 'its entry is not in the log that its proof names';
  const note = proof.checkpoint.envelope,
    end = note.indexOf('\n\n');
  const body = note.slice(0, end + 1);
  const [, size, rootLine] = body.split('\n');
  if (end < 0 || size !== String(proof.treeSize) || hex(rootLine ?? '') !== root)
    return "its proof is of another tree than the log's checkpoint";
  if (!log) return null;
  const named = Buffer.from(idOf(log), 'hex').subarray(0, 4);
  const origin = body.split(/[ \n]/, 1)[0];
  const [, by, text = ''] = /^— (\S+) (\S+)\n$/.exec(note.slice(end + 2)) ?? [];
  const bytes = Buffer.from(text, 'base64');
  const signed =
    by === origin &&
    bytes.toString('base64') === text &&
    bytes.subarray(0, 4).equals(named) &&
    holds(body, bytes.subarray(4), log);
  return signed ? null : "the log's checkpoint is not signed by its key";
}

/** @param entries at least one; the first is looked at */
export function checkEntry(
  entries: readonly TlogEntry[],
  envelope: Envelope,
  leaf: X509Certificate,
  { keys }: Trust,
): EntryResult {
  const [entry] = entries;
  const result = (problem: string | null, time: number | null = null, notes: readonly string[] = []): EntryResult => ({
    problem,
    time,
    notes,
  });
  if (!entry) return result('it has no entry in a log');
  const about = aboutProblem(entry, envelope, leaf);
  if (about !== null) return result(about);
  const id = hex(entry.logId.keyId);
  const log = keys.find((k) => idOf(k) === id) ?? null;
  const inclusion = inclusionProblem(entry, log);
  if (inclusion !== null) return result(inclusion);
  if (!log) return result(null, null, ['no key of the log was given: that it signed this entry, and when, is open']);
  const promise = Buffer.from(entry.inclusionPromise?.signedEntryTimestamp ?? '', 'base64');
  const promised = canonicalJson({
    body: entry.canonicalizedBody,
    integratedTime: entry.integratedTime ?? 0,
    logID: id,
    logIndex: entry.logIndex,
  });
  if (!holds(promised, promise, log)) return result('the time of its entry is not signed by the log');
  return result(null, (entry.integratedTime ?? 0) * 1000);
}

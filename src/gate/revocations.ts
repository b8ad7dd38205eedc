// The list of adapters that may no longer be used: signed, numbered, only ever longer. A list that its key did not sign
// is no list; one with a lower number than was seen before is an old one that somebody put back.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { cacheFolder } from '../base/cache.js';
import { sha256 } from '../base/digest.js';
import { ConfigError, IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { readInput } from '../base/inputs.js';
import { decodeJson, readJsonFile } from '../base/json-file.js';
import { lockFolder } from '../base/lock.js';
import { NamedDigest } from '../runs/named-digest.js';
import { canonicalJson, type Json } from '../verdict-log/canonical.js';
import { Envelope, keyId, seal, unseal } from '../verdict-log/dsse.js';
import type { Signer, Verifier } from '../verdict-log/keys.js';

const TYPE = 'application/vnd.temper.revocations+json';
const MOST = 100_000;
const MOST_REASON = 2000;

const Entry = z.strictObject({
  /** Of an adapter: as /v1/models, a gate's decision or temper.json say it. */
  digest: NamedDigest,
  reason: z.string().min(1).max(MOST_REASON),
  time: z.iso.datetime(),
});
const List = z.strictObject({
  schema: z.literal('temper-revocations/1'),
  /** One more with each change. */
  sequence: z.int().min(1),
  time: z.iso.datetime(),
  revoked: z.array(Entry).max(MOST),
});
export type Revocation = z.infer<typeof Entry>;
export interface Revocations {
  readonly sequence: number;
  readonly revoked: readonly Revocation[];
  /** sha256 of what is signed, hex. */
  readonly digest: string;
}

const refused = (file: string, what: string): IntegrityError =>
  new IntegrityError('revocation_list', `${file}: ${what}; bring back the list that was signed last`, { file });

/** @throws {IntegrityError} revocation_list: not there, damaged, not signed by this key */
export function readRevocations(file: string, verifier: Verifier): Revocations {
  const bad = (what: string): IntegrityError => refused(file, what);
  const value = readJsonFile(file, 'record', {
    next: 'make one with `temper gate revoke`',
    missing: (message) => new IntegrityError('revocation_list', message, { file }),
    bad,
  });
  const envelope = Envelope.safeParse(value);
  if (!envelope.success) throw bad('is no signed list');
  const payload = unseal(envelope.data, TYPE, verifier);
  if (payload === null) throw bad('is not signed by the key that was given');
  let list: unknown;
  try {
    list = decodeJson(payload);
  } catch {
    list = null;
  }
  const parsed = List.safeParse(list);
  if (!parsed.success) throw bad('is signed, and holds no list of revocations that this version can read');
  const { sequence, revoked } = parsed.data;
  return { sequence, revoked, digest: sha256(payload) };
}

/**
 * Adds one and signs anew; a digest that stands there already gets the new reason.
 * @throws {IntegrityError} as readRevocations · {ConfigError} bad_option: too many, too long a reason, somebody else
 * writes to it
 */
export function revoke(file: string, signer: Signer, entry: Revocation): Revocations {
  if (entry.reason.length > MOST_REASON)
    throw new ConfigError('bad_option', `the reason has ${entry.reason.length} characters, at most ${MOST_REASON}`);
  // Two at once would both sign the next number, and one of the adapters would be on no list.
  using _lock = lockFolder(
    file,
    ({ who }) => new ConfigError('bad_option', `${file}: ${who} revokes on this list; do it again when it is done`),
  );
  const before = existsSync(file) ? readRevocations(file, signer) : null;
  const revoked = [...(before?.revoked ?? []).filter((r) => r.digest !== entry.digest), entry];
  if (revoked.length > MOST)
    throw new ConfigError(
      'bad_option',
      `${file}: holds ${MOST} revocations, the most there may be; begin another list`,
    );
  const list = List.parse({
    schema: 'temper-revocations/1',
    sequence: (before?.sequence ?? 0) + 1,
    time: entry.time,
    revoked,
  });
  const payload = Buffer.from(canonicalJson(list as unknown as Json));
  writeFileAtomic(file, `${JSON.stringify(seal(TYPE, payload, signer), null, 2)}\n`);
  return { sequence: list.sequence, revoked, digest: sha256(payload) };
}

/** The last list of a key that was taken, on this machine: what an older one is told by. */
export interface SeenLists {
  get(key: string): Pick<Revocations, 'sequence' | 'digest'> | null;
  set(key: string, seen: Pick<Revocations, 'sequence' | 'digest'>): void;
}
const Seen = z.object({ sequence: z.int().min(1), digest: z.string() });
/** Kept in the user's cache; where there is none, for as long as the process lives. */
export function seenLists(folder: string | null = cacheFolder('revocations')): SeenLists {
  const here = new Map<string, Pick<Revocations, 'sequence' | 'digest'>>();
  return {
    get(key) {
      if (here.has(key) || folder === null) return here.get(key) ?? null;
      try {
        return Seen.parse(decodeJson(readInput(join(folder, `${key}.json`), 'record')));
      } catch {
        return null;
      }
    },
    set(key, { sequence, digest }) {
      here.set(key, { sequence, digest });
      if (folder === null) return;
      makeFolders(folder, 0o700);
      writeFileAtomic(join(folder, `${key}.json`), JSON.stringify({ sequence, digest }));
    },
  };
}

/**
 * Reads a list that must not be older than one that was taken before.
 * @throws {IntegrityError} as readRevocations; rolled back, or two lists of one number
 */
export function takeRevocations(file: string, verifier: Verifier, seen: SeenLists): Revocations {
  const list = readRevocations(file, verifier);
  const key = keyId(verifier),
    before = seen.get(key);
  if (before && list.sequence < before.sequence)
    throw refused(file, `is number ${list.sequence}, number ${before.sequence} was taken before: it was put back`);
  if (before && list.sequence === before.sequence && list.digest !== before.digest)
    throw refused(file, `is another list of the same number ${list.sequence}: its key signed two`);
  seen.set(key, list);
  return list;
}

/** Why an adapter is revoked, by any of its digests; null: it is not. */
export const revocationOf = (list: Revocations, digests: readonly string[]): Revocation | null =>
  list.revoked.find((r) => digests.includes(r.digest)) ?? null;

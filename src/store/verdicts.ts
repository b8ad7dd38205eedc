// Verdicts that are used again, where all that they depend on is the same by digest: text, channel, policy, judge and
// how it was asked. Each carries a MAC under a key that does not lie in the store, so that who may write to the store
// cannot make an allow, nor pass one text's verdict for another's.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import type { Store } from './store.js';

/** All that a verdict depends on, as digests and settings; the order of the fields does not matter. */
export type VerdictParts = Readonly<Record<string, string | number | boolean | null>>;
/** As it was judged. */
export interface KeptVerdict {
  readonly outcome: 'allow' | 'block';
  /** JSON of whoever judged. */
  readonly body: string;
}
export interface VerdictStore {
  /** In the order of the keys; null: not there, too old, or not by this key. @throws {StoreError} */
  get(keys: readonly string[]): Promise<readonly (KeptVerdict | null)[]>;
  /** All of them or none; an unjudged text is none. @throws {StoreError} */
  put(entries: readonly (KeptVerdict & { readonly key: string })[]): Promise<void>;
  /** Those that are over. @returns how many went */
  sweep(): Promise<number>;
}
export interface VerdictStoreOptions {
  /** Of at least 16 bytes, the same for all that share the verdicts. */
  readonly secret: Uint8Array;
  /** How long an allow counts, ms; default 7 days. A block counts for 90: a wrong one costs less. */
  readonly allowMs?: number | undefined;
  readonly blockMs?: number | undefined;
  /** For tests. */
  readonly now?: (() => number) | undefined;
}
const DAY_MS = 24 * 3600 * 1000;
/** Asked for, or written, at once: databases bound the parameters of a statement. */
const AT_ONCE = 100;

/** Names a verdict by what it depends on: no two sets of parts have one name. */
export const verdictKey = (parts: VerdictParts): string =>
  sha256(JSON.stringify(Object.entries(parts).sort(([a], [b]) => (a < b ? -1 : 1))));

/** @throws {ConfigError} bad_keys: a secret that can be guessed */
export function createVerdictStore(store: Store, options: VerdictStoreOptions): VerdictStore {
  const { secret, allowMs = 7 * DAY_MS, blockMs = 90 * DAY_MS, now = Date.now } = options;
  if (secret.length < 16) throw new ConfigError('bad_keys', 'the secret of kept verdicts has fewer than 16 bytes');
  const macOf = (key: string, outcome: string, body: string, expires: number): string =>
    createHmac('sha256', secret)
      .update(JSON.stringify(['verdict', key, outcome, body, expires]))
      .digest('hex');
  const isOwn = (mac: string, own: string): boolean =>
    mac.length === own.length && timingSafeEqual(Buffer.from(mac), Buffer.from(own));
  return {
    async get(keys) {
      const found = new Map<string, KeptVerdict>();
      for (let at = 0; at < keys.length; at += AT_ONCE) {
        const rows = await store.read((db) =>
          db
            .selectFrom('verdicts')
            .selectAll()
            .where('key', 'in', keys.slice(at, at + AT_ONCE))
            .where('expires_at', '>', now())
            .execute(),
        );
        for (const { key, outcome, body, mac, expires_at } of rows)
          if ((outcome === 'allow' || outcome === 'block') && isOwn(mac, macOf(key, outcome, body, expires_at)))
            found.set(key, { outcome, body });
      }
      return keys.map((key) => found.get(key) ?? null);
    },
    async put(entries) {
      const at = now();
      // The last one of a key counts.
      const rows = [...new Map(entries.map((e) => [e.key, e])).values()].map(({ key, outcome, body }) => {
        const expires_at = at + (outcome === 'allow' ? allowMs : blockMs);
        return { key, outcome, body, at, expires_at, mac: macOf(key, outcome, body, expires_at) };
      });
      await store.change(async (db) => {
        for (let i = 0; i < rows.length; i += AT_ONCE)
          await db
            .insertInto('verdicts')
            .values(rows.slice(i, i + AT_ONCE))
            .onConflict((c) =>
              c.column('key').doUpdateSet((e) => ({
                outcome: e.ref('excluded.outcome'),
                body: e.ref('excluded.body'),
                mac: e.ref('excluded.mac'),
                at: e.ref('excluded.at'),
                expires_at: e.ref('excluded.expires_at'),
              })),
            )
            .execute();
      });
    },
    async sweep() {
      const gone = await store.change((db) =>
        db.deleteFrom('verdicts').where('expires_at', '<=', now()).executeTakeFirst(),
      );
      return Number(gone.numDeletedRows);
    },
  };
}

// Who is signed in to the review console, on any of the servers. The store holds digests of tokens: who reads it cannot
// sign in by it. A session ends with its time, with idleness, with signing out, and with its key.
import { randomBytes } from 'node:crypto';
import { sha256 } from '../base/digest.js';
import type { Store } from './store.js';

export interface Session {
  /** Of the reviewer's key. */
  readonly name: string;
  /** What a page must send with whatever it changes. */
  readonly csrf: string;
}
export interface Sessions {
  /** @param key what the reviewer signed in by, as a digest */
  begin(name: string, key: string): Promise<Session & { readonly token: string }>;
  /** @param isKey whether that name still has that key. null: none, or over */
  find(token: string, isKey: (name: string, key: string) => boolean): Promise<Session | null>;
  end(token: string): Promise<void>;
}
export const IDLE_MS = 30 * 60 * 1000;
export const LONGEST_MS = 12 * 3600 * 1000;
/** How often a session's last use is noted. */
const NOTE_MS = 60_000;

/** @param now for tests */
export function createSessions(store: Store, now: () => number = Date.now): Sessions {
  return {
    async begin(name, key) {
      const token = randomBytes(32).toString('base64url'),
        csrf = randomBytes(32).toString('base64url');
      const at = now();
      await store.change(async (db) => {
        await db
          .deleteFrom('review_sessions')
          .where((e) => e.or([e('seen_at', '<', at - IDLE_MS), e('began_at', '<', at - LONGEST_MS)]))
          .execute();
        await db
          .insertInto('review_sessions')
          .values({ token_sha256: sha256(token), name, key_sha256: key, csrf, began_at: at, seen_at: at })
          .execute();
      });
      return { name, csrf, token };
    },
    async find(token, isKey) {
      const at = now(),
        id = sha256(token);
      const row = await store.read((db) =>
        db.selectFrom('review_sessions').selectAll().where('token_sha256', '=', id).executeTakeFirst(),
      );
      if (!row || row.seen_at < at - IDLE_MS || row.began_at < at - LONGEST_MS || !isKey(row.name, row.key_sha256))
        return null;
      if (at - row.seen_at > NOTE_MS)
        await store.change((db) =>
          db.updateTable('review_sessions').set({ seen_at: at }).where('token_sha256', '=', id).execute(),
        );
      return { name: row.name, csrf: row.csrf };
    },
    async end(token) {
      await store.change((db) => db.deleteFrom('review_sessions').where('token_sha256', '=', sha256(token)).execute());
    },
  };
}

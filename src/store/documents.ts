// Texts that are kept for a time, bounded in number and bytes, the oldest go first: answers that a later request may go
// on from. Each is whole or absent, and what was said to be kept is there after any death.
import { sql } from 'kysely';
import type { Store } from './store.js';
import { storable } from './text.js';

export interface DocumentLimits {
  readonly entries: number;
  /** Of all bodies together, in UTF-8. */
  readonly bytes: number;
  /** How long one is kept, ms. */
  readonly keepMs: number;
}
export interface Documents {
  /** One that is larger than all may be together is not kept. @throws {StoreError} */
  put(id: string, owner: string | null, body: string): Promise<void>;
  /** null: not there, no longer, or another owner's. @throws {StoreError} */
  get(id: string, owner: string | null): Promise<string | null>;
  /**
   * In place of one that is there: its place among the others and its time stay.
   * @param was only if it says that · @returns whether it was done · @throws {StoreError}
   */
  replace(id: string, owner: string | null, body: string, was?: string): Promise<boolean>;
  /** Of an owner, those that begin so, the oldest first. @param prefix of letters and - @throws {StoreError} */
  ids(owner: string | null, prefix: string): Promise<readonly string[]>;
  /** @returns whether it was there. @throws {StoreError} */
  delete(id: string, owner: string | null): Promise<boolean>;
}
/** Servers that keep at the same moment must see each other's bytes. Any number that nobody else takes. */
const LOCK = 7_236_401;
/** Looked at at once, from the oldest on. */
const AT_ONCE = 100;

/** @param now for tests */
export function createDocuments(store: Store, limits: DocumentLimits, now: () => number = Date.now): Documents {
  const expired = async (id: string, owner: string | null): Promise<boolean> => (await get(id, owner)) === null;
  const get = async (id: string, owner: string | null): Promise<string | null> => {
    const row = await store.read((db) =>
      db
        .selectFrom('documents')
        .select(['body', 'owner'])
        .where('id', '=', storable(id))
        .where('expires_at', '>', now())
        .executeTakeFirst(),
    );
    return row && row.owner === owner ? row.body : null;
  };
  return {
    async put(id, owner, body) {
      const bytes = Buffer.byteLength(body);
      if (bytes > limits.bytes) return;
      const at = now();
      await store.change(async (db) => {
        if (store.kind === 'postgres') await sql`select pg_advisory_xact_lock(${sql.lit(LOCK)})`.execute(db);
        await db.deleteFrom('documents').where('id', '=', id).execute();
        await db.deleteFrom('documents').where('expires_at', '<=', at).execute();
        const kept = await db
          .selectFrom('documents')
          .select((e) => [e.fn.countAll<number>().as('n'), sql<number>`coalesce(sum(bytes), 0)`.as('bytes')])
          .executeTakeFirstOrThrow();
        let [entries, sum] = [Number(kept.n), Number(kept.bytes)];
        while (entries > 0 && (entries >= limits.entries || sum + bytes > limits.bytes)) {
          const oldest = await db
            .selectFrom('documents')
            .select(['id', 'bytes'])
            .orderBy('at')
            .orderBy('id')
            .limit(AT_ONCE)
            .execute();
          const go: string[] = [];
          for (const o of oldest) {
            if (entries < limits.entries && sum + bytes <= limits.bytes) break;
            go.push(o.id);
            entries--;
            sum -= o.bytes;
          }
          await db.deleteFrom('documents').where('id', 'in', go).execute();
        }
        await db
          .insertInto('documents')
          .values({ id, owner, body, bytes, at, expires_at: at + limits.keepMs })
          .execute();
      });
    },
    get,
    async replace(id, owner, body, was) {
      const bytes = Buffer.byteLength(body);
      const done = await store.change((db) => {
        const one = db
          .updateTable('documents')
          .set({ body, bytes })
          .where('id', '=', id)
          .where('owner', owner === null ? 'is' : '=', owner)
          .where('expires_at', '>', now());
        return (was === undefined ? one : one.where('body', '=', was)).executeTakeFirst();
      });
      return done.numUpdatedRows > 0n;
    },
    async ids(owner, prefix) {
      const rows = await store.read((db) =>
        db
          .selectFrom('documents')
          .select('id')
          .where('id', 'like', `${prefix}%`)
          .where('owner', owner === null ? 'is' : '=', owner)
          .where('expires_at', '>', now())
          .orderBy('at')
          .orderBy('id')
          .execute(),
      );
      return rows.map((r) => r.id);
    },
    async delete(id, owner) {
      if (await expired(id, owner)) return false;
      const gone = await store.change((db) => db.deleteFrom('documents').where('id', '=', id).executeTakeFirst());
      return gone.numDeletedRows > 0n;
    },
  };
}

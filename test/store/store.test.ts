// Both databases: brought up to date by whoever comes first, whole after everything, and what they refuse is one line.
import { mkdirSync, mkdtempSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { describe, expect, it } from 'vitest';
import { storePlace } from '../../src/store/place.js';
import { openStore, type Store } from '../../src/store/store.js';
import { onEachStore, WITHOUT_SQLITE } from './places.js';
import { startPostgres, WITHOUT_POSTGRES } from './postgres.js';

const put = (store: Store, id: string, bytes = 1): Promise<unknown> =>
  store.change((db) =>
    db
      .insertInto('documents')
      .values({ id, owner: null, body: 'x', bytes, at: 1, expires_at: 2 ** 52 })
      .execute(),
  );
const ids = async (store: Store): Promise<readonly string[]> =>
  (await store.read((db) => db.selectFrom('documents').select('id').orderBy('id').execute())).map((r) => r.id);

onEachStore((place) => {
  it('opens from several servers at once, each of which finds all tables', async () => {
    const where = await place.fresh();
    const stores = await Promise.all(Array.from({ length: 4 }, () => openStore(where)));
    await Promise.all(stores.map((s, i) => put(s, `d${i}`)));
    for (const s of stores) expect(await ids(s)).toEqual(['d0', 'd1', 'd2', 'd3']);
    const steps = await (stores[0] as Store).read((db) => sql`select name from temper_migrations`.execute(db));
    expect(steps.rows).toHaveLength(1);
    await Promise.all(stores.map((s) => s.close()));
    const again = await openStore(where);
    expect(await ids(again)).toHaveLength(4);
    await again.close();
  });
  it('does all of a change or nothing, and the next one after a fault works', async () => {
    const store = await openStore(await place.fresh());
    await put(store, 'a');
    await expect(
      store.change(async (db) => {
        await db.deleteFrom('documents').execute();
        throw new TypeError('a fault of the program');
      }),
    ).rejects.toThrow(TypeError);
    await expect(put(store, 'a')).rejects.toMatchObject({ code: 'store_failed', exitCode: 30 });
    await put(store, 'b');
    expect(await ids(store)).toEqual(['a', 'b']);
    await store.close();
  });
  it('holds times, and 5 GB of them together, as numbers', async () => {
    const store = await openStore(await place.fresh());
    await put(store, 'a', 2_500_000_000);
    await put(store, 'b', 2_500_000_000);
    const row = await store.read((db) =>
      db.selectFrom('documents').select('expires_at').where('id', '=', 'a').executeTakeFirstOrThrow(),
    );
    expect(row.expires_at).toBe(2 ** 52);
    await store.close();
  });
  it('refuses one that a newer Temper has changed', async () => {
    const where = await place.fresh();
    const store = await openStore(where);
    await store.change((db) => sql`insert into temper_migrations values ('9999-1', 'then')`.execute(db));
    await store.close();
    await expect(openStore(where)).rejects.toMatchObject({ code: 'store_newer', exitCode: 2 });
  });
});

describe.skipIf(WITHOUT_POSTGRES !== null)('PostgreSQL that dies', () => {
  it('is a refusal of one line, ends nobody, and works again when it is back', async () => {
    const server = await startPostgres();
    const told: string[] = [];
    const store = await openStore(await server.database(), { log: (line) => told.push(line) });
    await put(store, 'a');
    const slow = store.change(async (db) => {
      await db.deleteFrom('documents').execute();
      await server.kill();
      await db.selectFrom('documents').select('id').execute();
    });
    await expect(slow).rejects.toMatchObject({ code: 'store_failed' });
    await expect(put(store, 'b')).rejects.toMatchObject({ code: 'store_failed' });
    await server.start();
    await put(store, 'c');
    expect(await ids(store)).toEqual(['a', 'c']);
    await store.close();
    await server.close();
  });
});

describe('where a store is', () => {
  it('is a file or a URL, and no password is shown', async () => {
    expect(storePlace('a/b.db')).toEqual({ kind: 'sqlite', file: 'a/b.db', shown: 'a/b.db' });
    expect(storePlace('postgresql://u:secret@db.example:5433/t?sslmode=require').shown).toBe(
      'postgres://db.example:5433/t',
    );
    for (const bad of ['', 'mysql://u@h/d', 'postgres://[']) expect(() => storePlace(bad)).toThrow(/the store/);
    const gone = openStore('postgres://u:secret@localhost/t?host=/nonexistent');
    await expect(gone).rejects.toMatchObject({ code: 'store_failed' });
    await expect(gone).rejects.not.toThrow(/secret/);
  });
  it.skipIf(WITHOUT_SQLITE !== null)(
    'is refused by name where it is no database, and is its owner’s alone',
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'temper-store-'));
      writeFileSync(
        join(folder, 'text'),
        'These are not the bytes of a database, but a text that is long enough.'.repeat(20),
      );
      mkdirSync(join(folder, 'dir'));
      for (const name of ['text', 'dir'])
        await expect(openStore(join(folder, name))).rejects.toMatchObject({ code: 'bad_store' });
      await expect(openStore(join(folder, 'none.db'), { existing: true })).rejects.toMatchObject({ code: 'bad_store' });
      const store = await openStore(join(folder, 'new', 'store.db'));
      expect(statSync(join(folder, 'new', 'store.db')).mode & 0o777).toBe(0o600);
      expect(statSync(join(folder, 'new')).mode & 0o777).toBe(0o700);
      await store.close();
      await expect(ids(store)).rejects.toThrow();
    },
  );
});

// What outlives a server and is shared by several: reviews, kept answers, verdicts that may be used again. One file of
// SQLite for one machine, PostgreSQL for several; both hold the same tables, brought up to date when they are opened.
import { existsSync } from 'node:fs';
import type { Kysely, Transaction } from 'kysely';
import { ConfigError, StoreError, TemperError } from '../base/errors.js';
import { MIGRATIONS } from './migrations.js';
import { storePlace } from './place.js';
import type { Tables } from './tables.js';

export interface Store {
  readonly kind: 'sqlite' | 'postgres';
  /** Where it is, without a password. */
  readonly shown: string;
  /** Who speaks to it: pg, better-sqlite3, node:sqlite. */
  readonly driver: string;
  /** @throws {StoreError} store_failed, store_busy: whatever the database refuses */
  read<T>(work: (db: Kysely<Tables>) => Promise<T>): Promise<T>;
  /** All of it or nothing; rows that it locks nobody else changes meanwhile. @throws as `read` */
  change<T>(work: (db: Transaction<Tables>) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}
export interface StoreOptions {
  /** A file that is not there is refused, not made. */
  readonly existing?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told of faults that nobody waits for, one line each. */
  readonly log?: ((line: string) => void) | undefined;
}

/** What a database, or the way to it, refuses; a fault of the program stays what it is. */
function asStoreError(e: unknown, shown: string): unknown {
  if (!(e instanceof Error) || e instanceof TemperError || e.name === 'AbortError') return e;
  if (e instanceof TypeError || e instanceof RangeError || e instanceof ReferenceError) return e;
  const first: unknown = e instanceof AggregateError ? e.errors[0] : e;
  const why = first instanceof Error ? first.message : e.message;
  const code = 'code' in e && e.code !== undefined ? ` (${String(e.code)})` : '';
  return new StoreError('store_failed', `${shown}: the store refuses: ${why}${code}`, {}, { cause: e });
}

async function migrate(db: Kysely<Tables>, shown: string): Promise<void> {
  const { Migrator } = await import('kysely');
  const migrator = new Migrator({
    db,
    provider: { getMigrations: async () => ({ ...MIGRATIONS }) },
    migrationTableName: 'temper_migrations',
    migrationLockTableName: 'temper_migrations_lock',
  });
  const { error } = await migrator.migrateToLatest();
  if (error === undefined) return;
  if (error instanceof Error && /corrupted migrations/.test(error.message))
    throw new ConfigError(
      'store_newer',
      `${shown}: the store has tables of another version of Temper (${error.message}); use the newest that opened it`,
    );
  throw error;
}

/**
 * @param where a file, or postgres://USER@HOST/DATABASE; a password may stand in it, in PGPASSWORD or in ~/.pgpass
 * @throws {ConfigError} bad_store, sqlite_missing, store_newer, output_unwritable · {StoreError} store_failed,
 * store_busy
 */
export async function openStore(
  where: string,
  { existing = false, signal, log = () => {} }: StoreOptions = {},
): Promise<Store> {
  signal?.throwIfAborted();
  const place = storePlace(where);
  const { shown, kind } = place;
  if (existing && place.kind === 'sqlite' && !existsSync(place.file))
    throw new ConfigError('bad_store', `${shown}: the store is not there; give the one that temper serve has`);
  let dialect: ConstructorParameters<typeof Kysely>[0]['dialect'];
  let driver = 'pg';
  let closeThread = async (): Promise<void> => {};
  if (place.kind === 'sqlite') {
    const thread = await (await import('./sqlite.js')).openSqliteThread(place.file, signal);
    ({ dialect, driver, close: closeThread } = thread);
  } else dialect = await (await import('./postgres.js')).openPool(place.url, log);
  // Loaded where a store is opened: most processes that could open one never do.
  const { Kysely } = await import('kysely');
  const db = new Kysely<Tables>({ dialect });
  const close = async (): Promise<void> => {
    await db.destroy();
    await closeThread();
  };
  const wrapped = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (e) {
      throw asStoreError(e, shown);
    }
  };
  try {
    await wrapped(() => migrate(db, shown));
    signal?.throwIfAborted();
  } catch (e) {
    await close().catch(() => {});
    throw e;
  }
  return {
    kind,
    shown,
    driver,
    read: (work) => wrapped(() => work(db)),
    change: (work) => wrapped(() => db.transaction().execute(work)),
    close,
  };
}

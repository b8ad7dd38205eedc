// Kysely's dialect of SQLite over a thread (sqlite-worker.ts): one connection, taken in turns.
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type DialectAdapter,
  type Driver,
  type Kysely,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import { type Channel, openChannel } from '../base/channel.js';
import type { Sqlite, SqlResult } from './sqlite-engine.js';

export interface SqliteInfo {
  readonly driver: Sqlite['driver'];
}
export type SqliteCalls = {
  readonly query: {
    readonly request: { readonly sql: string; readonly parameters: readonly unknown[] };
    readonly event: never;
    readonly result: SqlResult;
  };
};

/** Tables are made inside a transaction, which keeps every other process out: that is the lock of migrations. */
class Adapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

class OneConnection implements Driver {
  #turn: Promise<void> = Promise.resolve();
  readonly #connection: DatabaseConnection;
  #next: () => void = () => {};
  constructor(channel: Channel<SqliteCalls, SqliteInfo>) {
    this.#connection = {
      async executeQuery<R>({ sql, parameters }: CompiledQuery) {
        const { rows, changes } = await channel.call('query', { sql, parameters });
        return { rows: rows as R[], numAffectedRows: BigInt(changes) };
      },
      // biome-ignore lint/correctness/useYield: the interface wants a generator, and nobody streams
      async *streamQuery() {
        throw new Error('this store streams no rows');
      },
    };
  }
  async init(): Promise<void> {}
  async acquireConnection(): Promise<DatabaseConnection> {
    const before = this.#turn;
    let done = (): void => {};
    this.#turn = new Promise((resolve) => {
      done = resolve;
    });
    await before;
    this.#next = done;
    return this.#connection;
  }
  async releaseConnection(): Promise<void> {
    this.#next();
  }
  /** Whoever writes later waits here, and not in the middle. */
  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('begin immediate'));
  }
  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('commit'));
  }
  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    // Where the disk was full, SQLite has done so already; what went wrong before is what is told.
    await connection.executeQuery(CompiledQuery.raw('rollback')).catch(() => {});
  }
  async destroy(): Promise<void> {}
}

export interface SqliteStore {
  readonly dialect: Dialect;
  readonly driver: Sqlite['driver'];
  close(): Promise<void>;
}
/** @throws what opening the file refuses (sqlite-engine.ts) */
export async function openSqliteThread(file: string, signal?: AbortSignal): Promise<SqliteStore> {
  const channel = await openChannel<SqliteCalls, SqliteInfo>(
    'store/sqlite-worker.js',
    { file },
    { name: 'store', signal },
  );
  return {
    dialect: {
      createDriver: () => new OneConnection(channel),
      createQueryCompiler: () => new SqliteQueryCompiler(),
      createAdapter: (): DialectAdapter => new Adapter(),
      createIntrospector: (db: Kysely<unknown>) => new SqliteIntrospector(db),
    },
    driver: channel.info.driver,
    close: () => channel.close(),
  };
}

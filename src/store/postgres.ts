// Kysely's dialect of PostgreSQL over a pool of connections.
import { type Dialect, PostgresDialect } from 'kysely';

/** int8: counts and times, which JavaScript's numbers hold. */
const INT8 = 20;
const CONNECTIONS = 10;
/** How long a connection, and a statement, may take, ms. */
const CONNECT_MS = 10_000;
const STATEMENT_MS = 15_000;

/** @param log told of connections that break between statements: the next one that is needed is a new one */
export async function openPool(url: string, log: (message: string) => void): Promise<Dialect> {
  const { default: pg } = await import('pg');
  const pool = new pg.Pool({
    connectionString: url,
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_MS,
    statement_timeout: STATEMENT_MS,
    // Whoever died in a transaction holds its rows no longer than that.
    idle_in_transaction_session_timeout: 2 * STATEMENT_MS,
    application_name: 'temper',
    types: {
      getTypeParser: ((oid: number, format?: 'text') =>
        oid === INT8 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
    },
  });
  const broke = (e: Error): void => log(`a connection of the store broke: ${e.message}`);
  pool.on('error', broke);
  // One that is in use breaks between two statements: the next one fails, and nobody else hears of it.
  pool.on('connect', (client) => client.on('error', broke));
  return new PostgresDialect({ pool });
}

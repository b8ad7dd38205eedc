// Entry of the thread that speaks to a file of SQLite: it waits for the disk, and nobody else does.
import { serve } from '../base/channel-worker.js';
import type { SqliteCalls, SqliteInfo } from './sqlite.js';

await serve<SqliteCalls, SqliteInfo, { readonly file: string }>(async ({ file }) => {
  const { openSqlite } = await import('./sqlite-engine.js');
  const sqlite = await openSqlite(file);
  return {
    info: { driver: sqlite.driver },
    handlers: { query: ({ sql, parameters }) => sqlite.query(sql, parameters) },
    close: () => sqlite.close(),
  };
});

// The same tests over each database: a file of SQLite, and PostgreSQL where it is here.
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe } from 'vitest';
import { type PostgresServer, startPostgres, WITHOUT_POSTGRES } from './postgres.js';

function withoutSqlite(): string | null {
  const require = createRequire(import.meta.url);
  for (const name of ['better-sqlite3', 'node:sqlite'])
    try {
      const found: unknown = require(name);
      if (name === 'better-sqlite3') new (found as new (file: string) => { close(): void })(':memory:').close();
      return null;
    } catch {
      // the next
    }
  return 'skipped, this Node has no SQLite (npm install better-sqlite3@12)';
}
export const WITHOUT_SQLITE = withoutSqlite();

export interface Place {
  readonly kind: 'sqlite' | 'postgres';
  /** Where a new, empty store may be. */
  fresh(): Promise<string>;
}
/** @param tests are declared once for each database */
export function onEachStore(tests: (place: Place) => void): void {
  describe.skipIf(WITHOUT_SQLITE !== null)(`SQLite${WITHOUT_SQLITE ? `: ${WITHOUT_SQLITE}` : ''}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'temper-store-'));
    let count = 0;
    tests({ kind: 'sqlite', fresh: async () => join(folder, `${++count}`, 'store.db') });
  });
  describe.skipIf(WITHOUT_POSTGRES !== null)(`PostgreSQL${WITHOUT_POSTGRES ? `: ${WITHOUT_POSTGRES}` : ''}`, () => {
    let server: PostgresServer;
    beforeAll(async () => {
      server = await startPostgres();
    });
    afterAll(() => server.close());
    tests({ kind: 'postgres', fresh: () => server.database() });
  });
}

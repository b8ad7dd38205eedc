// SQLite as better-sqlite3 has it where that is installed, else as Node has it (22.13 and newer). Both say the same to
// the thread that calls them.
import { closeSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError, StoreError, TemperError } from '../base/errors.js';
import { makeFolders } from '../base/folders.js';
import { asWriteError } from '../base/system-error.js';

export interface SqlResult {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  /** Rows that a statement changed. */
  readonly changes: number;
}
export interface Sqlite {
  /** Who speaks to the file. */
  readonly driver: 'better-sqlite3' | 'node:sqlite';
  /** @throws {StoreError} store_failed, store_busy */
  query(sql: string, parameters: readonly unknown[]): SqlResult;
  close(): void;
}

/** How long another process may hold the file before a statement is given up, ms. */
const BUSY_MS = 10_000;
/** Statements that stay prepared. */
const MOST_STATEMENTS = 200;

interface Statement {
  /** better-sqlite3: it has rows. */
  readonly reader?: boolean;
  all(...parameters: readonly unknown[]): Record<string, unknown>[];
  run(...parameters: readonly unknown[]): unknown;
}
interface Database {
  prepare(sql: string): Statement;
  exec(sql: string): unknown;
  close(): void;
}
type Open = (file: string) => Database;

const messageOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));
const codeOf = (e: unknown): string => (e instanceof Error && 'code' in e ? String(e.code) : '');
/** Of node:sqlite the number of SQLite's own code, of better-sqlite3 its name. */
const isBusy = (e: unknown): boolean =>
  /^SQLITE_(?:BUSY|LOCKED)/.test(codeOf(e)) ||
  [5, 6].includes(((e as { readonly errcode?: number }).errcode ?? 0) & 0xff);
const isNoDatabase = (e: unknown): boolean =>
  codeOf(e) === 'SQLITE_NOTADB' || codeOf(e) === 'SQLITE_CORRUPT' || /not a database|malformed/.test(messageOf(e));

/** null: it is not installed. @throws what its library says that does not load */
async function betterSqlite(): Promise<Open | null> {
  const name: string = 'better-sqlite3';
  try {
    const { default: Kind } = (await import(name)) as { default: new (file: string) => Database };
    // The native part is loaded by the first database.
    new Kind(':memory:').close();
    return (file) => new Kind(file);
  } catch (e) {
    if (codeOf(e) === 'ERR_MODULE_NOT_FOUND') return null;
    throw e;
  }
}
/** null: this Node has none. It is told of as an experiment once a process, on stderr: not here. */
async function nodeSqlite(): Promise<Open | null> {
  const name: string = 'node:sqlite';
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    const { DatabaseSync } = (await import(name)) as { DatabaseSync: new (file: string) => Database };
    return (file) => new DatabaseSync(file);
  } catch {
    return null;
  } finally {
    process.emitWarning = emitWarning;
  }
}
/** @throws {ConfigError} sqlite_missing */
async function find(): Promise<{ readonly driver: Sqlite['driver']; readonly open: Open }> {
  let unusable = '';
  try {
    const open = await betterSqlite();
    if (open) return { driver: 'better-sqlite3', open };
  } catch (e) {
    unusable = `better-sqlite3 does not load (${messageOf(e).split('\n', 1)[0]}); `;
  }
  const open = await nodeSqlite();
  if (open) return { driver: 'node:sqlite', open };
  throw new ConfigError(
    'sqlite_missing',
    `${unusable}Node ${process.versions.node} has no SQLite of its own; run \`npm install better-sqlite3@12\`, use ` +
      'Node 22.13 or newer, or give a store by its URL, postgres://USER@HOST/DATABASE',
  );
}

/** There, empty or a database, its owner's alone. @throws {ConfigError} bad_store, output_unwritable */
function prepareFile(file: string): void {
  try {
    makeFolders(dirname(file), 0o700);
    const found = statSync(file, { throwIfNoEntry: false });
    if (found && !found.isFile()) throw new ConfigError('bad_store', `${file}: the store is no file; name another one`);
    closeSync(openSync(file, 'a', 0o600));
  } catch (e) {
    throw asWriteError(e, file);
  }
}

const sleep = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
/** Others that start at the same time change the same file: whoever is refused asks again. */
function patiently<T>(work: () => T): T {
  for (const until = Date.now() + BUSY_MS; ; sleep(20))
    try {
      return work();
    } catch (e) {
      if (!isBusy(e) || Date.now() > until) throw e;
    }
}
function failure(e: unknown, file: string): unknown {
  if (e instanceof TemperError) return e;
  if (isNoDatabase(e))
    return new ConfigError('bad_store', `${file}: not a database of SQLite, or a damaged one (${messageOf(e)})`);
  if (isBusy(e))
    return new StoreError('store_busy', `${file}: another process has held the store for ${BUSY_MS / 1000} s`);
  return new StoreError('store_failed', `${file}: the store refuses: ${messageOf(e)}`);
}

/**
 * Opens a file, or makes it. What is committed is on the disk: a process or a machine that dies leaves it whole.
 * @throws {ConfigError} sqlite_missing, bad_store, output_unwritable · {StoreError} store_busy, store_failed
 */
export async function openSqlite(file: string): Promise<Sqlite> {
  const { driver, open } = await find();
  prepareFile(file);
  let database: Database;
  try {
    database = open(file);
    patiently(() => {
      database.exec(`pragma busy_timeout = ${BUSY_MS}`);
      if (database.prepare('pragma journal_mode').all()[0]?.journal_mode !== 'wal')
        database.exec('pragma journal_mode = wal');
      // What is deleted is overwritten: among it are texts that nobody was to see.
      database.exec('pragma synchronous = full; pragma foreign_keys = on; pragma secure_delete = on');
    });
  } catch (e) {
    throw failure(e, file);
  }
  const prepared = new Map<string, Statement>();
  const statement = (sql: string): Statement => {
    const made = prepared.get(sql) ?? database.prepare(sql);
    prepared.delete(sql);
    prepared.set(sql, made);
    if (prepared.size > MOST_STATEMENTS) prepared.delete(prepared.keys().next().value as string);
    return made;
  };
  return {
    driver,
    query(sql, parameters) {
      try {
        const s = statement(sql);
        if (s.reader === false) s.run(...parameters);
        const rows = s.reader === false ? [] : s.all(...parameters).map((row) => ({ ...row }));
        return { rows, changes: Number(statement('select changes() as n').all()[0]?.n ?? 0) };
      } catch (e) {
        throw failure(e, file);
      }
    },
    close: () => database.close(),
  };
}

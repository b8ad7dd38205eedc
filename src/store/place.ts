// Where a store is: a file of SQLite, or a database of PostgreSQL by its URL, of which no password is ever shown.
import { ConfigError } from '../base/errors.js';

export type StorePlace =
  | { readonly kind: 'sqlite'; readonly file: string; readonly shown: string }
  | { readonly kind: 'postgres'; readonly url: string; readonly shown: string };

/** Several servers may share it, whatever machine each is on. */
export const isPostgres = (given: string): boolean => /^postgres(?:ql)?:\/\//i.test(given);

/** @throws {ConfigError} bad_store: another protocol, or a URL that is none */
export function storePlace(given: string): StorePlace {
  if (isPostgres(given)) {
    let url: URL;
    try {
      url = new URL(given);
    } catch {
      throw new ConfigError('bad_store', 'the store is no URL; wanted postgres://USER@HOST/DATABASE');
    }
    const host = url.host || url.searchParams.get('host') || 'localhost';
    return { kind: 'postgres', url: given, shown: `postgres://${host}${url.pathname}` };
  }
  const protocol = /^([a-z][a-z0-9+.-]+):\/\//i.exec(given)?.[1];
  if (protocol !== undefined || given.trim() === '')
    throw new ConfigError(
      'bad_store',
      `the store ${protocol === undefined ? 'is empty' : `has the protocol ${protocol}`}; wanted a file, or ` +
        'postgres://USER@HOST/DATABASE',
    );
  return { kind: 'sqlite', file: given, shown: given };
}

// Whom a server knows, and by what others know it: keys and certificates, as options and files give them.
import { createSecureContext } from 'node:tls';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import type { Screen } from '../safeguard/screen.js';
import { type ApiKeys, apiKeys, type KeyEntry, keyDigest, readKeyFile } from './keys.js';
import type { ServeOptions } from './server.js';

/** null: there are none. @throws {ConfigError} bad_keys */
function entriesOf(given: readonly KeyEntry[] | undefined, file: string | undefined): readonly KeyEntry[] | null {
  if (given === undefined && file === undefined) return null;
  const entries = [...(given ?? []), ...(file === undefined ? [] : readKeyFile(file))];
  const twice = entries.find((k, i) => entries.findIndex((other) => other.name === k.name) !== i);
  if (twice) throw new ConfigError('bad_keys', `the key ${JSON.stringify(twice.name)} is given twice`);
  const owners = new Map<string, string>();
  for (const { name, key } of entries) {
    const digest = keyDigest(key),
      other = owners.get(digest);
    // Nobody could tell which of them asks.
    if (other !== undefined)
      throw new ConfigError(
        'bad_keys',
        `${JSON.stringify(other)} and ${JSON.stringify(name)} have one key; give each one of its own`,
      );
    owners.set(digest, name);
  }
  return entries;
}
/** @throws {ConfigError} bad_keys */
export function keysOf(given: readonly KeyEntry[] | undefined, file: string | undefined): ApiKeys | null {
  const entries = entriesOf(given, file);
  return entries && apiKeys(entries);
}
/**
 * @param screen null: no policy was given
 * @throws {ConfigError} bad_keys: a key whose answers are to pass a policy that is not there
 */
export function requirePolicies(keys: readonly KeyEntry[] = [], screen: Pick<Screen, 'policies'> | null): void {
  const names = (screen?.policies ?? []).map((p) => p.name);
  for (const { name, policies = [] } of keys) {
    const unknown = policies.find((p) => !names.includes(p));
    if (unknown !== undefined)
      throw new ConfigError(
        'bad_keys',
        `the key ${JSON.stringify(name)}: no policy is called ${JSON.stringify(unknown)}; ` +
          (names.length > 0 ? `there are ${names.join(', ')}` : 'there are none; add --policy FILE'),
      );
  }
}
/** @throws {ConfigError} bad_keys · bad_option: a console without a place for what it shows */
export function reviewersOf({ store, reviewKeys, reviewKeyFile }: ServeOptions): readonly KeyEntry[] | null {
  const entries = entriesOf(reviewKeys, reviewKeyFile);
  if (entries !== null && store === undefined)
    throw new ConfigError(
      'bad_option',
      'keys of reviewers without a store: there is nowhere to keep what is held; add --store FILE, or ' +
        '--store postgres://USER@HOST/DATABASE',
    );
  return entries;
}

/** Certificate and key, in PEM. */
export interface Pem {
  readonly cert: string;
  readonly key: string;
}
/** @param files of those @throws what reading refuses · {ConfigError} bad_option: they are no pair, or no PEM */
export function readTls(files: Pem): Pem {
  const pem = { cert: readInputText(files.cert, 'config'), key: readInputText(files.key, 'config') };
  try {
    // An empty text would stand for none: the server would begin, and answer nobody.
    if (pem.cert === '' || pem.key === '') throw new Error('one of them is empty');
    createSecureContext(pem);
  } catch (e) {
    const why = e instanceof Error ? e.message : String(e);
    throw new ConfigError(
      'bad_option',
      `${files.cert}, ${files.key}: no certificate and its private key in PEM (${why})`,
    );
  }
  return pem;
}

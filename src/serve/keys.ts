// Who may ask. A key stands in a file, one a line, `NAME KEY` or `NAME sha256:HEX`, or in the configuration, where it
// may have limits. What is kept in memory is hashes.
import { createHash, timingSafeEqual } from 'node:crypto';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';

/** What a key's owner may ask for; an absent field limits nothing. */
export interface KeyLimits {
  /** Names of the base and of adapters that it may use. */
  readonly models?: readonly string[] | undefined;
  /** Names of the policies that its answers must pass. Default: all of the server's. */
  readonly policies?: readonly string[] | undefined;
  /** It may use adapters that are candidates. Default: no. */
  readonly candidates?: boolean | undefined;
  readonly requestsPerMinute?: number | undefined;
  /** Read and written together. */
  readonly tokensPerMinute?: number | undefined;
  /** Requests at once. */
  readonly concurrent?: number | undefined;
  /** Most tokens of one answer. */
  readonly maxTokens?: number | undefined;
  /** Who waits with a higher one goes first. Default 0. */
  readonly priority?: number | undefined;
}
export interface ApiKey extends KeyLimits {
  readonly name: string;
}
/** As it is given: the key itself, or `sha256:` and its digest in hexadecimal. */
export interface KeyEntry extends ApiKey {
  readonly key: string;
}
export interface ApiKeys {
  /** null: no key that is known */
  find(key: string): ApiKey | null;
}
/** Whoever asks where no key is wanted. */
export const ANYBODY: ApiKey = { name: '', candidates: true };

/** What a request gives as its key, of header Authorization; undefined: nothing that could be one. */
export const bearerOf = (authorization: string | undefined): string | undefined =>
  /^Bearer (\S+)$/i.exec(authorization ?? '')?.[1];

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
/** sha256 of a key as it is given, hex. */
export const keyDigest = (key: string): string =>
  key.startsWith('sha256:') ? key.slice(7).toLowerCase() : hash(key).toString('hex');
/** Shorter ones can be guessed over a network. */
const MIN_KEY = 16;

/** What is wrong with a key as it is given; null: nothing. Never shows it. */
export function keyFault(key: string): string | null {
  if (key.startsWith('sha256:')) return /^sha256:[0-9a-f]{64}$/i.test(key) ? null : 'not 64 hexadecimal digits';
  if (!/^[!-~]*$/.test(key)) return 'a key with blanks or letters beyond ASCII, which no header carries';
  return key.length < MIN_KEY ? `a key of fewer than ${MIN_KEY} characters` : null;
}

/** @param entries whose keys have no fault, each name once */
export function apiKeys(entries: readonly KeyEntry[]): ApiKeys {
  const keys = entries.map(({ key, ...rest }) => ({ rest, hash: Buffer.from(keyDigest(key), 'hex') }));
  return {
    find(key) {
      const given = hash(key);
      // All of them are compared, whichever is right.
      let found: ApiKey | null = null;
      for (const k of keys) if (timingSafeEqual(k.hash, given)) found = k.rest;
      return found;
    },
  };
}

/** @throws {ConfigError} bad_keys: a line that is none; names the line and never shows the key */
export function readKeyFile(file: string): readonly KeyEntry[] {
  const keys: KeyEntry[] = [];
  for (const [i, line] of readInputText(file, 'config').split('\n').entries()) {
    if (line.trim() === '' || line.trimStart().startsWith('#')) continue;
    const bad = (why: string): ConfigError =>
      new ConfigError('bad_keys', `${file}:${i + 1}: ${why}; wanted NAME KEY, or NAME sha256:HEX`, {
        file,
        line: i + 1,
      });
    const [name, key, more] = line.trim().split(/\s+/);
    if (name === undefined || key === undefined || more !== undefined) throw bad('not two words');
    if (keys.some((k) => k.name === name)) throw bad('the name stands on an earlier line too');
    const fault = keyFault(key);
    if (fault !== null) throw bad(fault);
    keys.push({ name, key });
  }
  if (keys.length === 0) throw new ConfigError('bad_keys', `${file}: holds no key; wanted lines NAME KEY`, { file });
  return keys;
}

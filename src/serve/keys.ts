// Who may ask. A file holds one key a line, `NAME KEY` or `NAME sha256:HEX`; what is kept in memory is hashes.
import { createHash, timingSafeEqual } from 'node:crypto';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';

export interface ApiKeys {
  /** @returns the key's name; null: no key of the file */
  nameOf(key: string): string | null;
}

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
/** Shorter ones can be guessed over a network. */
const MIN_KEY = 16;

/** @throws {ConfigError} bad_keys: a line that is none; names the line and never shows the key */
export function readApiKeys(file: string): ApiKeys {
  const keys: { readonly name: string; readonly hash: Buffer }[] = [];
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
    const digest = /^sha256:([0-9a-f]{64})$/i.exec(key)?.[1];
    if (digest === undefined && (key.startsWith('sha256:') || key.length < MIN_KEY))
      throw bad(key.startsWith('sha256:') ? 'not 64 hexadecimal digits' : `a key of fewer than ${MIN_KEY} characters`);
    keys.push({ name, hash: digest === undefined ? hash(key) : Buffer.from(digest, 'hex') });
  }
  if (keys.length === 0) throw new ConfigError('bad_keys', `${file}: holds no key; wanted lines NAME KEY`, { file });
  return {
    nameOf(key) {
      const given = hash(key);
      // All of them are compared, whichever is right.
      let name: string | null = null;
      for (const k of keys) if (timingSafeEqual(k.hash, given)) name = k.name;
      return name;
    },
  };
}

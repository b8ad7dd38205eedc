// Ed25519 keys of a log, as PEM files; what holds a private one is never written over. A public key is also told as
// signed notes tell it (C2SP signed-note): NAME+HASH+KEY, on one line.
import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';
import { closeSync, fsyncSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { makeFolders } from '../base/folders.js';
import { readInputText } from '../base/inputs.js';
import { asReadError, asWriteError } from '../base/system-error.js';
import { syncPath } from '../base/temporary.js';

/** Kind of a key in signed notes: Ed25519. */
const ED25519 = Uint8Array.of(1);
const RAW = 32;

export interface Verifier {
  readonly key: KeyObject;
  /** 32 bytes. */
  readonly raw: Buffer;
}
export interface Signer extends Verifier {
  readonly private: KeyObject;
  /** Of a record's salt: the salt of one record tells nothing of another's. */
  salt(nonce: string): Buffer;
  /** 32 bytes for another purpose, which tell nothing of the key. */
  secret(purpose: string): Buffer;
}

const bad = (file: string, why: string): ConfigError =>
  new ConfigError('log_key', `${file}: ${why}; \`temper key new FILE\` makes a pair`, { file });
function readText(file: string): string {
  try {
    return readInputText(file, 'config');
  } catch (e) {
    throw asReadError(e, file, '`temper key new FILE` makes a pair', (message) => new ConfigError('log_key', message));
  }
}
const rawOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' }).subarray(-RAW);
/** Head of an Ed25519 key in SPKI form (RFC 8410). */
const SPKI = Buffer.from('302a300506032b6570032100', 'hex');
export const verifierOfRaw = (raw: Buffer): Verifier => ({
  key: createPublicKey({ key: Buffer.concat([SPKI, raw]), format: 'der', type: 'spki' }),
  raw,
});

function signerOf(privateKey: KeyObject): Signer {
  const seed = privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(-RAW);
  const content = Buffer.from(hkdfSync('sha256', seed, '', 'temper verdict log: digests of content', RAW));
  const key = createPublicKey(privateKey);
  return {
    key,
    raw: rawOf(key),
    private: privateKey,
    salt: (nonce) => createHmac('sha256', content).update(nonce).digest(),
    secret: (purpose) => Buffer.from(hkdfSync('sha256', seed, '', `temper: ${purpose}`, RAW)),
  };
}

/** @throws {ConfigError} log_key: not there, no Ed25519 private key in PEM */
export function readSigner(file: string): Signer {
  const text = readText(file);
  let key: KeyObject;
  try {
    key = createPrivateKey(text);
  } catch (e) {
    throw Object.assign(bad(file, 'holds no private key in PEM, or one with a passphrase'), { cause: e });
  }
  if (key.asymmetricKeyType !== 'ed25519') throw bad(file, `is a key of ${key.asymmetricKeyType}, wanted Ed25519`);
  return signerOf(key);
}
/** Others of this machine can read a private key. */
export const isOpenToOthers = (file: string): boolean =>
  process.platform !== 'win32' && ((statSync(file, { throwIfNoEntry: false })?.mode ?? 0) & 0o077) !== 0;

/**
 * A public key in PEM, or on one line as notes have it; of a private one its public half.
 * @throws {ConfigError} log_key
 */
export function readVerifier(file: string): Verifier {
  const text = readText(file);
  const line = parseVerifierLine(text.trim());
  if (line) return line.verifier;
  let key: KeyObject;
  try {
    key = createPublicKey(text);
  } catch (e) {
    throw Object.assign(bad(file, 'holds no public key in PEM'), { cause: e });
  }
  if (key.asymmetricKeyType !== 'ed25519') throw bad(file, `is a key of ${key.asymmetricKeyType}, wanted Ed25519`);
  return { key, raw: rawOf(key) };
}

/** The four bytes by which notes name a key. */
export const keyHash = (name: string, { raw }: Verifier): Buffer =>
  createHash('sha256').update(`${name}\n`).update(ED25519).update(raw).digest().subarray(0, 4);
export const verifierLine = (name: string, verifier: Verifier): string =>
  `${name}+${keyHash(name, verifier).toString('hex')}+${Buffer.concat([ED25519, verifier.raw]).toString('base64')}`;
export function parseVerifierLine(line: string): { readonly name: string; readonly verifier: Verifier } | null {
  const [, name = '', hash = '', key = ''] = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44}={0,2})$/.exec(line) ?? [];
  const bytes = Buffer.from(key, 'base64');
  if (bytes.length !== RAW + 1 || bytes[0] !== ED25519[0]) return null;
  const verifier = verifierOfRaw(bytes.subarray(1));
  return keyHash(name, verifier).toString('hex') === hash ? { name, verifier } : null;
}

/** A new file with exactly these permissions. @throws {ConfigError} path_exists, output_unwritable */
function writeNew(path: string, text: string, mode: number): void {
  let fd: number;
  try {
    fd = openSync(path, 'wx', mode);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'EEXIST')
      throw new ConfigError('path_exists', `${path}: is there already, and a key is never written over; give another`, {
        file: path,
      });
    throw asWriteError(e, path);
  }
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } catch (e) {
    rmSync(path, { force: true });
    throw asWriteError(e, path);
  } finally {
    closeSync(fd);
  }
}
export const publicFile = (file: string): string => `${file}.pub`;

/**
 * A pair: the private key at `file`, for its owner alone (0600), the public one at `file`.pub.
 * @throws {ConfigError} path_exists, output_unwritable; then neither was written
 */
export function writePair(file: string, privateKey: KeyObject): void {
  try {
    makeFolders(dirname(file));
  } catch (e) {
    throw asWriteError(e, file);
  }
  writeNew(file, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), 0o600);
  try {
    writeNew(publicFile(file), createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString(), 0o644);
  } catch (e) {
    rmSync(file, { force: true });
    throw e;
  }
  syncPath(dirname(file));
}
/** A new Ed25519 pair. @throws as writePair */
export function makeKey(file: string): Signer {
  const { privateKey } = generateKeyPairSync('ed25519');
  writePair(file, privateKey);
  return signerOf(privateKey);
}

// Keys that sign what is released, and those that a reader trusts: Ed25519 and the curves of ECDSA that the OpenSSF
// model-signing format knows, as PEM; certificates as PEM.
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import { asReadError } from '../base/system-error.js';
import { parseVerifierLine, writePair } from '../verdict-log/keys.js';
import { algorithmOf, keyKind } from './dsse.js';

export interface SigningKey {
  readonly private: KeyObject;
  /** SHA-256 of the public key's PEM text, hex: how a bundle names a key. */
  readonly hint: string;
  /** `Ed25519`, `ECDSA P-256`, … */
  readonly algorithm: string;
  /** The signer's certificate first, then those above it, DER; empty: a key without one. */
  readonly certificates: readonly Buffer[];
}
export interface TrustedKey {
  readonly key: KeyObject;
  readonly hint: string;
  /** The file it came from. */
  readonly from: string;
}
export interface Trust {
  readonly keys: readonly TrustedKey[];
  /** What a chain may end in. */
  readonly certificates: readonly X509Certificate[];
}
export const NO_TRUST: Trust = { keys: [], certificates: [] };

const bad = (file: string, why: string, cause?: unknown): ConfigError =>
  new ConfigError('sign_key', `${file}: ${why}; \`temper key new FILE\` makes a pair`, { file }, { cause });

/** SHA-256 of the PEM text, as the reference implementation of model signing has it. */
export const hintOf = (key: KeyObject): string => sha256(key.export({ type: 'spki', format: 'pem' }).toString());

const RAW = 32;
/** How an override names who signed it: SHA-256 of the bytes of an Ed25519 key, hex; null: a key of another kind. */
export const signerOf = (key: KeyObject): string | null =>
  key.asymmetricKeyType === 'ed25519' ? sha256(key.export({ type: 'spki', format: 'der' }).subarray(-RAW)) : null;

function read(file: string): string {
  try {
    return readInputText(file, 'config');
  } catch (e) {
    throw asReadError(e, file, '`temper key new FILE` makes a pair', (message) => new ConfigError('sign_key', message));
  }
}
const CERTIFICATES = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;
const PUBLIC_KEYS = /-----BEGIN PUBLIC KEY-----[\s\S]*?-----END PUBLIC KEY-----/g;

function certificatesIn(file: string, text: string): X509Certificate[] {
  return [...text.matchAll(CERTIFICATES)].map(([pem]) => {
    try {
      return new X509Certificate(pem);
    } catch (e) {
      throw bad(file, 'holds a certificate that cannot be read', e);
    }
  });
}

/**
 * @param certificates files with the signer's certificate and those above it, in that order
 * @throws {ConfigError} sign_key: not there, no private key in PEM, of another kind, no certificate of this key
 */
export function readSigningKey(file: string, certificates: readonly string[] = []): SigningKey {
  const text = read(file);
  let key: KeyObject;
  try {
    key = createPrivateKey(text);
  } catch (e) {
    throw bad(file, 'holds no private key in PEM, or one with a passphrase', e);
  }
  const algorithm = algorithmOf(key);
  if (!algorithm) throw bad(file, `is a key of ${keyKind(key)}, wanted Ed25519 or ECDSA on P-256, P-384 or P-521`);
  const chain = certificates.flatMap((name) => certificatesIn(name, read(name)));
  if (certificates.length > 0 && chain[0]?.checkPrivateKey(key) !== true)
    throw bad(certificates[0] ?? '', `its first certificate is not of the key in ${file}`);
  return {
    private: key,
    hint: hintOf(createPublicKey(key)),
    algorithm: algorithm.name,
    certificates: chain.map((c) => c.raw),
  };
}

/** @throws {ConfigError} sign_key */
function publicKey(file: string, pem: string): TrustedKey {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (e) {
    throw bad(file, 'holds no public key and no certificate in PEM', e);
  }
  if (!algorithmOf(key))
    throw bad(file, `is a key of ${keyKind(key)}, wanted Ed25519 or ECDSA on P-256, P-384 or P-521`);
  return { key, hint: hintOf(key), from: file };
}

/**
 * Who is trusted: files with public keys, certificates or both, in PEM; a key on one line, as notes have it; of a
 * private key its public half.
 * @throws {ConfigError} sign_key: a file is not there, or holds neither
 */
export function readTrust(files: readonly string[]): Trust {
  const keys: TrustedKey[] = [];
  const certificates: X509Certificate[] = [];
  for (const file of files) {
    const text = read(file);
    const line = parseVerifierLine(text.trim());
    if (line) {
      keys.push({ key: line.verifier.key, hint: hintOf(line.verifier.key), from: file });
      continue;
    }
    const own = certificatesIn(file, text);
    const pems = [...text.matchAll(PUBLIC_KEYS)].map(([pem]) => pem);
    certificates.push(...own);
    keys.push(...(own.length === 0 && pems.length === 0 ? [text] : pems).map((pem) => publicKey(file, pem)));
  }
  return { keys, certificates };
}

/** A new pair of ECDSA P-256, which every verifier of model signatures knows. @throws as writePair */
export function makeEcdsaKey(file: string): { readonly hint: string } {
  const { privateKey, publicKey: open } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writePair(file, privateKey);
  return { hint: hintOf(open) };
}

// DSSE: what is signed of a payload is its type, its length and its bytes (the pre-authentication encoding), so that
// nothing can be taken for another kind of thing. One signature by one key; the hash follows from the key.
import { type KeyObject, sign, verify } from 'node:crypto';

export const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

export interface Envelope {
  readonly payloadType: string;
  readonly payload: Buffer;
  readonly signature: Buffer;
  /** As it stands there; empty: none. It is a hint, no proof. */
  readonly keyid: string;
}

/** What is signed of a payload. */
export const preAuthentication = (type: string, payload: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `), payload]);

/** Digest that a key signs with, by curve; null: Ed25519 hashes by itself. */
const CURVE_HASH: Readonly<Record<string, string>> = { prime256v1: 'sha256', secp384r1: 'sha384', secp521r1: 'sha512' };
const CURVE_NAME: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };
export type Algorithm = { readonly name: string; readonly hash: string | null };

/** How a key signs; null: keys of that kind are not taken. */
export function algorithmOf(key: KeyObject): Algorithm | null {
  if (key.asymmetricKeyType === 'ed25519') return { name: 'Ed25519', hash: null };
  const curve = key.asymmetricKeyType === 'ec' ? (key.asymmetricKeyDetails?.namedCurve ?? '') : '';
  const hash = Object.hasOwn(CURVE_HASH, curve) ? CURVE_HASH[curve] : undefined;
  return hash === undefined ? null : { name: `ECDSA ${CURVE_NAME[curve]}`, hash };
}
/** What a key is, for a message about one that is not taken. */
export const keyKind = (key: KeyObject): string =>
  [key.asymmetricKeyType ?? 'unknown', key.asymmetricKeyDetails?.namedCurve].filter(Boolean).join(' ');

export function signPayload(type: string, payload: Uint8Array, key: KeyObject): Buffer {
  const algorithm = algorithmOf(key);
  if (!algorithm) throw new TypeError(`keys of ${keyKind(key)} do not sign`);
  return sign(algorithm.hash, preAuthentication(type, payload), key);
}
/** Bytes of any kind may stand there as a signature: what cannot be one is none. */
export function isSigned({ payloadType, payload, signature }: Envelope, key: KeyObject): boolean {
  const algorithm = algorithmOf(key);
  if (!algorithm) return false;
  try {
    return verify(algorithm.hash, preAuthentication(payloadType, payload), key, signature);
  } catch {
    return false;
  }
}

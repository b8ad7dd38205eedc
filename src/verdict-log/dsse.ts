// DSSE envelopes (github.com/secure-systems-lab/dsse, protocol version 1): a payload, its type, and Ed25519 signatures
// over both. What is read is what was signed, byte for byte.
import { createHash, sign, verify } from 'node:crypto';
import { z } from 'zod';
import type { Signer, Verifier } from './keys.js';

const base64 = z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/, 'no base64');
export const Envelope = z.strictObject({
  payloadType: z.string().min(1),
  payload: base64,
  signatures: z
    .array(z.strictObject({ keyid: z.string().optional(), sig: base64 }))
    .min(1)
    .max(16),
});
export type Envelope = z.infer<typeof Envelope>;

/** Pre-authentication encoding. */
export const encoded = (type: string, payload: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `), payload]);
/** How a key is named: sha256 of its 32 bytes, hex. */
export const keyId = ({ raw }: Verifier): string => createHash('sha256').update(raw).digest('hex');

export function seal(type: string, payload: Uint8Array, signer: Signer): Envelope {
  const signature = sign(null, encoded(type, payload), signer.private);
  return {
    payloadType: type,
    payload: Buffer.from(payload).toString('base64'),
    signatures: [{ keyid: keyId(signer), sig: signature.toString('base64') }],
  };
}
/** @returns the payload; null: this key did not sign it, or it is of another type */
export function unseal(envelope: Envelope, type: string, verifier: Verifier): Buffer | null {
  if (envelope.payloadType !== type) return null;
  const payload = Buffer.from(envelope.payload, 'base64');
  // No second writing of the same bytes.
  if (payload.toString('base64') !== envelope.payload) return null;
  const bytes = encoded(type, payload);
  const good = envelope.signatures.some(({ sig }) => {
    const signature = Buffer.from(sig, 'base64');
    return (
      signature.length === 64 && signature.toString('base64') === sig && verify(null, bytes, verifier.key, signature)
    );
  });
  return good ? payload : null;
}

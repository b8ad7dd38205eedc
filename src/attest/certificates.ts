// Chains of X.509 certificates: the signer's own, those above it, up to one that the reader trusts. node:crypto reads
// certificates and checks who signed whom; key usage, which it does not tell, is read from the DER here.
import { X509Certificate } from 'node:crypto';

const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
/** 2.5.29.15, keyUsage; 2.5.29.19, basicConstraints. */
const KEY_USAGE = '551d0f';
const BASIC_CONSTRAINTS = '551d13';
/** Longest chain that is followed. */
const MOST = 8;

interface Der {
  readonly tag: number;
  readonly body: Buffer;
  readonly end: number;
}
/** The element at a place; null: it is cut off, or of a form that DER has not. */
function elementAt(bytes: Buffer, at: number): Der | null {
  const tag = bytes[at];
  let length = bytes[at + 1],
    from = at + 2;
  if (tag === undefined || length === undefined) return null;
  if (length > 0x7f) {
    const count = length & 0x7f;
    if (count === 0 || count > 4 || from + count > bytes.length) return null;
    length = bytes.readUIntBE(from, count);
    from += count;
  }
  const end = from + length;
  return end > bytes.length ? null : { tag, body: bytes.subarray(from, end), end };
}
function elementsOf(bytes: Buffer): readonly Der[] {
  const elements: Der[] = [];
  for (let at = 0; at < bytes.length; ) {
    const element = elementAt(bytes, at);
    if (!element) return [];
    elements.push(element);
    at = element.end;
  }
  return elements;
}
/** The value of an extension; null: the certificate has none of it. */
function extension(certificate: X509Certificate, oid: string): Buffer | null {
  const whole = elementAt(certificate.raw, 0);
  const signed = whole && elementsOf(whole.body)[0];
  const tagged = signed ? elementsOf(signed.body).find((e) => e.tag === 0xa3) : undefined;
  const list = tagged && elementAt(tagged.body, 0);
  for (const one of list ? elementsOf(list.body) : []) {
    const parts = elementsOf(one.body);
    if (parts[0]?.body.toString('hex') === oid) return parts.at(-1)?.body ?? null;
  }
  return null;
}
/** Bits of keyUsage, the first byte of them: 0x80 signs things, 0x04 signs certificates; null: nothing is said. */
function keyUsage(certificate: X509Certificate): number | null {
  const value = extension(certificate, KEY_USAGE);
  const bits = value && elementAt(value, 0);
  return bits?.tag === 3 && bits.body.length >= 2 ? (bits.body[1] ?? 0) : null;
}
/** How many authorities may stand below this one; null: as many as there are. */
function pathLength(certificate: X509Certificate): number | null {
  const value = extension(certificate, BASIC_CONSTRAINTS);
  const sequence = value && elementAt(value, 0);
  const number = sequence ? elementsOf(sequence.body).find((e) => e.tag === 2) : undefined;
  return number && number.body.length > 0 && number.body.length <= 4
    ? number.body.readUIntBE(0, number.body.length)
    : null;
}

/** Whose certificate it is: its alternative name, else the whole subject. */
export const nameOf = (certificate: X509Certificate): string =>
  (certificate.subjectAltName ?? certificate.subject ?? 'a certificate without a name').replaceAll('\n', ', ');
/** Names by which a signer may be asked for: of subjectAltName without their kind, and the common name. */
export function identitiesOf(certificate: X509Certificate): readonly string[] {
  const alternative = (certificate.subjectAltName ?? '')
    .split(', ')
    .map((name) => name.slice(name.indexOf(':') + 1))
    .filter((name) => name !== '');
  const common = /^CN=(.+)$/m.exec(certificate.subject ?? '')?.[1];
  return common === undefined ? alternative : [...alternative, common];
}

/** @returns null: it cannot be read, or has a key, a date or a name that cannot */
export function certificateOf(der: Uint8Array): X509Certificate | null {
  try {
    const c = new X509Certificate(der);
    // Each is read when it is asked for, and may be damaged by itself.
    const read = [c.publicKey, c.ca, c.keyUsage, c.subject, c.issuer, c.subjectAltName, c.fingerprint256, c.toString()];
    return read.length > 0 && [c.validFrom, c.validTo].every((d) => Number.isFinite(Date.parse(d))) ? c : null;
  } catch {
    return null;
  }
}

const within = (certificate: X509Certificate, time: number): boolean =>
  time >= Date.parse(certificate.validFrom) && time <= Date.parse(certificate.validTo);
function isIssuer(certificate: X509Certificate, above: X509Certificate): boolean {
  try {
    return certificate.checkIssued(above) && certificate.verify(above.publicKey);
  } catch {
    return false;
  }
}

export interface ChainResult {
  /** Why it holds not; null: it holds. */
  readonly problem: string | null;
  /** What it ends in, of those that are trusted; null: in none. */
  readonly anchor: X509Certificate | null;
}
/**
 * Follows a chain from the signer's certificate to one that is trusted, at a moment of its validity.
 * @param chain the signer's first; what is not on the way is passed over
 */
export function followChain(
  chain: readonly X509Certificate[],
  trusted: readonly X509Certificate[],
  time: number,
): ChainResult {
  const [leaf] = chain;
  if (!leaf) return { problem: 'it names no certificate', anchor: null };
  const usage = keyUsage(leaf);
  if (usage !== null && (usage & 0x80) === 0 && !(leaf.keyUsage ?? []).includes(CODE_SIGNING))
    return { problem: `the certificate of ${nameOf(leaf)} is not for signing`, anchor: null };
  const isTrusted = (c: X509Certificate): boolean => trusted.some((t) => t.fingerprint256 === c.fingerprint256);
  let at = leaf;
  for (let below = 0; below < MOST; below++) {
    if (!within(at, time))
      return { problem: `the certificate of ${nameOf(at)} is not of ${new Date(time).toISOString()}`, anchor: null };
    if (isTrusted(at)) return { problem: null, anchor: at };
    const above = [...trusted, ...chain].find((c) => c !== at && isIssuer(at, c));
    if (!above) {
      const problem =
        trusted.length === 0 ? null : `the chain of ${nameOf(leaf)} ends in no certificate that is trusted`;
      return { problem, anchor: null };
    }
    const signs = keyUsage(above),
      most = pathLength(above);
    if (!above.ca || (signs !== null && (signs & 0x04) === 0) || (most !== null && below > most))
      return { problem: `${nameOf(above)} may not sign the certificate of ${nameOf(at)}`, anchor: null };
    at = above;
  }
  return { problem: `its chain is longer than ${MOST} certificates`, anchor: null };
}

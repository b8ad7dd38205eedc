// A signature as a file: the sigstore bundle v0.3, which OpenSSF model signing uses, with a DSSE envelope in it and
// what names the signer: a public key's digest, a chain of certificates, or a certificate of Fulcio with its entry in
// Rekor.
// Nothing in it is believed; what is not of its form is refused, so that no byte of it can change unseen.
import type { X509Certificate } from 'node:crypto';
import { basename } from 'node:path';
import { z } from 'zod';
import { IntegrityError } from '../base/errors.js';
import { decodeJson } from '../base/json-file.js';
import { canonicalJson, type Json } from '../verdict-log/canonical.js';
import { certificateOf, followChain, identitiesOf, nameOf } from './certificates.js';
import { algorithmOf, type Envelope, isSigned, keyKind, PAYLOAD_TYPE, signPayload } from './dsse.js';
import type { SigningKey, Trust } from './keys.js';
import { Base64, checkEntry, TlogEntry } from './transparency.js';

const MEDIA_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
const Certificate = z.strictObject({ rawBytes: Base64 });

const Bundle = z.strictObject({
  mediaType: z.enum([MEDIA_TYPE, 'application/vnd.dev.sigstore.bundle+json;version=0.3']),
  verificationMaterial: z.strictObject({
    // Signers before 1.1 of the reference implementation put the key itself there, which nobody can believe.
    publicKey: z
      .strictObject({
        hint: z.string().max(1024).nullish(),
        rawBytes: Base64.optional(),
        keyDetails: z.string().max(64).optional(),
      })
      .optional(),
    x509CertificateChain: z.strictObject({ certificates: z.array(Certificate).min(1).max(16) }).optional(),
    certificate: Certificate.optional(),
    tlogEntries: z.array(TlogEntry).max(16).optional(),
    timestampVerificationData: z
      .strictObject({
        rfc3161Timestamps: z
          .array(z.strictObject({ signedTimestamp: Base64 }))
          .max(16)
          .optional(),
      })
      .optional(),
  }),
  dsseEnvelope: z.strictObject({
    payload: Base64,
    payloadType: z.string(),
    signatures: z.array(z.strictObject({ sig: Base64, keyid: z.string().nullish() })).length(1),
  }),
});
type BundleJson = z.infer<typeof Bundle>;

export type SignerKind = 'key' | 'certificates' | 'sigstore';
export interface SignedBundle {
  readonly envelope: Envelope;
  readonly kind: SignerKind;
  /** What a key is called by; null: it says none. */
  readonly hint: string | null;
  /** The signer's first; empty: it names a key. */
  readonly certificates: readonly X509Certificate[];
  readonly entries: readonly TlogEntry[];
  /** It brings timestamps of RFC 3161, which are not looked at here. */
  readonly timestamps: number;
}

const bad = (file: string, why: string, cause?: unknown): IntegrityError =>
  new IntegrityError(
    'bad_bundle',
    `${file}: ${why}; wanted a sigstore bundle v0.3 as \`temper sign\` writes it`,
    { file },
    { cause },
  );

function whyNot(error: z.ZodError): string {
  const [issue] = error.issues;
  const at = issue?.path.join('.') ?? '';
  if (issue?.code === 'unrecognized_keys')
    return `${at || 'it'} has ${issue.keys.map((k) => JSON.stringify(k)).join(', ')}, which no bundle has`;
  if (issue?.code === 'invalid_type' && issue.message.endsWith('received undefined')) return `has no ${at}`;
  return `${at || 'it'}: ${issue?.message ?? 'is of another form'}`;
}

/** What names the signer; exactly one of three. */
function signerOf(file: string, { verificationMaterial: m }: BundleJson): Omit<SignedBundle, 'envelope'> {
  const read = (rawBytes: string): X509Certificate => {
    const certificate = certificateOf(Buffer.from(rawBytes, 'base64'));
    if (!certificate) throw bad(file, 'holds a certificate that cannot be read');
    return certificate;
  };
  const named = [m.publicKey, m.x509CertificateChain, m.certificate].filter((x) => x !== undefined).length;
  if (named !== 1)
    throw bad(file, `names its signer in ${named} ways, wanted one of publicKey, x509CertificateChain, certificate`);
  const rest = {
    entries: m.tlogEntries ?? [],
    timestamps: m.timestampVerificationData?.rfc3161Timestamps?.length ?? 0,
  };
  if (m.publicKey) return { kind: 'key', hint: m.publicKey.hint || null, certificates: [], ...rest };
  if (m.x509CertificateChain)
    return {
      kind: 'certificates',
      hint: null,
      certificates: m.x509CertificateChain.certificates.map((c) => read(c.rawBytes)),
      ...rest,
    };
  if (rest.entries.length === 0)
    throw bad(file, 'has no tlogEntries: a certificate of a few minutes means nothing without its entry in a log');
  return { kind: 'sigstore', hint: null, certificates: [read(m.certificate?.rawBytes ?? '')], ...rest };
}

/**
 * Reads a bundle; says nothing of whether its signature holds.
 * @throws {IntegrityError} bad_bundle: it is not of that form, and why
 */
export function readBundle(bytes: Uint8Array, file: string): SignedBundle {
  if (bytes.length === 0) throw bad(file, 'is empty');
  let value: unknown;
  try {
    value = decodeJson(bytes);
  } catch (e) {
    if (!(e instanceof SyntaxError)) throw e;
    throw bad(file, `not JSON: ${e.message}`, e);
  }
  const parsed = Bundle.safeParse(value);
  if (!parsed.success) throw bad(file, whyNot(parsed.error), parsed.error);
  const { payload, payloadType, signatures } = parsed.data.dsseEnvelope;
  if (payloadType !== PAYLOAD_TYPE)
    throw bad(file, `its payload is of type ${JSON.stringify(payloadType)}, wanted ${PAYLOAD_TYPE}`);
  return {
    envelope: {
      payloadType,
      payload: Buffer.from(payload, 'base64'),
      signature: Buffer.from(signatures[0]?.sig ?? '', 'base64'),
      keyid: signatures[0]?.keyid ?? '',
    },
    ...signerOf(file, parsed.data),
  };
}

/** `failed`: it is not what was signed, or not by whom it says; `untrusted`: nobody says whose key that is. */
export interface SignatureResult {
  readonly status: 'ok' | 'failed' | 'untrusted';
  /** Who signed, as far as it is shown. */
  readonly signer: string;
  /** Why it is not ok; what is left open where it is. */
  readonly why: string | null;
  readonly notes: readonly string[];
}
export interface SignatureOptions {
  readonly trust: Trust;
  /** Who must have signed, of certificates: an address, a name. */
  readonly identity?: string | undefined;
}

function byKey(bundle: SignedBundle, { trust }: SignatureOptions): SignatureResult {
  const { envelope, hint } = bundle;
  const signer = hint === null ? 'a key that it does not name' : `key ${hint.slice(0, 16)}`;
  const result = (status: SignatureResult['status'], why: string | null): SignatureResult => ({
    status,
    signer,
    why,
    notes: [],
  });
  if (hint !== null && envelope.keyid !== '' && envelope.keyid !== hint)
    return result('failed', 'its envelope names another key than the bundle');
  if (trust.keys.length === 0) return result('untrusted', 'no public key was given to check it with');
  const named = trust.keys.filter((k) => hint === null || k.hint === hint);
  if (named.length === 0)
    return result(
      'failed',
      `it is by another key than ${trust.keys.map((k) => `${k.from} (${k.hint.slice(0, 16)})`).join(', ')}`,
    );
  const by = named.find((k) => isSigned(envelope, k.key));
  if (!by) return result('failed', 'the signature is not of this content by this key');
  return {
    status: 'ok',
    signer: `${basename(by.from)} (${algorithmOf(by.key)?.name}, ${by.hint.slice(0, 16)})`,
    why: null,
    notes: [],
  };
}

function byCertificate(bundle: SignedBundle, { trust, identity }: SignatureOptions): SignatureResult {
  const { envelope, certificates, kind } = bundle;
  const leaf = certificates[0] as X509Certificate;
  const signer = `${nameOf(leaf)} (issued by ${(leaf.issuer ?? '').replaceAll('\n', ', ')})`;
  const notes: string[] = [];
  const result = (status: SignatureResult['status'], why: string | null): SignatureResult => ({
    status,
    signer,
    why,
    notes,
  });
  if (!algorithmOf(leaf.publicKey))
    return result('failed', `its certificate is of a key of ${keyKind(leaf.publicKey)}, which is not taken`);
  if (!isSigned(envelope, leaf.publicKey))
    return result('failed', 'the signature is not of this content by its certificate');
  let time = Date.parse(leaf.validFrom),
    logged = false;
  if (kind === 'sigstore') {
    const entry = checkEntry(bundle.entries, envelope, leaf, trust);
    if (entry.problem !== null) return result('failed', entry.problem);
    logged = entry.time !== null;
    if (entry.time !== null) time = entry.time;
    notes.push(...entry.notes);
  } else notes.push('when it was signed is not proven: its certificates are held to the beginning of their time');
  if (bundle.timestamps > 0) notes.push('its timestamps of RFC 3161 are not looked at');
  const chain = followChain(certificates, trust.certificates, time);
  if (chain.problem !== null) return result('failed', chain.problem);
  if (identity !== undefined && !identitiesOf(leaf).includes(identity))
    return result('failed', `it is not by ${identity}`);
  if (!chain.anchor) return result('untrusted', 'no certificate was given that its chain could end in');
  // Fulcio gives everybody a certificate: without a name it shows nothing.
  if (kind === 'sigstore' && identity === undefined)
    return result('untrusted', 'anybody has such a certificate; say whose it must be');
  if (kind === 'sigstore' && !logged)
    return result('untrusted', 'no key of its log was given, so when it was signed is not proven');
  return result('ok', null);
}

/** Whether the signature of a bundle holds, and by whom it is. It reads nothing and asks nobody. */
export const checkSignature = (bundle: SignedBundle, options: SignatureOptions): SignatureResult =>
  bundle.kind === 'key' ? byKey(bundle, options) : byCertificate(bundle, options);

/** A statement, signed, as the text of its file: one form, so that a byte more or less is another file. */
export function signBundle(statement: Json, key: SigningKey): string {
  const payload = Buffer.from(canonicalJson(statement));
  const sig = signPayload(PAYLOAD_TYPE, payload, key.private).toString('base64');
  const material =
    key.certificates.length > 0
      ? { x509CertificateChain: { certificates: key.certificates.map((c) => ({ rawBytes: c.toString('base64') })) } }
      : { publicKey: { hint: key.hint } };
  return canonicalJson({
    mediaType: MEDIA_TYPE,
    verificationMaterial: { ...material, tlogEntries: [] },
    dsseEnvelope: { payload: payload.toString('base64'), payloadType: PAYLOAD_TYPE, signatures: [{ sig, keyid: '' }] },
  });
}

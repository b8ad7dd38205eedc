// A release against the gate: who answers for it and why, signed. The statement names the digests that it is for and
// how they stood, so that it opens nothing else.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { IntegrityError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { decodeJson, readJsonFile } from '../base/json-file.js';
import { NamedDigest } from '../runs/named-digest.js';
import { GATE_STATUSES, type GateOverride, type Standing } from '../runs/standing.js';
import type { Subject } from '../runs/subject.js';
import { canonicalJson, type Json } from '../verdict-log/canonical.js';
import { Envelope, keyId, seal, unseal } from '../verdict-log/dsse.js';
import { type Signer, verifierOfRaw } from '../verdict-log/keys.js';
import { DECISION_FILE } from './record.js';

export const OVERRIDE_FILE = 'override.json';
export const IN_TOTO = 'application/vnd.in-toto+json';
const PREDICATE = 'urn:temper:gate-override:v1';

const hex = z.string().regex(/^[0-9a-f]{64}$/);
const Statement = z.strictObject({
  _type: z.literal('https://in-toto.io/Statement/v1'),
  subject: z.array(z.strictObject({ name: z.literal('adapter'), digest: z.strictObject({ sha256: hex }) })).length(1),
  predicateType: z.literal(PREDICATE),
  predicate: z.strictObject({
    reason: z.string().min(1),
    time: z.iso.datetime(),
    /** The signer's public key, 32 bytes in base64: whom it is depends on who publishes that key. */
    signer: z.string(),
    subject: z.strictObject({
      adapter: NamedDigest,
      base: NamedDigest,
      tokenizer: NamedDigest,
      chatFormat: NamedDigest,
      mergeRecipe: NamedDigest.nullable(),
    }),
    standing: z.strictObject({ status: z.enum(GATE_STATUSES), reasons: z.array(z.string()) }),
    /** sha256 of the decision that it goes against; null: there is none. */
    decision: NamedDigest.nullable(),
  }),
});

/** Of the decision in a gate's folder, "sha256:…"; null: it holds none. */
function decisionIn(folder: string): string | null {
  const file = join(folder, DECISION_FILE);
  return existsSync(file) ? `sha256:${sha256(readInput(file, 'record'))}` : null;
}

export interface OverrideRequest {
  readonly subject: Subject;
  readonly standing: Standing;
  readonly signer: Signer;
  readonly reason: string;
  /** ISO 8601. */
  readonly time: string;
}
export function signOverride({ subject, standing, signer, reason, time }: OverrideRequest): Envelope {
  const statement: z.infer<typeof Statement> = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: 'adapter', digest: { sha256: subject.adapter.replace(/^sha256:/, '') } }],
    predicateType: PREDICATE,
    predicate: {
      reason,
      time,
      signer: signer.raw.toString('base64'),
      subject: { ...subject },
      standing: { status: standing.status, reasons: [...standing.reasons] },
      decision: standing.folder === null ? null : decisionIn(standing.folder),
    },
  };
  return seal(IN_TOTO, Buffer.from(canonicalJson(statement as unknown as Json)), signer);
}

/**
 * The override in a gate's folder; null: none.
 * @throws {IntegrityError} gate_override: not signed by whom it names, for other digests or against another decision
 */
export function readOverride(folder: string, subject: Subject): (GateOverride & { readonly against: string }) | null {
  const file = join(folder, OVERRIDE_FILE);
  if (!existsSync(file)) return null;
  const bad = (what: string): IntegrityError =>
    new IntegrityError('gate_override', `${file}: ${what}; export again`, { file });
  const envelope = Envelope.safeParse(readJsonFile(file, 'record', { next: 'export again', missing: bad, bad }));
  if (!envelope.success) throw bad('is no signed statement');
  const claimed = Statement.safeParse(decoded(Buffer.from(envelope.data.payload, 'base64')));
  if (!claimed.success) throw bad('holds no override');
  const { predicate } = claimed.data;
  const raw = Buffer.from(predicate.signer, 'base64');
  if (raw.length !== 32) throw bad('names no Ed25519 key');
  const verifier = verifierOfRaw(raw);
  if (unseal(envelope.data, IN_TOTO, verifier) === null) throw bad('is not signed by the key that it names');
  if (canonicalJson(predicate.subject as Json) !== canonicalJson({ ...subject } as Json))
    throw bad('is for another adapter, base, tokenizer, chat format or merge');
  // Who answers for an adapter that no gate judged, or for one decision, does not answer for the next one.
  if (predicate.decision !== decisionIn(folder))
    throw bad(
      predicate.decision === null
        ? `was signed when no gate had judged it, and ${DECISION_FILE} lies beside it`
        : `is against another decision than the ${DECISION_FILE} beside it`,
    );
  const { reason, time, standing } = predicate;
  return { signer: keyId(verifier), reason, time, against: standing.status };
}
function decoded(bytes: Uint8Array): unknown {
  try {
    return decodeJson(bytes);
  } catch {
    return null;
  }
}

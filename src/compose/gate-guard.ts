// The release gate at a server's door: which adapters may be loaded, and which may no longer be used.
import { basename, join } from 'node:path';
import { GateError, IntegrityError } from '../base/errors.js';
import { digestFolder } from '../base/folder-digest.js';
import { GATE_FOLDER } from '../export/gate-note.js';
import { readOverride } from '../gate/override.js';
import { type Revocation, type Revocations, revocationOf, seenLists, takeRevocations } from '../gate/revocations.js';
import { localOf } from '../hub/pull.js';
import { digestAdapter } from '../infer/adapters.js';
import { readProvenance } from '../lora/provenance.js';
import type { GateDecision, GateOverride, GateStatus, Standing } from '../runs/standing.js';
import { keyId } from '../verdict-log/dsse.js';
import { readVerifier, type Verifier } from '../verdict-log/keys.js';
import type { Stands } from './gate-standing.js';
import { refusal, standingOfExport, standings } from './release.js';

export interface GuardOptions {
  /** Nothing is loaded that has no PASS for exactly what is at hand. */
  readonly required: boolean;
  /** Files with public keys of those whose signed overrides are honoured: what they answer for is loaded too. */
  readonly overrides?: readonly string[] | undefined;
  /** Signed list of what is revoked, and the public key of who signs it. */
  readonly revocations?: { readonly list: string; readonly key: string } | undefined;
}
/** How a model stands, as a server tells it. */
export interface ServedGate {
  readonly status: GateStatus;
  readonly decision: GateDecision | null;
  /** sha256 of the adapter as the gate names it, `sha256:` and hex; null: a base. */
  readonly adapter: string | null;
  /** sha256 of the lock that it was judged under. */
  readonly lock: string | null;
  /** Who answers for what has no PASS, and why. */
  readonly override?: GateOverride;
}
/** What was looked at: it is loaded only while it is still that. */
export interface Checked {
  readonly gate: ServedGate;
  /** Of the adapter's files, as the engine digests them; null: a checkpoint. */
  readonly files: string | null;
}
export interface Guard {
  /**
   * @throws {GateError} gate_absent, gate_failed, gate_overridden, gate_revoked · {IntegrityError} gate_stale,
   * gate_damaged, gate_override
   */
  adapter(folder: string, model: string, signal?: AbortSignal): Promise<Checked>;
  /** A checkpoint that `temper export` merged is judged as what was merged. @throws as adapter */
  model(model: string, signal?: AbortSignal): Promise<ServedGate>;
  /** @param digest of the files, hex */
  revoked(gate: ServedGate, digest: string): Revocation | null;
  /** Reads the list again. @throws {IntegrityError} revocation_list; then the one before holds */
  reload(): string;
}

const named = (hex: string): string => `sha256:${hex}`;
const NEXT = 'hold the gate (temper gate ADAPTER --suite FILE), or serve without --require-gate';

/** How it stands when what is signed against its gate is read too; nobody answers for evidence that is damaged. */
function withOverride(folder: string, { subject, standing }: Stands): Standing {
  const { status } = standing;
  if (subject === null || status === 'passed' || status === 'overridden' || status === 'damaged') return standing;
  const found = readOverride(join(folder, GATE_FOLDER), subject);
  if (found === null) return standing;
  const { signer, reason, time } = found;
  return { ...standing, status: 'overridden', override: { signer, reason, time } };
}

/** @throws {IntegrityError} revocation_list · {ConfigError} log_key */
export function openGuard({ required, overrides = [], revocations }: GuardOptions): Guard {
  const seen = seenLists();
  const honoured = new Set(overrides.map((file) => keyId(readVerifier(file))));
  /** @throws {GateError} it has no PASS, and nobody answers for it who may */
  const served = (folder: string, stands: Stands): ServedGate => {
    const { subject } = stands;
    const standing = withOverride(folder, stands);
    const { status, override } = standing;
    const allowed = status === 'overridden' && override !== null && honoured.has(override.signer);
    if (required && status === 'overridden' && !allowed)
      throw new GateError(
        'gate_overridden',
        `${folder}: has no PASS of the release gate; key ${override?.signer} answers for it, which this server does ` +
          'not go by; give its public key with --allow-override FILE, or load another',
        { folder, signer: override?.signer ?? null },
      );
    if (required && status !== 'passed' && !allowed) throw refusal(folder, standing, NEXT);
    return {
      status: status === 'overridden' && !allowed ? stands.standing.status : status,
      decision: standing.decision,
      adapter: subject?.adapter ?? null,
      lock: standing.digests?.lock ?? null,
      ...(allowed && override !== null ? { override } : {}),
    };
  };
  let verifier: Verifier | null = null,
    list: Revocations | null = null;
  const read = (): string => {
    if (!revocations) return '';
    verifier ??= readVerifier(revocations.key);
    list = takeRevocations(revocations.list, verifier, seen);
    return `revocations: number ${list.sequence}, ${list.revoked.length} of them`;
  };
  read();
  const revoked = (gate: ServedGate, digest: string): Revocation | null =>
    list && revocationOf(list, [named(digest), ...(gate.adapter === null ? [] : [gate.adapter])]);
  const refuseRevoked = (what: string, gate: ServedGate, digest: string): void => {
    const entry = revoked(gate, digest);
    if (entry)
      throw new GateError('gate_revoked', `${what}: was revoked on ${entry.time}: ${entry.reason}; load another`, {
        digest: entry.digest,
      });
  };
  return {
    revoked,
    reload: read,
    async adapter(given, givenModel, signal) {
      const [folder, model] = [await localOf(given, { signal }), await localOf(givenModel, { signal })];
      const files = await digestAdapter(folder);
      const { peft } = await standings({ adapter: folder, model, formats: ['peft'] }, signal);
      if (!peft) throw new Error('an adapter stands nowhere');
      const gate = served(folder, peft);
      refuseRevoked(folder, gate, files);
      return { gate, files };
    },
    async model(given, signal) {
      const model = await localOf(given, { signal });
      const provenance = readProvenance(model);
      const base: ServedGate = { status: 'passed', decision: null, adapter: null, lock: null };
      if (provenance === null || provenance.gate?.status === 'none') return base;
      const found = await digestFolder(model, Object.keys(provenance.files), { ...(signal ? { signal } : {}) });
      const changed = found.files.find((f) => provenance.files[f.name] !== f.sha256);
      if (changed)
        throw new IntegrityError(
          'export_changed',
          `${model}: ${basename(changed.name)} is not what was exported; export it again`,
          { file: changed.name },
        );
      const stands = await standingOfExport(model, signal);
      if (stands === null) return base;
      const gate = served(model, stands);
      refuseRevoked(model, gate, found.digest);
      return gate;
    },
  };
}

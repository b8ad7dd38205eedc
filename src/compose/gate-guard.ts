// The release gate at a server's door: which adapters may be loaded, and which may no longer be used.
import { basename } from 'node:path';
import { GateError, IntegrityError } from '../base/errors.js';
import { digestFolder } from '../base/folder-digest.js';
import { type Revocation, type Revocations, revocationOf, seenLists, takeRevocations } from '../gate/revocations.js';
import { localOf } from '../hub/pull.js';
import { digestAdapter } from '../infer/adapters.js';
import { readProvenance } from '../lora/provenance.js';
import type { GateDecision, GateStatus } from '../runs/standing.js';
import { readVerifier, type Verifier } from '../verdict-log/keys.js';
import { refusal, standingOfExport, standings } from './release.js';

export interface GuardOptions {
  /** Nothing is loaded that has no PASS for exactly what is at hand. */
  readonly required: boolean;
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
}
/** What was looked at: it is loaded only while it is still that. */
export interface Checked {
  readonly gate: ServedGate;
  /** Of the adapter's files, as the engine digests them; null: a checkpoint. */
  readonly files: string | null;
}
export interface Guard {
  /** @throws {GateError} gate_absent, gate_failed, gate_revoked · {IntegrityError} gate_stale, gate_damaged */
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

/** @throws {IntegrityError} revocation_list · {ConfigError} log_key */
export function openGuard({ required, revocations }: GuardOptions): Guard {
  const seen = seenLists();
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
      const { subject, standing } = peft;
      if (required && standing.status !== 'passed') throw refusal(folder, standing, NEXT);
      const gate: ServedGate = {
        status: standing.status,
        decision: standing.decision,
        adapter: subject?.adapter ?? null,
        lock: standing.digests?.lock ?? null,
      };
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
      const { subject, standing } = stands;
      if (required && standing.status !== 'passed') throw refusal(model, standing, NEXT);
      const gate: ServedGate = {
        status: standing.status,
        decision: standing.decision,
        adapter: subject?.adapter ?? null,
        lock: standing.digests?.lock ?? null,
      };
      refuseRevoked(model, gate, found.digest);
      return gate;
    },
  };
}

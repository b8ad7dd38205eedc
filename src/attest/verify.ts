// Everything that can be checked of a folder that was released, offline: signatures, files, statements, the gate's
// evidence, the chain behind it.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkAttestations } from './check-attestations.js';
import { checkGate, type Redecide } from './check-gate.js';
import { checkFiles, checkOrigin } from './check-origin.js';
import { checkSignatures } from './check-signature.js';
import { DECISION_FILE, type Evidence, GATE_FOLDER, OVERRIDE_FILE, readEvidence } from './evidence.js';
import { type Finding, Findings } from './findings.js';
import { Folder, type HashOptions } from './folder.js';
import { signerOf, type Trust } from './keys.js';
import { type Origin, originOf } from './origin.js';
import { readProbe } from './probe.js';

export type { Redecide } from './check-gate.js';
export type { Finding, FindingGroup, FindingStatus } from './findings.js';

/** Who let a model out against its gate. */
export interface OverrideFacts {
  readonly by: string;
  readonly reason: string;
  readonly time: string;
  /** How the gate stood. */
  readonly against: string;
}
export interface VerifyAttestationsOptions extends HashOptions {
  readonly trust: Trust;
  /** Who must have signed, of certificates. */
  readonly identity?: string | undefined;
  /** Digest of a folder's adapter as a gate names it, "sha256:…"; null: it holds none. */
  readonly adapterDigest: (dir: string, signal?: AbortSignal) => Promise<string | null>;
  /** Of a folder's merged checkpoint, "sha256:…"; null: it holds none. Absent: nothing tells. */
  readonly checkpointDigest?: ((dir: string, signal?: AbortSignal) => Promise<string | null>) | undefined;
  /** null: nothing decides again. */
  readonly redecide: Redecide | null;
  /** Concludes again from the files of a probe. @throws {TemperError} they are not whole, or not of each other */
  readonly reprobe?: ((folder: string, signal?: AbortSignal) => unknown) | undefined;
  /**
   * Reads the override in a gate's folder; null: there is none.
   * @throws {TemperError} it is not signed by whom it names, or for something else
   */
  readonly readOverride?: ((gate: string) => OverrideFacts | null) | undefined;
  /** Folder of the base, where temper.json does not lead to it. */
  readonly base?: string | undefined;
  /** Folder of the gate's evidence; absent: `gate` in the folder itself. */
  readonly gate?: string | undefined;
}
export interface VerifiedFolder {
  readonly dir: string;
  readonly findings: readonly Finding[];
  /** Nothing failed. */
  readonly ok: boolean;
  /** A signature that holds, by somebody who is trusted, is over all of it. */
  readonly signed: boolean;
  /** As the evidence has it, after everything was checked; null: there was no gate. */
  readonly decision: string | null;
  readonly override: CheckedOverride | null;
}
export interface CheckedOverride extends OverrideFacts {
  /** Who answers for it is somebody who is trusted: anybody can sign that he does. */
  readonly trusted: boolean;
}

function checkOverride(
  gate: string,
  { readOverride, trust }: VerifyAttestationsOptions,
): { readonly list: readonly Finding[]; readonly override: CheckedOverride | null } {
  const findings = new Findings('override');
  if (!existsSync(join(gate, OVERRIDE_FILE))) return { list: [], override: null };
  if (!readOverride) findings.add('unchecked', 'by', OVERRIDE_FILE, 'nothing here reads it');
  let override: CheckedOverride | null = null;
  try {
    const found = readOverride?.(gate) ?? null;
    override = found && { ...found, trusted: trust.keys.some(({ key }) => signerOf(key) === found.by) };
    if (override)
      findings.add(
        override.trusted ? 'ok' : 'unchecked',
        'by',
        `released against the gate (${override.against}) by ${override.by}`,
        `${override.trusted ? '' : 'whose key that is nobody says; '}${override.time}: ${override.reason}`,
      );
  } catch (e) {
    if (!(e instanceof Error && 'exitCode' in e)) throw e;
    findings.add('failed', 'by', OVERRIDE_FILE, e.message);
  }
  return { list: findings.list, override };
}

/**
 * Reads and asks nothing but the folder, the run and the base where they are at hand.
 * @throws the signal's reason, or what the file system says of the folder itself
 */
export async function verifyAttestations(dir: string, options: VerifyAttestationsOptions): Promise<VerifiedFolder> {
  const { signal } = options;
  const folder = new Folder(dir, options);
  const gate = options.gate ?? join(dir, GATE_FOLDER);
  const early = new Findings('gate');
  const chain = new Findings('chain');
  const origin: Origin | null = await chain.attempt('record', 'temper.json', () => originOf(dir));
  const evidence: Evidence | null = existsSync(join(gate, DECISION_FILE))
    ? await early.attempt('form', DECISION_FILE, () => readEvidence(gate, options))
    : null;
  const adapter = await early.attempt('subject', 'the adapter', () => options.adapterDigest(dir, signal));
  const checkpoint = await early.attempt(
    'subject',
    'the checkpoint',
    () => options.checkpointDigest?.(dir, signal) ?? null,
  );
  const probe = evidence && (await early.attempt('probe', 'the probe', () => readProbe(evidence.folder)));
  const signatures = await checkSignatures(folder, options);
  const override = checkOverride(gate, options);
  const context = { ...options, evidence, probe, origin, adapter, checkpoint, overridden: override.override !== null };
  const findings = [
    ...signatures.list,
    ...(await checkFiles(folder, origin)),
    ...chain.list,
    ...(await checkOrigin(folder, context)),
    ...early.list,
    ...(early.list.some((f) => f.id === 'gate.form') ? [] : await checkGate(context)),
    ...override.list,
    ...(await checkAttestations(folder, context)),
  ];
  return {
    dir,
    findings,
    ok: findings.every((f) => f.status !== 'failed'),
    signed: signatures.signed,
    decision: evidence?.decision.decision ?? null,
    override: override.override,
  };
}

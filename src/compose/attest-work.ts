// What the thread of attestations does: keys, folders and the gate's decision brought together.
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { signFolder, writeAttestations } from '../attest/attest.js';
import { type Audit, auditOf, auditPage } from '../attest/audit.js';
import { modelFiles } from '../attest/check-signature.js';
import { DECISION_FILE, GATE_FOLDER } from '../attest/evidence.js';
import { Folder, type HashOptions } from '../attest/folder.js';
import { readSigningKey, readTrust } from '../attest/keys.js';
import { type OverrideFacts, type VerifiedFolder, verifyAttestations } from '../attest/verify.js';
import { ConfigError, IntegrityError } from '../base/errors.js';
import { writeFileAtomic } from '../base/files.js';
import { versions } from '../base/machine.js';
import { asReadError } from '../base/system-error.js';
import { FORMATS } from '../export/formats/index.js';
import { readOverride } from '../gate/override.js';
import { concludeAgain } from '../gate/probe/conclude.js';
import { CONFIG_FILE } from '../lora/peft-names.js';
import { readProvenance } from '../lora/provenance.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { runOf } from '../runs/adapter-base.js';
import { exportedAdapterDigest } from '../runs/subject.js';
import type { AuditRequest, Signed, SignRequest, VerifyFolderRequest } from './attest.js';
import { redecide } from './gate-tools.js';

/** @throws {ConfigError} path_not_found */
export function requireFolder(dir: string): void {
  const next = 'give the folder of an adapter or an export';
  let folder: boolean;
  try {
    folder = statSync(dir).isDirectory();
  } catch (e) {
    throw asReadError(e, dir, next, (message) => new ConfigError('path_not_found', message, { path: dir }));
  }
  if (!folder) throw new ConfigError('path_not_found', `${dir}: is a file; ${next}`, { path: dir });
}

/** null: it holds no adapter. */
const adapterDigest = async (dir: string, signal?: AbortSignal): Promise<string | null> =>
  existsSync(join(dir, CONFIG_FILE)) ? exportedAdapterDigest(dir, signal) : null;
/** null: it holds no merged checkpoint. */
const checkpointDigest = async (dir: string, signal?: AbortSignal): Promise<string | null> =>
  FORMATS.find((f) => f.name === readProvenance(dir)?.format)?.checkpoint
    ? `sha256:${await digestCheckpoint(dir, signal ? { signal } : {})}`
    : null;
/** @throws {IntegrityError} gate_override, gate_evidence, bad_provenance */
function overrideOf(dir: string, gate: string): OverrideFacts | null {
  const subject = readProvenance(dir)?.gate?.subject;
  if (!subject)
    throw new IntegrityError(
      'gate_override',
      `${gate}: holds an override, and temper.json says not of what; export again`,
      {
        gate,
      },
    );
  const found = readOverride(gate, subject);
  return found && { by: found.signer, reason: found.reason, time: found.time, against: found.against };
}

export async function sign(request: SignRequest, options: HashOptions): Promise<Signed> {
  const { dir, certificates, out, run } = request;
  if (request.sigstore)
    throw new ConfigError(
      'sign_refused',
      '--sigstore: keyless signing asks Fulcio and Rekor, which is not done here; sign with --key, or with cosign',
      {},
    );
  requireFolder(dir);
  const key = readSigningKey(request.key, certificates ?? []);
  let statements: readonly string[] = [];
  if (!request.bare && modelFiles(new Folder(dir)).length > 0) {
    const gate = join(dir, GATE_FOLDER);
    statements = await writeAttestations(existsSync(join(gate, DECISION_FILE)) ? gate : null, dir, key, {
      ...options,
      adapter: await adapterDigest(dir, options.signal),
      ...(run === undefined ? {} : { run }),
    });
  }
  return { ...(await signFolder(dir, key, { ...options, out })), statements };
}

/** Where the evidence of a gate lies: in the folder; of a run's last adapter, in the run. */
function gateOf(dir: string): string {
  const own = join(dir, GATE_FOLDER);
  const run = existsSync(own) ? null : runOf(dir);
  return run === dirname(resolve(dir)) ? join(run, GATE_FOLDER) : own;
}
async function check(request: VerifyFolderRequest, options: HashOptions): Promise<VerifiedFolder> {
  const { dir, keys, identity, model } = request;
  requireFolder(dir);
  return verifyAttestations(dir, {
    gate: gateOf(dir),
    ...options,
    trust: readTrust(keys ?? []),
    identity,
    adapterDigest,
    checkpointDigest,
    redecide,
    reprobe: concludeAgain,
    readOverride: (gate) => overrideOf(dir, gate),
    base: model,
  });
}

export const verify = async (request: VerifyFolderRequest, options: HashOptions): Promise<Audit> =>
  auditOf(await check(request, options), request);
export async function audit(request: AuditRequest, options: HashOptions): Promise<Audit> {
  const result = auditOf(await check(request, options), request);
  if (request.html !== undefined) {
    const keys = request.keys ?? [];
    const trusted = keys.length === 0 ? 'No key was trusted.' : `Trusted: ${keys.join(', ')}.`;
    const when = new Date().toISOString();
    writeFileAtomic(request.html, auditPage(result, `Temper ${versions().temper}, ${when}. ${trusted}`));
  }
  return result;
}

// Puts an adapter on a signed list. Which one is told by its digest, or by its folder.
import { existsSync } from 'node:fs';
import { ConfigError } from '../base/errors.js';
import { revoke } from '../gate/revocations.js';
import { digestPeft } from '../lora/adapter-digest.js';
import { openPeft } from '../lora/peft-file.js';
import { readConfig } from '../model/config.js';
import { readRun } from '../runs/run-folder.js';
import { exportedAdapterDigest } from '../runs/subject.js';
import { resolveTrained } from '../runs/trained.js';
import { readSigner } from '../verdict-log/keys.js';

export interface RevokeRequest {
  /** Adapter folder, run, or `sha256:` and hex. */
  readonly what: string;
  /** Private key. */
  readonly key: string;
  readonly reason: string;
  readonly list: string;
  /** Base of an adapter made elsewhere. */
  readonly model?: string | undefined;
}
export interface RevokeResult {
  readonly digest: string;
  readonly sequence: number;
  readonly revoked: number;
}

async function digestOf({ what, model }: RevokeRequest, signal?: AbortSignal): Promise<string> {
  if (/^(?:sha256:)?[0-9a-f]{64}$/.test(what)) return what.startsWith('sha256:') ? what : `sha256:${what}`;
  if (!existsSync(what))
    throw new ConfigError('path_not_found', `${what}: no such folder, and no digest; wanted one of them`, {
      path: what,
    });
  const folder = readRun(what) ? (resolveTrained(what).adapter ?? what) : what;
  if (model === undefined) return exportedAdapterDigest(folder, signal);
  using file = openPeft(folder, readConfig(model));
  return `sha256:${await digestPeft(file, signal)}`;
}

/** @throws {ConfigError} path_not_found, bad_option, log_key · {IntegrityError} revocation_list */
export async function revokeAdapter(request: RevokeRequest, signal?: AbortSignal): Promise<RevokeResult> {
  const reason = request.reason.trim();
  if (reason === '') throw new ConfigError('bad_option', '--reason: is empty; say why it is revoked');
  const signer = readSigner(request.key);
  const digest = await digestOf(request, signal);
  const { sequence, revoked } = revoke(request.list, signer, { digest, reason, time: new Date().toISOString() });
  return { digest, sequence, revoked: revoked.length };
}

// What the thread of attestations does: keys, folders and the gate's decision brought together.
import { statSync } from 'node:fs';
import { type SignedFolder, signFolder } from '../attest/attest.js';
import type { HashOptions } from '../attest/folder.js';
import { readSigningKey } from '../attest/keys.js';
import { ConfigError } from '../base/errors.js';
import { asReadError } from '../base/system-error.js';
import type { SignRequest } from './attest.js';

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

export async function sign(
  { dir, key, certificates, out, sigstore }: SignRequest,
  options: HashOptions,
): Promise<SignedFolder> {
  if (sigstore)
    throw new ConfigError(
      'sign_refused',
      '--sigstore: keyless signing asks Fulcio and Rekor, which is not done here; sign with --key, or with cosign',
      {},
    );
  requireFolder(dir);
  return signFolder(dir, readSigningKey(key, certificates ?? []), { ...options, out });
}

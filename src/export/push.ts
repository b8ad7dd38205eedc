// An export on a hub: what was verified, and nothing else.
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { type PullHooks, type PushFiles, type PushResult, pushFiles } from '../hub/pull.js';
import { PROVENANCE_FILE, readProvenance } from '../lora/provenance.js';

export type { PushResult } from '../hub/pull.js';
export type PushRequest = Omit<PushFiles, 'files'>;

const ATTESTATIONS = 'attestations';
/** Signatures and signed statements: they came after temper.json, which does not name them. Links are left behind. */
function signedBeside(dir: string): Record<string, string> {
  const below = existsSync(join(dir, ATTESTATIONS)) ? readdirSync(join(dir, ATTESTATIONS)) : [];
  const names = [
    ...readdirSync(dir).filter((name) => name.endsWith('.sig')),
    ...below.filter((name) => name.endsWith('.json')).map((name) => `${ATTESTATIONS}/${name}`),
  ];
  return Object.fromEntries(
    names
      .filter((name) => lstatSync(join(dir, name)).isFile())
      .map((name) => [name, sha256(readInput(join(dir, name), 'record'))]),
  );
}

/**
 * What is pushed of an export: the files that temper.json names, each with the digest that it says, itself, and the
 * signatures beside it.
 * @throws {ConfigError} hub_push: it is no export · {IntegrityError} bad_provenance
 */
export function filesToPush(request: PushRequest): PushFiles {
  const { dir } = request;
  const provenance = existsSync(dir) ? readProvenance(dir) : null;
  if (!provenance)
    throw new ConfigError(
      'hub_push',
      `${dir}: has no ${PROVENANCE_FILE}, so it is no export that can be verified; make one with \`temper export\``,
      { dir },
    );
  const own = sha256(readInput(join(dir, PROVENANCE_FILE), 'record'));
  return { ...request, files: { ...signedBeside(dir), ...provenance.files, [PROVENANCE_FILE]: own } };
}

/**
 * Pushes an export as one commit.
 * @throws {ConfigError} no export, no token, a repo that all can see · {IntegrityError} export_changed · {HubError} ·
 * the signal's reason; the message says what can be seen of it
 */
export async function push(request: PushRequest, hooks: PullHooks = {}): Promise<PushResult> {
  hooks.signal?.throwIfAborted();
  return pushFiles(filesToPush(request), hooks);
}

// A new policy: a copy of one that ships, under its own name.
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { ConfigError } from '../../base/errors.js';
import { writeFlushed, writeFolderAtomic } from '../../base/files.js';
import { parseJson } from '../../base/json.js';
import { packageRoot } from '../../base/machine.js';

const FOLDER = join(packageRoot, 'policies');
const FILES = ['policy.md', 'golden.jsonl'] as const;
const NAME = /^[a-z0-9][a-z0-9_.-]{0,63}$/i;

/** Names of the policies that ship. */
export const shippedPolicies = (): readonly string[] =>
  readdirSync(FOLDER).filter((name) => existsSync(join(FOLDER, name, 'policy.md')));

/**
 * @param from name of a policy that ships
 * @throws {ConfigError} bad_option: no name for a policy, or none that ships · policy_exists
 */
export async function initPolicy(
  folder: string,
  from: string,
): Promise<{ readonly name: string; readonly from: string; readonly files: readonly string[] }> {
  const name = basename(resolve(folder));
  if (!NAME.test(name))
    throw new ConfigError(
      'bad_option',
      `policy init: ${JSON.stringify(name)} is no name for a policy; wanted letters, digits, "-", "_" and "." alone`,
    );
  if (!shippedPolicies().includes(from))
    throw new ConfigError(
      'bad_option',
      `policy init: --from ${JSON.stringify(from)}: no such policy; wanted one of ${shippedPolicies().join(', ')}`,
    );
  if (lstatSync(folder, { throwIfNoEntry: false }))
    throw new ConfigError('policy_exists', `${folder}: exists; give a folder that is not there yet`, { file: folder });
  const rows = readFileSync(join(FOLDER, from, 'golden.jsonl'), 'utf8')
    .trim()
    .split('\n');
  await writeFolderAtomic(folder, (into) => {
    writeFlushed(join(into, 'policy.md'), readFileSync(join(FOLDER, from, 'policy.md')));
    writeFlushed(join(into, 'golden.jsonl'), `${rows.map((row) => renamed(row, from, name)).join('\n')}\n`);
  });
  return { name, from, files: FILES };
}

/** A golden row names its policy, and its id begins with that name. */
function renamed(row: string, from: string, name: string): string {
  const value = parseJson(row) as { id?: string; policy?: string };
  const id = value.id?.startsWith(`${from}-`) ? { id: `${name}${value.id.slice(from.length)}` } : {};
  return JSON.stringify({ ...value, ...id, ...(value.policy === undefined ? {} : { policy: name }) });
}

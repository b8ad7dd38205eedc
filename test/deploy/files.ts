// The files of deploy/, as tests read them.
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { packageRoot } from '../../src/base/machine.js';

export const deploy = join(packageRoot, 'deploy');
export const read = (name: string): string => readFileSync(join(deploy, name), 'utf8');
/** All of them, from deploy/. */
export const names: readonly string[] = readdirSync(deploy, { recursive: true, withFileTypes: true })
  .filter((f) => f.isFile())
  .map((f) => join(f.parentPath, f.name).slice(deploy.length + 1))
  .sort();

// biome-ignore lint/suspicious/noExplicitAny: manifests are checked as what they are, data
export type Yaml = any;
/** Documents of a YAML file, merge keys among them. @throws what is no YAML */
export const yaml = (name: string): readonly Yaml[] =>
  parseAllDocuments(read(name), { merge: true, uniqueKeys: true }).map((doc) => {
    const [fault] = [...doc.errors, ...doc.warnings];
    if (fault) throw new Error(`deploy/${name}: ${fault.message}`);
    return doc.toJS() as Yaml;
  });
export const only = (name: string): Yaml => yaml(name)[0];

/** Values of a key of a systemd unit, in order. */
export const unit = (name: string, key: string): readonly string[] =>
  [...read(name).matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map((m) => m[1] ?? '');
/** Arguments of a directive of nginx, of each of its places. */
export const directives = (text: string, name: string): readonly string[] =>
  [...text.matchAll(new RegExp(`^\\s*${name}\\s+([^;{]*?)\\s*[;{]`, 'gm'))].map((m) => m[1] ?? '');

/** `150s`, `15m`, `2m` of time. */
export function seconds(text: string): number {
  const [, n, of = 's'] = /^(\d+)([smh]?)$/.exec(text) ?? [];
  if (n === undefined) throw new Error(`${text}: no time`);
  return Number(n) * ({ s: 1, m: 60, h: 3600 }[of || 's'] ?? Number.NaN);
}

/** Where a program lies; null: it is not installed here, /usr/sbin looked at. */
export function program(name: string): string | null {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']) {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return join(folder, name);
    } catch {
      // not there
    }
  }
  return null;
}

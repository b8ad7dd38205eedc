// What a run was made with: its results are only promised again with the same.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../native/addon.js';

export function versions(): Readonly<Record<string, string>> {
  const own = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  return { temper: own.version, node: process.versions.node };
}

// What a run is computed by: the code of this package, and the native libraries that it loads, as one digest, so that
// who has both can tell whether they are those of a run.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sha256, sha256File } from '../base/digest.js';

/** dist/, or src/ where it is run from there. */
const OWN = dirname(dirname(fileURLToPath(import.meta.url)));
const isCode = (name: string): boolean => /\.[jt]s$/.test(name) && !name.endsWith('.d.ts');

/**
 * sha256 over `name NUL sha256 LF` of each file of code in the order of their names, then of each library; "sha256:…".
 * @throws what the file system says
 */
export async function codeDigest(libraries: readonly string[]): Promise<string> {
  const names = readdirSync(OWN, { recursive: true, encoding: 'utf8' }).filter(isCode);
  const sum = createHash('sha256');
  for (const name of names.map((n) => n.replaceAll(sep, '/')).sort())
    sum.update(`${name}\0${sha256(readFileSync(join(OWN, name)))}\n`);
  for (const file of libraries) sum.update(`${basename(file)}\0${await sha256File(file)}\n`);
  return `sha256:${sum.digest('hex')}`;
}

// What the machine and this installation say of themselves, without native code.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The package's root folder: where package.json lies, from dist/ as from src/. */
export const packageRoot: string = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Absolute path of something that comes with this package: models/nano, a recipe, a policy, a dataset. */
export const embedded = (path: string): string => join(packageRoot, path);

/** What a run was made with: its results are only promised again with the same. */
export function versions(): Readonly<Record<'temper' | 'node', string>> {
  const own = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  return { temper: own.version, node: process.versions.node };
}

/** The line of a /proc file that holds a field in kilobytes. */
export const procField = (field: string): RegExp => new RegExp(`^${field}:\\s+(\\d+) kB`, 'm');
function procBytes(file: string, field: string): number {
  try {
    return Number(procField(field).exec(readFileSync(file, 'latin1'))?.[1] ?? Number.NaN) * 1024;
  } catch {
    return Number.NaN;
  }
}
/** Anonymous resident memory of this process, bytes; NaN where the system does not tell. */
export const anonymousBytes = (): number => procBytes('/proc/self/status', 'RssAnon');
/**
 * Memory that this process can take without swapping, bytes: what the machine has left, and of a container's limit what
 * this process does not hold itself. NaN where the system does not tell.
 */
export function availableBytes(): number {
  const left = procBytes('/proc/meminfo', 'MemAvailable'),
    limit = process.constrainedMemory(); // 0: there is none
  return limit > 0 ? Math.min(left, Math.max(0, limit - anonymousBytes())) : left;
}
/**
 * Bytes of files that the system's cache can be filled with and still leave room: three quarters of what can be taken;
 * 0 where the system does not tell.
 */
export const cacheableBytes = (): number => availableBytes() * 0.75 || 0;

// Where things are kept that could be had again.
import { homedir } from 'node:os';
import { join } from 'node:path';

/**
 * A folder of TEMPER_CACHE, or of temper in the XDG cache folder.
 * @returns null: TEMPER_CACHE is set to nothing, which turns it off
 */
export function cacheFolder(name: string): string | null {
  const given = process.env.TEMPER_CACHE;
  if (given !== undefined) return given === '' ? null : join(given, name);
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'temper', name);
}

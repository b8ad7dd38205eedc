// Where native libraries lie: built in this package (build/), or in a prebuilt package of the platform beside it
// (scripts/release.mjs makes those, as optional dependencies of this one).
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { NativeError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import { packageRoot, versions } from '../base/machine.js';

/** Platforms with a prebuilt package. They need glibc 2.31 or newer. */
const PREBUILT: readonly string[] = ['linux-x64', 'linux-arm64'];
/** Builds the addon where the package lies, from a project of its user as from the repository. */
export const BUILD_ADDON = 'npx temper build-native';

const platform = (): string => `${process.platform}-${process.arch}`;
/** @param part '' for the addon's, or a backend's name */
const packageName = (part: string): string => `@temper-oss/${platform()}${part && `-${part}`}`;

/** Folder of an installed package; null: it is not there. */
function installed(name: string): string | null {
  try {
    return dirname(createRequire(join(packageRoot, 'package.json')).resolve(`${name}/package.json`));
  } catch {
    return null;
  }
}

/**
 * The library built here, or else the prebuilt one; what is named may be missing.
 * @throws {NativeError} addon_version: the prebuilt package is of another version
 */
export function findLibrary(file: string, part: string): string {
  const own = join(packageRoot, 'build', file);
  if (existsSync(own)) return own;
  const name = packageName(part),
    folder = installed(name);
  if (folder === null) return own;
  const wanted = versions().temper,
    next = `run \`npm install ${name}@${wanted}\``;
  const fail = (message: string): NativeError => new NativeError('addon_version', message);
  const said = readJsonFile(join(folder, 'package.json'), 'config', {
    next,
    missing: fail,
    bad: (what) => fail(`${join(folder, 'package.json')}: ${what}; ${next}`),
  }) as { readonly version?: unknown } | null;
  if (said?.version !== wanted)
    throw fail(`${folder}: is ${name} ${String(said?.version ?? 'without a version')}, wanted ${wanted}; ${next}`);
  return join(folder, file);
}

/** The addon: what TEMPER_ADDON names, the one built here, or the prebuilt one. @throws as findLibrary */
export const addonFile = (): string => process.env.TEMPER_ADDON || findLibrary('temper.node', '');

/** What to do where there is no addon. */
export function addonAdvice(): string {
  const build = `build it here with \`${BUILD_ADDON}\` (needs cmake and g++)`;
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  if (!PREBUILT.includes(platform())) return `there is no prebuilt package for ${platform()}; ${build}`;
  if (process.platform === 'linux' && header.glibcVersionRuntime === undefined)
    return `prebuilt packages need glibc, this system has another C library; ${build}`;
  return `install ${packageName('')} beside it (\`npm install --include=optional\`), or ${build}`;
}

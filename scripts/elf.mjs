// What a shared library asks of the system that loads it, read from its own tables (readelf, of binutils, which every
// compiler brings): needed libraries, and the newest version of glibc that it names.
import { spawnSync } from 'node:child_process';

/** The oldest glibc that prebuilt packages must load with. */
export const OLDEST_GLIBC = '2.31';
/** What a machine that runs Node has. */
const NEEDED = /^(lib(c|m|dl|rt|pthread)\.so\.\d+|libgcc_s\.so\.1|ld-linux-[\w-]+\.so\.\d)$/;

const number = (version) => {
  const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number);
  return (major * 1000 + minor) * 1000 + patch;
};
const newest = (versions) => versions.sort((a, b) => number(a) - number(b)).at(-1) ?? '0.0';
function readelf(path, ...flags) {
  const child = spawnSync('readelf', ['--wide', ...flags, path], { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (child.status !== 0) throw new Error(`readelf ${path}: ${child.error?.message ?? child.stderr}`);
  return child.stdout;
}

/** @returns {{needed: string[], glibc: string, gcc: string, exports: string[], machine: string}} versions as "2.31" */
export function requirements(path) {
  const text = readelf(path, '--version-info', '--dynamic', '--file-header');
  // "0x0010:   Name: GLIBC_2.17  Flags: none  Version: 5", within the section of needs
  const needs = text.slice(Math.max(0, text.indexOf('Version needs section')));
  const named = (prefix) =>
    newest([...needs.matchAll(new RegExp(`Name: ${prefix}_([0-9.]+)\\b`, 'g'))].map((m) => m[1]));
  const symbols = readelf(path, '--dyn-syms');
  return {
    machine: /Machine:\s+(.*)/.exec(text)?.[1] ?? '',
    needed: [...text.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map((m) => m[1]),
    glibc: named('GLIBC'),
    gcc: named('GCC'),
    exports: [...symbols.matchAll(/ (?:GLOBAL|WEAK|UNIQUE) +DEFAULT +(?!UND)\w+ (\S+)/g)].map((m) => m[1]),
  };
}

/** @returns {string[]} why a library may not load on a machine with glibc 2.31 and Node; empty: it will */
export function unportable(path) {
  const { needed, glibc, gcc } = requirements(path);
  return [
    ...needed.filter((name) => !NEEDED.test(name)).map((name) => `needs ${name}`),
    ...(number(glibc) > number(OLDEST_GLIBC) ? [`needs glibc ${glibc}, wanted at most ${OLDEST_GLIBC}`] : []),
    // libgcc_s of gcc 8, the oldest that comes with such a glibc, ends at GCC_7.0.0.
    ...(number(gcc) > number('7.0.0') ? [`needs libgcc ${gcc}, wanted at most 7.0.0`] : []),
  ];
}

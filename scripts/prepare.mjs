// What `npm test` and `npm run demo` need before they start, straight after `git clone`: dependencies, the native
// addon, the TypeScript build. Only what is missing or stale is done, and each step says so. Plain Node, no dependency:
// it runs before there are any.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const say = (text) => process.stderr.write(`${text}\n`);

/** Runs a program with its output on stderr (stdout stays for results). @returns whether it succeeded */
export function run(tool, args, options = {}) {
  return spawnSync(tool, args, { cwd: root, stdio: ['ignore', 2, 2], ...options }).status === 0;
}

export function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  say(`Node ${process.versions.node} found, wanted 20.19 or newer; see https://nodejs.org`);
  process.exit(2);
}

/** Whether node_modules holds exactly the lock file's versions (packages for other platforms may be absent). */
function dependenciesAreCurrent() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installed)) return false;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const have = JSON.parse(readFileSync(installed, 'utf8')).packages;
  return Object.entries(wanted).every(
    ([path, p]) =>
      path === '' || (have[path] ? have[path].version === p.version : p.optional === true || p.peer === true),
  );
}

// better-sqlite3, for tests on a Node without SQLite, may be compiled here: fast, as nothing is measured with it.
const COMPILED = 'better-sqlite3';
const quickly = { CFLAGS: '-O0', CXXFLAGS: '-O0', ...process.env };
const install = ['ci', '--include=dev', '--no-audit', '--no-fund'];

/** `npm ci` where needed. @returns false when it failed */
export function installDependencies() {
  if (dependenciesAreCurrent()) return true;
  say('· installing dependencies: npm ci');
  if (run('npm', install, { env: quickly })) return true;
  say(`· once more without scripts of packages: where ${COMPILED} cannot be compiled, tests of it are skipped`);
  return run('npm', [...install, '--ignore-scripts']);
}

/** The same but for what takes a minute to compile: `compile` does that. @returns false when it failed */
export function installUncompiled() {
  if (dependenciesAreCurrent()) return true;
  say('· installing dependencies: npm ci');
  if (!run('npm', [...install, '--ignore-scripts'])) return false;
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const prepared = Object.keys(packages).filter((path) => packages[path].hasInstallScript && !path.endsWith(COMPILED));
  return run('npm', ['rebuild', ...prepared.map((path) => path.split('node_modules/').at(-1))]);
}
/** Compiles what is still to be compiled, beside other work. @returns exit status; what failed is skipped by tests */
export function compileDependencies() {
  if (existsSync(join(root, 'node_modules', COMPILED, 'build', 'Release', 'better_sqlite3.node')))
    return Promise.resolve(0);
  const child = spawn('npm', ['rebuild', COMPILED], { cwd: root, env: quickly, stdio: ['ignore', 'ignore', 'ignore'] });
  return new Promise((resolve) => {
    child.on('error', resolve);
    child.on('close', (status) => {
      if (status !== 0) say(`· ${COMPILED} cannot be compiled: tests of it are skipped`);
      resolve(status);
    });
  });
}

/** @param args e.g. ['--tests'] or ['--sanitize'] */
export function buildNative(args = []) {
  say(`· building native code${args.length > 0 ? ` (${args.join(' ')})` : ''}`);
  return run(process.execPath, [join('scripts', 'build-native.mjs'), ...args]);
}

export function buildTypeScript() {
  say('· building TypeScript: tsc -b');
  return run(process.execPath, [join('node_modules', 'typescript', 'bin', 'tsc'), '-b']);
}

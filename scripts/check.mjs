// npm run check: what can be said of a change in seconds. Lint and format, types, line lengths, the lock file,
// generated docs. The first tier of npm test. `-- --fix` writes what can be written: format, import order, generated
// docs. The last line is "N passed, N failed".
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, say } from './prepare.mjs';

const COLUMNS = 120;
/** Where a long line is not ours to break: generated, recorded or read by a model to the letter. */
const LONG_LINES = [
  /^docs\/(errors|recipe|rows|log)\.md$/,
  /^bench\/results\//,
  /^policies\//,
  /unicode_classes\.inc$/,
  /\.generated\./,
];

/** Files of the tree, committed or new, that match. */
export function sources(pattern) {
  const { stdout } = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  const gone = spawnSync('git', ['ls-files', '-z', '--deleted'], { cwd: root, encoding: 'utf8' }).stdout.split('\0');
  return stdout.split('\0').filter((f) => pattern.test(f) && !gone.includes(f));
}

/** Numbers of the lines that are too long, counted in characters; rows of tables and lines of one word do not count. */
export function longLines(text, markdown) {
  return text.split('\n').flatMap((line, i) => {
    const long = [...line].length > COLUMNS;
    const whole = /^\s*(?:\/\/ |\* |- |<)?\S*https?:\S+$/.test(line) || (markdown && line.startsWith('|'));
    return long && !whole ? [i + 1] : [];
  });
}

function linesFit() {
  const files = sources(/\.(ts|mjs|cpp|h|cu|cuh|inc|md|yaml)$/).filter((f) => !LONG_LINES.some((p) => p.test(f)));
  const found = files.flatMap((f) =>
    longLines(readFileSync(join(root, f), 'utf8'), f.endsWith('.md')).map((line) => `${f}:${line}`),
  );
  for (const place of found) say(`${place}: longer than ${COLUMNS} columns`);
  return files.length > 0 && found.length === 0;
}

/** The lock file must serve anyone: no registry's host in it. */
function lockNamesNoHost() {
  const lock = readFileSync(join(root, 'package-lock.json'), 'utf8');
  const hosts = [...lock.matchAll(/"resolved": *"(https?:[^"]*)"/g)].map((m) => m[1]);
  if (hosts.length > 0)
    say(`package-lock.json names ${hosts[0]} and ${hosts.length - 1} others; remove the "resolved" lines`);
  return hosts.length === 0;
}

/** Runs a program of node_modules; its output only where it fails. */
function quiet(script, args) {
  const child = spawnSync(process.execPath, [join('node_modules', script), ...args], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (child.status !== 0) say(`${child.stdout ?? ''}${child.stderr ?? ''}`.trimEnd().split('\n').slice(-60).join('\n'));
  return child.status === 0;
}

/** Every check by name. TypeScript is built first: types of tests and scripts, and the generated docs, read dist/. */
export function checks(fix = false) {
  const docs = join('..', 'scripts', 'generate-docs.mjs');
  return {
    TypeScript: () => quiet('typescript/bin/tsc', ['-b']),
    'types of tests': () => quiet('typescript/bin/tsc', ['-b', 'tsconfig.tests.json']),
    'names and calls in scripts': () =>
      quiet('typescript/bin/tsc', ['-b', 'tsconfig.scripts.json', 'tsconfig.playground.json']),
    'lint and format': () =>
      quiet('@biomejs/biome/bin/biome', ['check', '--error-on-warnings', ...(fix ? ['--write'] : []), '.']),
    'format of native code': () => {
      const files = sources(/^native\/.*\.(cpp|h|cu|cuh|inc)$/).filter((f) => !f.endsWith('unicode_classes.inc'));
      return quiet('clang-format-node/build/cli.js', [...(fix ? ['-i'] : ['--dry-run', '--Werror']), ...files]);
    },
    'line lengths': linesFit,
    'lock file names no host': lockNamesNoHost,
    'generated docs': () => quiet(docs, fix ? [] : ['--check']),
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  let failed = 0;
  const all = Object.entries(checks(process.argv.includes('--fix')));
  for (const [name, check] of all) {
    const from = Date.now();
    const ok = check();
    if (!ok) failed++;
    say(`${ok ? '✓' : '✗'} ${name} (${((Date.now() - from) / 1000).toFixed(1)} s)`);
  }
  process.stdout.write(`${all.length - failed} passed, ${failed} failed\n`);
  process.exit(failed > 0 ? 1 : 0);
}

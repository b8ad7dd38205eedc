// node scripts/test-install.mjs [--packages DIR] [--demo | --all] [--keep]: packs what a release holds, installs the
// tarballs into an empty folder with nothing but Node and a shell in PATH and with the repository hidden (in a mount
// namespace, where the system allows one), and uses what is there on Node 20, 22 and 24: doctor, every example of
// docs/api.md, a screen; with --demo also `temper demo` within 4 minutes, which wants a machine that does nothing else,
// on the running Node; with --all on each. --packages takes tarballs that `npm run release` made; the one for
// linux-arm64 among them is used under qemu. Last line: "N passed, N failed", or "skipped: why".
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { transformSync } from 'esbuild';
import { OLDEST_GLIBC, unportable } from './elf.mjs';
import { root, say } from './prepare.mjs';
import { release } from './release.mjs';
import { majors, nodeOf } from './smoke-nodes.mjs';

const DEMO_SECONDS = 240;
const all = process.argv.includes('--all');
const demoToo = process.argv.includes('--demo');
const given = process.argv.indexOf('--packages');
const major = Number(process.versions.node.split('.')[0]);
const place = mkdtempSync(join(tmpdir(), 'temper-install-'));
let passed = 0;
let failed = 0;

const last = (text) => text.trim().split('\n').slice(-12).join('\n');
function note(name, ok, detail = '') {
  if (ok) passed++;
  else failed++;
  say(`${ok ? '✓' : '✗'} ${name}${ok ? '' : `\n${detail}`}`);
}

/** A folder with this Node, its npm and a shell, and nothing else: all of PATH. */
function programs(node, name) {
  const bin = join(place, name);
  mkdirSync(bin, { recursive: true });
  copyFileSync(node, join(bin, 'node')); // of the repository's cache perhaps, which is hidden
  const npm = dirname(realpathSync(spawnSync('which', ['npm'], { encoding: 'utf8' }).stdout.trim()));
  for (const tool of ['npm', 'npx']) symlinkSync(join(npm, `${tool}-cli.js`), join(bin, tool));
  symlinkSync('/bin/sh', join(bin, 'sh'));
  return bin;
}

/** Whether a process may hide the repository from itself. */
const UNSHARE = '/usr/bin/unshare';
const hides = spawnSync(UNSHARE, ['-m', 'true']).status === 0;
const HIDE = `/bin/mount -t tmpfs none '${root}' && exec "$0" "$@"`;

/** A program in the project, with that PATH. */
function use(bin, project, ...command) {
  const [tool = '', ...args] = command;
  const path = join(bin, tool);
  const [run, ...rest] = hides ? [UNSHARE, '-m', '/bin/sh', '-c', HIDE, path, ...args] : [path, ...args];
  const began = Date.now();
  const child = spawnSync(run, rest, {
    cwd: project,
    encoding: 'utf8',
    env: { ...environment, PATH: bin, HOME: join(place, 'home') },
    timeout: 600_000,
    maxBuffer: 1 << 28,
  });
  const text = `${child.stdout}${child.stderr}`;
  return {
    ok: child.status === 0,
    status: child.status,
    out: child.stdout ?? '',
    text,
    seconds: (Date.now() - began) / 1000,
  };
}
/** As here, so that npm reaches the registry it is set up for; nothing of Temper's, nothing of npm's own run. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^(TEMPER_|CMAKE_|NODE_PATH$|npm_(lifecycle|package|command))/.test(name),
  ),
);
for (const name of ['cache', 'userconfig'])
  environment[`npm_config_${name}`] = spawnSync('npm', ['config', 'get', name], { encoding: 'utf8' }).stdout.trim();
environment.npm_config_update_notifier = 'false';

/** Every file below a folder, but node_modules. */
function files(folder, below = '') {
  return readdirSync(join(folder, below), { withFileTypes: true }).flatMap((e) =>
    e.name === 'node_modules' ? [] : e.isDirectory() ? files(folder, join(below, e.name)) : [join(below, e.name)],
  );
}

const examples = [
  ...readFileSync(join(root, 'docs', 'api.md'), 'utf8').matchAll(
    /^## ([^\n]+)\n(?:(?!^## )[\s\S])*?^```ts\n([\s\S]*?)^```/gm,
  ),
].map((m) => ({
  title: m[1] ?? '',
  code: transformSync(m[2] ?? '', { loader: 'ts', format: 'esm', target: 'node20' }).code,
}));

/** Installs into an empty folder and uses what is there. */
function tryOn(version, node, tarballs) {
  const bin = programs(node, `bin-${version}`);
  const project = join(place, `project-${version}`);
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "name": "a-project", "private": true, "type": "module" }\n');
  const installed = use(bin, project, 'npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', ...tarballs);
  if (!installed.ok && /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENOTCACHED)\b/.test(installed.text)) {
    rmSync(place, { recursive: true, force: true });
    process.stdout.write('skipped: npm reaches no registry, and the dependencies are not in its cache\n');
    process.exit(0);
  }
  note(
    `Node ${version}: npm install of ${tarballs.length} tarballs (${installed.seconds.toFixed(0)} s)`,
    installed.ok,
    last(installed.text),
  );
  if (!installed.ok) return;
  const scripts = readdirSync(join(project, 'node_modules', '@temper-oss')).map((n) => join('@temper-oss', n));
  const withScripts = ['temper-oss', ...scripts].filter(
    (n) => JSON.parse(readFileSync(join(project, 'node_modules', n, 'package.json'), 'utf8')).scripts !== undefined,
  );
  note(`Node ${version}: no package has scripts`, withScripts.length === 0, withScripts.join(', '));

  const library = join(project, 'node_modules', '@temper-oss', `linux-${process.arch}`, 'temper.node');
  const problems = unportable(library);
  note(`Node ${version}: the addon needs no glibc after ${OLDEST_GLIBC}`, problems.length === 0, problems.join(', '));

  const doctor = use(bin, project, 'npx', '--no-install', 'temper', 'doctor', '--no-measure');
  note(`Node ${version}: temper doctor`, doctor.ok && /addon +loaded/.test(doctor.out), last(doctor.text));
  for (const { title, code } of examples) {
    writeFileSync(join(project, 'example.mjs'), code);
    const run = use(bin, project, 'node', 'example.mjs');
    note(
      `Node ${version}: docs/api.md, ${title} (${run.seconds.toFixed(0)} s)`,
      run.ok && run.out.trim() !== '' && !/undefined|NaN/.test(run.out),
      last(run.text),
    );
  }
  rmSync(join(project, 'runs'), { recursive: true, force: true });

  const embedded = join('node_modules', 'temper-oss');
  const before = files(project);
  const screen = use(
    bin,
    project,
    ...['npx', '--no-install', 'temper', 'screen', join(embedded, 'policies', 'contact', 'golden.jsonl')],
    ...['--policy', join(embedded, 'policies', 'contact', 'policy.md')],
    ...['--judge', join(embedded, 'models', 'nano-judge'), '--out', 'verdicts.jsonl'],
  );
  const verdicts = existsSync(join(project, 'verdicts.jsonl'))
    ? readFileSync(join(project, 'verdicts.jsonl'), 'utf8').trim().split('\n')
    : [];
  note(
    `Node ${version}: temper screen (${screen.seconds.toFixed(0)} s)`,
    [0, 10].includes(screen.status) && verdicts.length >= 20,
    last(screen.text),
  );
  const sharp = files(project).filter((f) => !before.includes(f));
  note(
    `Node ${version}: screen writes its --out alone`,
    sharp.every((f) => f.startsWith('verdicts.jsonl')),
    sharp.join(', '),
  );

  if (!all && !(demoToo && version === major)) return;
  const clean = files(project);
  const demo = use(bin, project, 'npx', '--no-install', 'temper', 'demo');
  note(
    `Node ${version}: temper demo, ${demo.seconds.toFixed(0)} s of at most ${DEMO_SECONDS}`,
    demo.ok && demo.seconds <= DEMO_SECONDS,
    last(demo.text),
  );
  const written = files(project).filter((f) => !clean.includes(f));
  const outside = written.filter((f) => !f.startsWith(join('runs', 'demo')));
  note(
    `Node ${version}: the demo writes runs/demo alone`,
    outside.length === 0 && written.length > 0,
    outside.join(', '),
  );
}

/** Debian's: where an emulated program finds its loader, libc and libstdc++. */
const ARM64_LIBRARIES = '/usr/aarch64-linux-gnu';
/** The package for linux-arm64 on an emulated machine: it loads, says what it is, and computes. */
function tryEmulated(packed) {
  const name = `linux-arm64 under qemu, Node ${major}`;
  const missing = [
    packed.some((f) => f.includes('linux-arm64')) ? '' : 'a linux-arm64 tarball (--packages)',
    spawnSync('qemu-aarch64', ['--version']).status === 0 ? '' : 'qemu-aarch64 (Debian: qemu-user)',
    existsSync(join(ARM64_LIBRARIES, 'lib', 'libstdc++.so.6')) ? '' : 'libstdc++6-arm64-cross',
  ].filter((what) => what !== '');
  if (process.arch === 'arm64') return say(`${name}: skipped, this machine is one`);
  if (missing.length > 0) return say(`${name}: skipped, missing ${missing.join(', ')}`);
  const node = nodeOf(major, 'linux-arm64');
  if (!node.path) return say(`${name}: skipped, ${node.reason}`);
  const bin = programs(process.execPath, 'bin-emulated');
  const project = join(place, 'project-emulated');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "name": "a-project", "private": true, "type": "module" }\n');
  const tarballs = packed.filter((f) => !f.includes('linux-x64'));
  // Forced: npm refuses to install what is for another processor.
  const options = ['--prefer-offline', '--no-audit', '--no-fund', '--force'];
  const installed = use(bin, project, 'npm', 'install', ...options, ...tarballs);
  note(`${name}: npm install`, installed.ok, last(installed.text));
  const emulated = (...args) =>
    spawnSync('qemu-aarch64', ['-L', ARM64_LIBRARIES, node.path ?? '', ...args], {
      cwd: project,
      encoding: 'utf8',
      env: { ...environment, HOME: join(place, 'home') },
      timeout: 600_000,
    });
  const doctor = emulated(join('node_modules', 'temper-oss', 'dist', 'cli', 'main.js'), 'doctor', '--no-measure');
  const said = `${doctor.stdout}${doctor.stderr}`;
  note(`${name}: temper doctor`, doctor.status === 0 && /addon +loaded/.test(said), last(said));
  writeFileSync(join(project, 'example.mjs'), examples[0]?.code ?? '');
  const began = Date.now();
  const generate = emulated('example.mjs');
  const text = `${generate.stdout}${generate.stderr}`;
  note(
    `${name}: docs/api.md, ${examples[0]?.title} (${((Date.now() - began) / 1000).toFixed(0)} s)`,
    generate.status === 0 && generate.stdout.trim() !== '' && !/undefined|NaN/.test(text),
    last(text),
  );
}

try {
  if (`${process.platform}` !== 'linux') {
    process.stdout.write('skipped: prebuilt packages are for Linux\n');
    process.exit(0);
  }
  const packed =
    given < 0
      ? release({ hostOnly: true, out: join(root, 'build', 'install-test') }).map((p) => p.file)
      : readdirSync(resolve(process.argv[given + 1] ?? ''))
          .filter((f) => f.endsWith('.tgz'))
          .map((f) => join(resolve(process.argv[given + 1] ?? ''), f));
  const copies = packed.map((f) => {
    const copy = join(place, f.split('/').at(-1) ?? '');
    copyFileSync(f, copy);
    return copy;
  });
  const tarballs = copies.filter((f) => !/linux-(x64|arm64)/.test(f) || f.includes(`linux-${process.arch}`));
  for (const f of tarballs) say(`· ${f.split('/').at(-1)}: ${(statSync(f).size / 1e6).toFixed(1)} MB`);
  if (!hides) say('· this system lets nobody hide a folder: the repository is out of PATH, but not out of reach');
  mkdirSync(join(place, 'home'));
  for (const version of majors) {
    const node = nodeOf(version);
    if (node.path) tryOn(version, node.path, tarballs);
    else say(`Node ${version}: skipped, ${node.reason}`);
  }
  tryEmulated(copies);
} finally {
  if (process.argv.includes('--keep')) say(`kept: ${place}`);
  else rmSync(place, { recursive: true, force: true });
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exit(failed > 0 ? 1 : 0);

// npm run release: makes every package of a release, from a clean clone with nothing built, as tarballs in
// build/release/: the addon for linux-x64 and linux-arm64 and the CUDA backend in packages of their own, and temper-oss
// with those as optional dependencies. No package has an install script. Nothing is published: the last lines say how.
// --partial leaves out what cannot be made here, says so, and allows uncommitted changes; --host makes the addon of
// this machine alone (scripts/test-install.mjs); --out DIR puts the tarballs elsewhere.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { OLDEST_GLIBC, requirements, unportable } from './elf.mjs';
import { buildNative, buildTypeScript, checkNode, installDependencies, root, say } from './prepare.mjs';

const SCOPE = '@temper-oss';
const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const has = (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0;
const host = `${process.platform}-${process.arch}`;

/** What is given away as native code: one library, one package. */
const PLATFORM_PACKAGES = [
  {
    name: 'linux-x64',
    cpu: 'x64',
    machine: /X86-64/,
    library: join('build', 'portable', 'temper.node'),
    build: ['--portable'],
    missing: () => (host === 'linux-x64' ? '' : 'is built on linux-x64'),
    exports: /^napi_register_module_v1$|^node_api_module_get_api_version_v1$/,
    what: 'native addon',
  },
  {
    name: 'linux-arm64',
    cpu: 'arm64',
    machine: /AArch64/,
    library:
      host === 'linux-arm64'
        ? join('build', 'portable', 'temper.node')
        : join('build', 'aarch64', 'portable', 'temper.node'),
    build: host === 'linux-arm64' ? ['--portable'] : ['--aarch64', '--portable'],
    missing: () =>
      host === 'linux-arm64' || has('aarch64-linux-gnu-g++')
        ? ''
        : 'needs aarch64-linux-gnu-g++ (Debian: apt-get install g++-aarch64-linux-gnu)',
    exports: /^napi_register_module_v1$|^node_api_module_get_api_version_v1$/,
    what: 'native addon',
  },
  {
    name: 'linux-x64-cuda',
    cpu: 'x64',
    machine: /X86-64/,
    library: join('build', 'cuda-portable', 'temper_cuda.so'),
    build: ['--cuda', '--portable'],
    missing: () =>
      host !== 'linux-x64' ? 'is built on linux-x64' : has('nvcc') ? '' : 'needs nvcc 12.8 or newer in PATH',
    exports: /^temper_backend$/,
    what: 'CUDA backend',
  },
];

function fail(reason) {
  say(`release: ${reason}`);
  process.exit(1);
}
function succeed(what, ok) {
  if (!ok) fail(`${what} failed; the lines above say why`);
}
const git = (...args) => spawnSync('git', args, { cwd: root, encoding: 'utf8' }).stdout?.trim() ?? '';

/** Packs a staged folder. @returns {{file: string, bytes: number, entries: number}} */
function pack(folder, out) {
  const child = spawnSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', out], {
    cwd: folder,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (child.status !== 0) fail(`npm pack in ${folder}: ${child.stderr}`);
  const [made] = JSON.parse(child.stdout);
  return {
    file: join(out, made.filename.replace('@', '').replace('/', '-')),
    bytes: made.size,
    entries: made.entryCount,
  };
}

const common = Object.fromEntries(
  ['version', 'license', 'repository', 'homepage'].filter((k) => own[k]).map((k) => [k, own[k]]),
);

/** Builds, checks and packs one platform package. */
function platformPackage(p, staging, out) {
  succeed(`the build of ${p.name}`, buildNative(p.build));
  const library = join(root, p.library);
  const file = p.library.split('/').at(-1);
  const { machine, exports, glibc, needed } = requirements(library);
  const problems = unportable(library);
  if (!p.machine.test(machine)) problems.push(`is for ${machine}`);
  problems.push(...exports.filter((name) => !p.exports.test(name)).map((name) => `exports ${name}`));
  if (problems.length > 0) fail(`${p.library}: ${problems.join(', ')}`);
  say(`· ${p.name}: needs glibc ${glibc} and ${needed.join(', ')}`);
  const folder = join(staging, p.name);
  mkdirSync(folder, { recursive: true });
  const stripped = spawnSync(p.cpu === 'arm64' && host !== 'linux-arm64' ? 'aarch64-linux-gnu-strip' : 'strip', [
    '--strip-unneeded',
    ...['-o', join(folder, file)],
    library,
  ]);
  if (stripped.status !== 0) cpSync(library, join(folder, file));
  cpSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
  writeFileSync(
    join(folder, 'README.md'),
    `# ${SCOPE}/${p.name}\n\nThe ${p.what} of temper-oss ${own.version} for ${p.name}, glibc ` +
      `${OLDEST_GLIBC} or newer. ` +
      'Installed by temper-oss; nothing to call here.\n',
  );
  writeFileSync(
    join(folder, 'package.json'),
    `${JSON.stringify(
      {
        name: `${SCOPE}/${p.name}`,
        description: `${p.what} of temper-oss for ${p.name}`,
        ...common,
        os: ['linux'],
        cpu: [p.cpu],
        libc: ['glibc'],
        engines: own.engines,
        files: [file],
      },
      null,
      2,
    )}\n`,
  );
  return pack(folder, out);
}

/** temper-oss as it is published: no scripts, no development dependencies, the platform packages in their place. */
function mainPackage(names, staging, out) {
  const folder = join(staging, own.name);
  const listed = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (listed.status !== 0) fail(`npm pack --dry-run: ${listed.stderr}`);
  for (const { path } of JSON.parse(listed.stdout)[0].files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(root, path), join(folder, path));
  }
  const { scripts: _scripts, devDependencies: _development, ...published } = own;
  writeFileSync(
    join(folder, 'package.json'),
    `${JSON.stringify(
      { ...published, optionalDependencies: Object.fromEntries(names.map((n) => [`${SCOPE}/${n}`, own.version])) },
      null,
      2,
    )}\n`,
  );
  return pack(folder, out);
}

/**
 * @param {{partial?: boolean, hostOnly?: boolean, out?: string}} options
 * @returns {{file: string, bytes: number, entries: number}[]} the tarballs, temper-oss last
 */
export function release({ partial = false, hostOnly = false, out = join(root, 'build', 'release') } = {}) {
  const lenient = partial || hostOnly;
  if (!lenient && git('status', '--porcelain') !== '')
    fail('there are uncommitted changes; commit them, or use --partial for a trial');
  succeed('npm ci', installDependencies());
  succeed('tsc -b', buildTypeScript());
  const wanted = PLATFORM_PACKAGES.filter((p) => !hostOnly || p.name === host);
  for (const p of wanted) {
    const reason = p.missing();
    if (reason && !lenient) fail(`${p.name} ${reason}; --partial leaves it out`);
    if (reason) say(`· ${p.name} is left out: it ${reason}`);
  }
  const made = wanted.filter((p) => p.missing() === '');
  const staging = join(out, 'staging');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  const packages = [
    ...made.map((p) => platformPackage(p, staging, out)),
    mainPackage(
      made.map((p) => p.name),
      staging,
      out,
    ),
  ];
  rmSync(staging, { recursive: true, force: true });
  return packages;
}

if (process.argv[1] && resolve(process.argv[1]) === join(root, 'scripts', 'release.mjs')) {
  checkNode();
  const at = process.argv.indexOf('--out');
  const packages = release({
    partial: process.argv.includes('--partial'),
    hostOnly: process.argv.includes('--host'),
    ...(at < 0 ? {} : { out: resolve(process.argv[at + 1] ?? '') }),
  });
  say(`\ntemper-oss ${own.version}, commit ${git('rev-parse', '--short', 'HEAD')}:`);
  for (const p of packages) say(`  ${p.file}  ${(statSync(p.file).size / 1e6).toFixed(1)} MB, ${p.entries} files`);
  say('Try them: node scripts/test-install.mjs --packages DIR --all. Publish in this order:');
  for (const p of packages) if (existsSync(p.file)) process.stdout.write(`npm publish --access public ${p.file}\n`);
}

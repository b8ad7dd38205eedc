// npm run build:native [-- --sanitize | --tests | --aarch64]: configures and builds native/ incrementally;
// build/temper.node is what src/native loads. --aarch64 cross-builds the tests and the addon into build/aarch64. npm
// run build:cuda [-- --architectures=90a,120]: build/temper_cuda.so, the CUDA backend; with --check the same for sm_80
// alone, not optimised, in a place of its own: what npm test does where nvcc is. --portable, with either of the last:
// what the prebuilt packages hold (scripts/release.mjs), beside and not instead of what src/native loads.
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const sanitize = process.argv.includes('--sanitize');
const aarch64 = process.argv.includes('--aarch64');
const cuda = process.argv.includes('--cuda');
const cudaCheck = cuda && process.argv.includes('--check');
const architectures =
  process.argv
    .find((a) => a.startsWith('--architectures='))
    ?.slice('--architectures='.length)
    .replaceAll(',', ';') ?? (cudaCheck ? '80' : '80;86;89;90a;120');
const folder = join(
  root,
  sanitize
    ? 'build-sanitize'
    : aarch64
      ? join('build', 'aarch64')
      : cuda
        ? join('build', cudaCheck ? 'cuda-check' : process.argv.includes('--portable') ? 'cuda-portable' : 'cuda')
        : 'build',
);
// The tests are in the repository, not in the published package.
const tests = existsSync(join(root, 'native', 'test'));
const portable = process.argv.includes('--portable');
const cudaLibrary = cudaCheck || portable ? join(folder, 'temper_cuda.so') : join(root, 'build', 'temper_cuda.so');
const cross = aarch64
  ? ['-DCMAKE_SYSTEM_NAME=Linux', '-DCMAKE_SYSTEM_PROCESSOR=aarch64', '-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++']
  : [];
const say = (text) => process.stderr.write(`build:native: ${text}\n`);
const has = (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0;

function needTools() {
  const missing = [
    ['cmake', has('cmake')],
    ['g++', has('g++') || has('c++') || has('clang++')],
    ['make', has('ninja') || has('make')],
  ]
    .filter(([, ok]) => !ok)
    .map(([name]) => name);
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.platform === 'linux' && process.getuid?.() === 0 && has('apt-get')) {
    say(`${missing.join(', ')} missing; running as root, so: apt-get update && ${command}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    spawnSync('apt-get', ['update', '-q'], { stdio: ['ignore', 2, 2], env });
    if (spawnSync('apt-get', command.split(' ').slice(1), { stdio: ['ignore', 2, 2], env }).status === 0) return;
  }
  say(
    `missing: ${missing.join(', ')}. Install with: sudo ${command}   (elsewhere: cmake ≥ 3.20 ` +
      'and a C++20 compiler such as g++ ≥ 12)',
  );
  process.exit(2);
}

/**
 * Two builds in one folder would tear each other's objects: the second waits. A lock whose process is gone is taken
 * over.
 */
function lock() {
  const path = join(folder, '.lock');
  let told = false;
  for (;;) {
    try {
      const fd = openSync(path, 'wx');
      writeSync(fd, String(process.pid));
      closeSync(fd);
      process.on('exit', () => rmSync(path, { force: true }));
      for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    let owner = 0;
    try {
      owner = Number(readFileSync(path, 'utf8'));
    } catch {
      continue;
    }
    let alive = owner > 0;
    try {
      process.kill(owner, 0);
    } catch (error) {
      alive = alive && error.code === 'EPERM';
    }
    if (!alive) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) say(`waiting for the build of process ${owner}`);
    told = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
}

function run(tool, args) {
  const result = spawnSync(tool, args, { stdio: ['ignore', 2, 2], cwd: root });
  if (result.status !== 0) {
    say(`${tool} ${args.join(' ')} failed`);
    process.exit(result.status ?? 1);
  }
}

/** Headers of Node's functions; the sanitized build has no addon and does without, before they are installed too. */
function nodeHeaders() {
  try {
    const { resolve } = createRequire(join(root, 'package.json'));
    const folderOf = (name) => dirname(resolve(`${name}/package.json`));
    return [join(folderOf('node-api-headers'), 'include'), folderOf('node-addon-api')].join(';');
  } catch {
    say('node_modules is missing; run `npm ci` first');
    process.exit(2);
  }
}

needTools();
const headers = sanitize ? '' : nodeHeaders();
mkdirSync(folder, { recursive: true });
lock();
const cache = join(folder, 'CMakeCache.txt');
// A folder that was copied or moved has a cache that points elsewhere; cmake refuses it.
if (
  existsSync(cache) &&
  !readFileSync(cache, 'utf8').includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${join(root, 'native')}\n`)
)
  rmSync(cache);
const generator = existsSync(cache) ? [] : has('ninja') ? ['-G', 'Ninja'] : ['-G', 'Unix Makefiles'];
if (!existsSync(cache)) rmSync(join(folder, 'CMakeFiles'), { recursive: true, force: true });
const log = spawnSync(
  'cmake',
  [
    '-S',
    'native',
    '-B',
    folder,
    ...generator,
    `-DTEMPER_SANITIZE=${sanitize ? 'ON' : 'OFF'}`,
    `-DTEMPER_NODE_HEADERS=${headers}`,
    '-DCMAKE_BUILD_TYPE=Release',
    ...(tests ? [] : ['-DTEMPER_TESTS=OFF']),
    ...cross,
    ...(cuda
      ? [
          '-DTEMPER_TESTS=OFF',
          '-DTEMPER_CUDA=on',
          `-DTEMPER_PORTABLE=${portable ? 'ON' : 'OFF'}`,
          `-DTEMPER_CUDA_CHECK=${cudaCheck ? 'ON' : 'OFF'}`,
          `-DTEMPER_CUDA_ARCHITECTURES=${architectures}`,
          `-DTEMPER_CUDA_OUTPUT=${cudaLibrary}`,
        ]
      : []),
  ],
  { cwd: root, encoding: 'utf8' },
);
if (log.status !== 0) {
  process.stderr.write(`${log.stdout}${log.stderr}`);
  say('cmake could not configure native/');
  process.exit(1);
}
const targets = cuda
  ? ['temper_cuda']
  : portable
    ? ['temper_addon_portable']
    : sanitize
      ? ['temper_native_test']
      : aarch64
        ? ['temper_native_test', 'temper_addon']
        : process.argv.includes('--tests')
          ? []
          : ['temper_addon'];
run('cmake', [
  '--build',
  folder,
  ...targets.flatMap((t) => ['--target', t]),
  '--parallel',
  String(availableParallelism()),
]);
say(
  cuda
    ? `${cudaLibrary} is up to date, for ${architectures
        .split(';')
        .map((a) => `sm_${a}`)
        .join(', ')}`
    : sanitize
      ? 'build-sanitize/temper_native_test is up to date'
      : aarch64
        ? 'build/aarch64 is up to date'
        : 'build/temper.node is up to date',
);

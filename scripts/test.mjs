// npm test: everything a change must pass, in tiers. Installs and builds what is missing. The last line sums all tiers:
// "N passed, N failed". With --fast (npm run test:fast) only what takes a minute or two: the checks, the addon, the
// fast test files (vitest.config.ts says which those are). `--no-coverage` leaves out the count of what ran.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { checks } from './check.mjs';
import { folder as coverageFolder, report as coverageReport, processes } from './coverage.mjs';
import {
  buildNative,
  checkNode,
  compileDependencies,
  installDependencies,
  installUncompiled,
  root,
  run,
  say,
} from './prepare.mjs';

const total = { passed: 0, failed: 0 };
const lines = [];
const started = Date.now();
const fast = process.argv.includes('--fast');
const counting = !fast && !process.argv.includes('--no-coverage');

/** Notes a tier's result. */
function note(tier, passed, failed, from, extra = '') {
  total.passed += passed;
  total.failed += failed;
  lines.push(
    `${failed ? '✗' : '✓'} ${tier}: ${passed} passed, ${failed} failed${extra} ` +
      `(${((Date.now() - from) / 1000).toFixed(1)} s)`,
  );
  say(lines.at(-1));
}
/** A tier that is one check. */
function check(tier, action) {
  const from = Date.now();
  const ok = action();
  note(tier, ok ? 1 : 0, ok ? 0 : 1, from);
  return ok;
}
function skip(tier, reason) {
  lines.push(`- ${tier}: skipped, ${reason}`);
  say(lines.at(-1));
}
function finish() {
  say('');
  for (const line of lines) say(line);
  say(`${((Date.now() - started) / 1000).toFixed(0)} s in all`);
  process.stdout.write(`${total.passed} passed, ${total.failed} failed\n`);
  process.exit(total.failed > 0 || total.passed === 0 ? 1 : 0);
}

/** Runs a program, its output kept and shown when it ends: two lanes do not mix their lines. */
function finished(tool, args, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(tool, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    const all = [],
      out = [];
    child.stdout.on('data', (d) => {
      all.push(d);
      out.push(d);
    });
    child.stderr.on('data', (d) => all.push(d));
    const end = (status, signal) => {
      process.stderr.write(Buffer.concat(all));
      resolve({ status, signal, out: Buffer.concat(out).toString() });
    };
    child.on('error', () => end(1, null));
    child.on('close', end);
  });
}

/**
 * A program whose last line of stdout is "N passed, N failed", or "skipped: why". A crash before that line is one
 * failure.
 */
async function counted(tier, tool, args, env = {}) {
  say(`· ${tier}`);
  const from = Date.now();
  const { status, signal, out } = await finished(tool, args, env);
  const found = /(\d+) passed, (\d+) failed\s*$/.exec(out);
  const skipped = /^skipped: (.*)\s*$/m.exec(out);
  if (skipped && !found && status === 0) return skip(tier, skipped[1]);
  const passed = Number(found?.[1] ?? 0);
  let failed = Number(found?.[2] ?? 0);
  if (failed === 0 && (!found || status !== 0)) failed = 1;
  note(tier, passed, failed, from, signal ? `, ended by ${signal}` : '');
}

/** A native build as a tier. @returns whether it succeeded */
async function built(tier, args, env = {}) {
  say(`· ${tier}`);
  const from = Date.now();
  const { status } = await finished(process.execPath, [join('scripts', 'build-native.mjs'), ...args], env);
  note(tier, status === 0 ? 1 : 0, status === 0 ? 0 : 1, from);
  return status === 0;
}

/** Runs vitest. @returns whether it said that all is well, and its report; null: there is none */
function ranVitest(name, args, env = {}) {
  const file = join(root, 'build', `${name}.json`);
  rmSync(file, { force: true });
  const ok = run(
    process.execPath,
    [
      join('node_modules', 'vitest', 'vitest.mjs'),
      'run',
      ...args,
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${file}`,
    ],
    { env: { ...process.env, ...(counting ? {} : { TEMPER_TEST_COMPILED: '1' }), ...env } },
  );
  if (!existsSync(file)) return { ok, report: null };
  const report = JSON.parse(readFileSync(file, 'utf8'));
  for (const f of report.testResults) f.file = relative(root, f.name);
  return { ok, report };
}
/** Names of what failed, with the file; a file that could not be loaded or prepared has no failed test of its own. */
const failuresOf = ({ testResults }) =>
  testResults.flatMap(({ file, status, assertionResults }) => {
    const failed = assertionResults.filter((a) => a.status === 'failed').map((a) => `${file}, ${a.fullName}`);
    return status === 'failed' && failed.length === 0 ? [file] : failed;
  });
/** More files than that do not fail by chance. */
const MOST_UNSTEADY = 3;

/**
 * What fails in a few files runs once more, by itself: a failure is what fails twice. What passes then is named as
 * unsteady, for somebody to mend.
 */
function again(failures) {
  const files = [...new Set(failures.map((name) => name.split(', ')[0]))];
  if (failures.length === 0 || files.length > MOST_UNSTEADY) return failures;
  say(`· once more, alone: ${files.join(', ')}`);
  const { ok, report } = ranVitest('vitest-again', [...files, '--maxWorkers=1']);
  const twice = report ? failuresOf(report) : failures;
  if (!ok && twice.length === 0) return failures;
  for (const name of failures.filter((f) => !twice.includes(f)))
    lines.push(`! unsteady, passed when run alone: ${name}`);
  return twice;
}

function vitest() {
  const from = Date.now();
  rmSync(coverageFolder, { recursive: true, force: true });
  mkdirSync(processes, { recursive: true });
  const { ok, report } = ranVitest(
    'vitest',
    [...(fast ? ['--project', 'fast'] : []), ...(counting ? ['--coverage'] : [])],
    counting ? { TEMPER_COVERAGE: processes } : {},
  );
  if (!report) return note('vitest', 0, 1, from, ', no report');
  const once = failuresOf(report),
    failed = again(once);
  const isSkipped = (a) => a.status === 'skipped' || a.status === 'pending' || a.status === 'todo';
  note(
    'vitest',
    report.numPassedTests + Math.max(0, once.length - failed.length),
    ok || once.length > 0 ? failed.length : 1,
    from,
  );
  for (const { file, assertionResults } of report.testResults)
    for (const a of assertionResults.filter(isSkipped)) skip(`${file}, ${a.fullName}`, 'the file says what it needs');
  const slowest = report.testResults
    .map(({ file, startTime, endTime }) => ({ file, seconds: (endTime - startTime) / 1000 }))
    .sort((a, b) => b.seconds - a.seconds)
    .slice(0, fast ? 5 : 8);
  lines.push(`  slowest files: ${slowest.map((f) => `${f.file} ${f.seconds.toFixed(0)} s`).join(', ')}`);
  if (counting) lines.push(...coverageReport());
}

checkNode();
// Needs nothing that is installed, and npm waits for the network and the disk.
const sanitized = fast ? null : built('native build, ASan and UBSan', ['--sanitize']);
if (!check('dependencies', fast ? installDependencies : installUncompiled)) {
  await sanitized;
  finish();
}
if (fast) {
  for (const [name, holds] of Object.entries(checks())) check(name, holds);
  if (check('native build', () => buildNative())) vitest();
  finish();
}
const script = (name) => [join('scripts', name)];
/**
 * cmake-js compiles what the native build has compiled, with the same commands but for its definition: where ccache is,
 * it finds the objects.
 */
const cached =
  spawnSync('ccache', ['--version'], { stdio: 'ignore' }).status === 0
    ? { CMAKE_CXX_COMPILER_LAUNCHER: 'ccache', CCACHE_DEPEND: '1' }
    : {};
const compiled = compileDependencies();
const [native] = await Promise.all([
  built('native build', ['--tests'], { ...cached, CXXFLAGS: '-DBUILDING_NODE_EXTENSION' }),
  counted('checks', process.execPath, script('check.mjs')),
]);
/**
 * What the reference says of the quick cases, worked out once: its doubles would be most of the time under emulation
 * and under the sanitizers. The native tests themselves work it out anew. @returns arguments that take it
 */
async function workedOut() {
  const answers = join('build', 'answers.bin');
  const { status } = await finished(join('build', 'temper_native_test'), ['--quick', '--keep-answers', answers]);
  return status === 0 ? ['--answers', answers] : [];
}
const known = native ? workedOut() : Promise.resolve([]);
/** The sanitized tests of one backend: in two parts, so that neither is what all others wait for. */
const sanitizedTests = (backend) => async () => {
  if (!(await sanitized)) return;
  const args = ['--quick', '--backend', backend, ...(await known)];
  await counted(`native tests of ${backend}, ASan and UBSan`, join('build-sanitize', 'temper_native_test'), args, {
    ASAN_OPTIONS: 'detect_leaks=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
  });
};
/**
 * Mostly one thread each, so two at a time, the longest first; last those that take all cores. What vitest measures
 * wants the machine for itself and comes after.
 */
const tiers = [
  sanitizedTests('emulation'),
  async () => {
    if (native) await counted('native tests', join('build', 'temper_native_test'), []);
  },
  async () => {
    if (!native) return;
    const answers = await known;
    await counted('native tests, aarch64 under emulation', process.execPath, [
      ...script('test-aarch64.mjs'),
      ...answers,
    ]);
  },
  sanitizedTests('cpu'),
  async () => {
    // One after the other: both fetch the Nodes that are not here.
    if (native) await counted('smoke on Node 20, 22, 24', process.execPath, script('smoke-nodes.mjs'));
    if (native) await counted('install from packed tarballs', process.execPath, script('test-install.mjs'));
  },
  async () => {
    // Its kernels run in the native tests and in test/cuda, compiled for the host. Here nvcc compiles and links them
    // for one architecture; `npm run build:cuda` is for all five and takes minutes.
    if (spawnSync('nvcc', ['--version'], { stdio: 'ignore' }).status === 0)
      await built('cuda compiles for sm_80', ['--cuda', '--check']);
    else skip('cuda compiles', 'nvcc is not in PATH');
  },
  async () => {
    if (native) await counted('native build through cmake-js', process.execPath, script('test-cmake-js.mjs'), cached);
  },
];
const lane = async () => {
  for (let next = tiers.shift(); next; next = tiers.shift()) await next();
};
await Promise.all([lane(), lane()]);
rmSync(join(root, 'build', 'answers.bin'), { force: true });
await compiled;
if (native) vitest();
skip(
  'cuda on a GPU',
  existsSync('/dev/nvidia0')
    ? 'by hand: npm run build:cuda, then build/temper_native_test --backend cuda'
    : 'there is none',
);
skip('weights', 'needs the released gpt-oss-20b files; no test uses them yet');
finish();

// node scripts/test-aarch64.mjs [--answers FILE]: cross-builds the native code for aarch64 and runs its quick tests
// under qemu. What the reference says of each case is worked out on this machine first: it is no kernel, and takes most
// of the time there. Last line: "N passed, N failed", or "skipped: why" where a tool is missing. Installs nothing.
// Debian: apt-get install g++-aarch64-linux-gnu qemu-user
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildNative, root, run, say } from './prepare.mjs';

const SYSROOT = '/usr/aarch64-linux-gnu'; // Debian's: where the emulated program finds its loader and libstdc++
// The plainest ARMv8.0 and everything qemu knows: what a newer core would offer must not be needed, and must not be
// wrong.
/** @type {[string, string[]][]} CPU of qemu, arguments of the test program */
const CPUS = [
  ['max', ['--quick', '--backend', 'cpu']],
  // what the fibers of the emulated GPU do elsewhere: barriers and shuffles of a few kernels; each switch is slow here
  ['max', ['--quick', '--backend', 'emulation', '--filter', 'x2880']],
  ['cortex-a53', ['--quick', '--backend', 'cpu', '--filter', 'linear_fwd']],
];

const has = (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0;

function reasonToSkip() {
  if (process.arch === 'arm64') return 'this machine is aarch64, so the native tests ran on it';
  if (process.platform !== 'linux') return 'qemu-user runs on Linux only';
  const missing = ['cmake', 'aarch64-linux-gnu-g++', 'qemu-aarch64'].filter((tool) => !has(tool));
  if (missing.length > 0)
    return `${missing.join(' and ')} not found (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)`;
  if (!existsSync(join(SYSROOT, 'lib')))
    return `no aarch64 libraries in ${SYSROOT} (Debian: apt-get install libc6-dev-arm64-cross)`;
  return '';
}

function main() {
  const reason = reasonToSkip();
  if (reason) {
    process.stdout.write(`skipped: ${reason}\n`);
    return 0;
  }
  const given = process.argv.indexOf('--answers');
  const answers = given < 0 ? join('build', 'answers.bin') : process.argv[given + 1];
  const worked = () =>
    buildNative(['--tests']) && run(join('build', 'temper_native_test'), ['--quick', '--keep-answers', answers]);
  if (!buildNative(['--aarch64']) || (given < 0 && !worked())) {
    process.stdout.write('0 passed, 1 failed\n');
    return 1;
  }
  const total = { passed: 0, failed: 0 };
  for (const [cpu, args] of CPUS) {
    say(`· qemu-aarch64 -cpu ${cpu} temper_native_test ${args.join(' ')}`);
    const env = { ...process.env };
    delete env.TEMPER_ISA; // every path of the emulated CPU, whatever is forced for this one
    const child = spawnSync(
      'qemu-aarch64',
      ['-L', SYSROOT, '-cpu', cpu, join('build', 'aarch64', 'temper_native_test'), '--answers', answers, ...args],
      { cwd: root, encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 },
    );
    const found = /(\d+) passed, (\d+) failed\s*$/.exec(child.stdout ?? '');
    process.stdout.write((child.stdout ?? '').replace(/\d+ passed, \d+ failed\s*$/, ''));
    const failed = Number(found?.[2] ?? 0);
    total.passed += Number(found?.[1] ?? 0);
    total.failed += failed > 0 || (found && child.status === 0) ? failed : 1;
    if (!found) say(`· ended by ${child.signal ?? `exit code ${child.status}`} before its summary`);
  }
  process.stdout.write(`${total.passed} passed, ${total.failed} failed\n`);
  return total.failed > 0 ? 1 : 0;
}

process.exitCode = main();

// `temper doctor`: what this machine has and what will run on it.
import { cpus, freemem, totalmem } from 'node:os';
import { TemperError } from '../../base/errors.js';
import { describeDevice } from '../../native/backends.js';
import type { BackendReport } from '../../native/device.js';
import { type Command, examples, printJson } from '../command.js';
import { print } from '../terminal.js';

const GIB = 2 ** 30;

/** Driver, library and devices of a backend, or what is missing and how to get it. */
function backendLines(b: BackendReport): string[] {
  const built = b.built
    ? [`${b.library}${b.builtFor ? `, for ${b.builtFor.replaceAll(' sm_', ', sm_')}` : ''}`]
    : b.problem?.code === 'addon_version'
      ? []
      : [`${b.library} is not built; \`${b.build}\` builds it (needs ${b.needs})`];
  const driver = b.driver
    ? `driver for version ${b.driver}, library made with ${b.runtime ?? '?'}`
    : b.problem?.code === 'no_driver'
      ? 'no driver'
      : b.problem?.code === 'addon_version'
        ? 'a package of another version'
        : 'a driver';
  return [
    `${b.backend.padEnd(10)}${driver}`,
    ...built.map((line) => `          ${line}`),
    ...b.devices.map(
      (d) =>
        `device    ${b.backend}:${d.index} ${d.name}, sm_${d.major}${d.minor}, ${d.multiprocessors} ` +
        `multiprocessors, ${(d.memory / GIB).toFixed(1)} GiB`,
    ),
    ...(b.problem && (b.built || built.length === 0) ? [`          ${b.problem.message}`] : []),
  ];
}

/** What can be said whether or not there is an addon. */
const machine = () => ({
  node: process.version,
  platform: `${process.platform}-${process.arch}`,
  memory: { totalBytes: totalmem(), freeBytes: freemem() },
});

/** All of it; without an addon what is wrong with it takes the place of the rest. */
async function look(measure: boolean) {
  const [{ cpuInfo, measureLimits, opCount }, { backendReports, useDevice }] = await Promise.all([
    import('../../native/machine.js'),
    import('../../native/device.js'),
  ]);
  try {
    const { model, isa, features, threads } = cpuInfo();
    const counts = [...new Set([1, threads >> 1, threads])].filter((n) => n > 0).sort((a, b) => a - b);
    return {
      ...machine(),
      cpu: { model, cores: cpus().length, isa, features, threads },
      limits: measure ? counts.map(measureLimits) : [],
      addon: { ops: opCount() },
      backends: backendReports(),
      device: useDevice('auto'),
    };
  } catch (e) {
    // What the user set wrong is no fact of the machine.
    if (!(e instanceof TemperError && e.code.startsWith('addon_'))) throw e;
    return { ...machine(), addon: { problem: { code: e.code, message: e.message } } };
  }
}

function linesOf(report: Awaited<ReturnType<typeof look>>): string[] {
  const memory =
    `memory    ${(report.memory.totalBytes / GIB).toFixed(1)} GiB, ` +
    `${(report.memory.freeBytes / GIB).toFixed(1)} GiB free`;
  const head = `node      ${report.node} on ${report.platform}`;
  if (!('backends' in report))
    return [
      head,
      `cpu       ${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`,
      memory,
      `addon     ${report.addon.problem.message}`,
    ];
  const { cpu } = report;
  return [
    head,
    `cpu       ${cpu.model}, ${cpu.cores} cores; ${cpu.threads} threads used`,
    `kernels   ${cpu.isa} (has ${cpu.features.join(', ')})`,
    memory,
    ...report.limits.map(
      (l) =>
        `limits    ${l.gflops.toFixed(0)} GFLOP/s ` +
        `(${cpu.isa === 'avx512bf16' ? 'bf16 dot products' : 'f32'}), ` +
        `${l.gbPerSecond.toFixed(1)} GB/s read, ${l.threads} thread${l.threads > 1 ? 's' : ''}`,
    ),
    `addon     loaded, ${report.addon.ops} ops`,
    ...report.backends.flatMap(backendLines),
    `auto      ${describeDevice(report.device)}`,
  ];
}

export const command: Command = {
  name: 'doctor',
  summary: 'what this machine has: CPU features, memory, the native addon, and what will run',
  register(program) {
    program
      .command('doctor')
      .summary(this.summary)
      .description(this.summary)
      .option('--no-measure', 'leave out the limits of arithmetic and memory, which take a few seconds')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper doctor', 'temper doctor --no-measure --json'))
      .action(async (options: { measure: boolean; json?: boolean }) => {
        const report = await look(options.measure);
        if ('problem' in report.addon) process.exitCode = 2;
        if (options.json) printJson(report);
        else print(...linesOf(report));
      });
  },
};

// `temper doctor`: what this machine has and what will run on it.
import { cpus, freemem, totalmem } from 'node:os';
import type { BackendReport } from '../../native/device.js';
import { type Command, examples, printJson } from '../command.js';

const GIB = 2 ** 30;

/** Driver, library and devices of a backend, or what is missing and how to get it. */
function backendLines(b: BackendReport): string[] {
  const built = b.built
    ? `${b.library}${b.builtFor ? `, for ${b.builtFor.replaceAll(' sm_', ', sm_')}` : ''}`
    : `${b.library} is not built; \`${b.build}\` builds it (needs ${b.needs})`;
  const driver = b.driver
    ? `driver for version ${b.driver}, library made with ${b.runtime ?? '?'}`
    : b.problem?.code === 'no_driver'
      ? 'no driver'
      : 'a driver';
  return [
    `${b.backend.padEnd(10)}${driver}`,
    `          ${built}`,
    ...b.devices.map(
      (d) =>
        `device    ${b.backend}:${d.index} ${d.name}, sm_${d.major}${d.minor}, ${d.multiprocessors} ` +
        `multiprocessors, ${(d.memory / GIB).toFixed(1)} GiB`,
    ),
    ...(b.problem && b.built ? [`          ${b.problem.message}`] : []),
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
        const [{ cpuInfo, measureLimits, opCount }, { backendReports, describeDevice, useDevice }] = await Promise.all([
          import('../../native/machine.js'),
          import('../../native/device.js'),
        ]);
        const info = cpuInfo();
        const counts = [...new Set([1, info.threads >> 1, info.threads])].filter((n) => n > 0).sort((a, b) => a - b);
        const report = {
          node: process.version,
          platform: `${process.platform}-${process.arch}`,
          cpu: {
            model: info.model,
            cores: cpus().length,
            isa: info.isa,
            features: info.features,
            threads: info.threads,
          },
          memory: { totalBytes: totalmem(), freeBytes: freemem() },
          limits: options.measure ? counts.map(measureLimits) : [],
          addon: { ops: opCount() },
          backends: backendReports(),
          device: useDevice('auto'),
        };
        if (options.json) {
          printJson(report);
          return;
        }
        process.stdout.write(
          [
            `node      ${report.node} on ${report.platform}`,
            `cpu       ${info.model}, ${report.cpu.cores} cores; ${info.threads} threads used`,
            `kernels   ${info.isa} (has ${info.features.join(', ')})`,
            `memory    ${(report.memory.totalBytes / GIB).toFixed(1)} GiB, ` +
              `${(report.memory.freeBytes / GIB).toFixed(1)} GiB free`,
            ...report.limits.map(
              (l) =>
                `limits    ${l.gflops.toFixed(0)} GFLOP/s ` +
                `(${info.isa === 'avx512bf16' ? 'bf16 dot products' : 'f32'}), ` +
                `${l.gbPerSecond.toFixed(1)} GB/s read, ${l.threads} thread${l.threads > 1 ? 's' : ''}`,
            ),
            `addon     loaded, ${report.addon.ops} ops`,
            ...report.backends.flatMap(backendLines),
            `auto      ${describeDevice(report.device)}`,
            '',
          ].join('\n'),
        );
      });
  },
};

// `temper doctor`: what this machine has and what will run on it.
import { cpus, freemem, totalmem } from 'node:os';
import type { CudaReport } from '../../native/device.js';
import { type Command, examples, printJson } from '../command.js';

const GIB = 2 ** 30;

/** Driver, library and devices, or what is missing and how to get it. */
function cudaLines(cuda: CudaReport): string[] {
  const built = cuda.built
    ? `${cuda.library}${cuda.builtFor ? `, for ${cuda.builtFor.replaceAll(' sm_', ', sm_')}` : ''}`
    : `${cuda.library} is not built; \`npm run build:cuda\` builds it (needs nvcc 12.8 or newer)`;
  const driver = cuda.driver
    ? `driver for CUDA ${cuda.driver}, library made with ${cuda.runtime ?? '?'}`
    : cuda.problem?.code === 'no_driver'
      ? 'no NVIDIA driver: computing on the CPU'
      : 'an NVIDIA driver';
  return [
    `cuda      ${driver}`,
    `          ${built}`,
    ...cuda.devices.map(
      (d) =>
        `device    cuda:${d.index} ${d.name}, sm_${d.major}${d.minor}, ${d.multiprocessors} ` +
        `multiprocessors, ${(d.memory / GIB).toFixed(1)} GiB`,
    ),
    ...(cuda.problem && cuda.built ? [`          ${cuda.problem.message}`] : []),
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
        const [{ cpuInfo, measureLimits, opCount }, { cudaReport }] = await Promise.all([
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
          cuda: cudaReport(),
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
            ...cudaLines(report.cuda),
            '',
          ].join('\n'),
        );
      });
  },
};

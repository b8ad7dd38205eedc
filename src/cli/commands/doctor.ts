// `temper doctor`: what this machine has and what will run on it.
import { existsSync } from 'node:fs';
import { cpus, freemem, totalmem } from 'node:os';
import { type Command, examples, printJson } from '../command.js';

const GIB = 2 ** 30;

export const command: Command = {
  name: 'doctor',
  summary: 'what this machine has: CPU features, memory, the native addon, and what will run',
  register(program) {
    program.command('doctor').summary(this.summary).description(this.summary)
      .option('--no-measure', 'leave out the limits of arithmetic and memory, which take a few seconds')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper doctor', 'temper doctor --no-measure --json'))
      .action(async (options: { measure: boolean; json?: boolean }) => {
        const [{ addon }, { measureLimits }] = await Promise.all([import('../../native/addon.js'), import('../../bench/bench.js')]);
        const info = addon.cpuInfo();
        const counts = [...new Set([1, info.threads >> 1, info.threads])].filter((n) => n > 0).sort((a, b) => a - b);
        const report = {
          node: process.version,
          platform: `${process.platform}-${process.arch}`,
          cpu: { model: info.model, cores: cpus().length, isa: info.isa, features: info.features, threads: info.threads },
          memory: { totalBytes: totalmem(), freeBytes: freemem() },
          limits: options.measure ? counts.map(measureLimits) : [],
          addon: { ops: addon.opNames.length },
          gpu: { driver: existsSync('/proc/driver/nvidia/version'), backend: 'cpu' },
        };
        if (options.json) { printJson(report); return; }
        process.stdout.write([
          `node      ${report.node} on ${report.platform}`,
          `cpu       ${info.model}, ${report.cpu.cores} cores; ${info.threads} threads used`,
          `kernels   ${info.isa} (has ${info.features.join(', ')})`,
          `memory    ${(report.memory.totalBytes / GIB).toFixed(1)} GiB, ${(report.memory.freeBytes / GIB).toFixed(1)} GiB free`,
          ...report.limits.map((l) => `limits    ${l.gflops.toFixed(0)} GFLOP/s (${info.isa === 'avx512bf16' ? 'bf16 dot products' : 'f32'}), ${l.gbPerSecond.toFixed(1)} GB/s read, ${l.threads} thread${l.threads > 1 ? 's' : ''}`),
          `addon     loaded, ${report.addon.ops} ops`,
          `gpu       ${report.gpu.driver ? 'an NVIDIA driver is present; this build computes on the CPU' : 'none found; computing on the CPU'}`,
          '',
        ].join('\n'));
      });
  },
};

// `temper build-native`: the addon, or the CUDA backend, built where this package lies. For platforms without a
// prebuilt package, and for a machine's own compiler.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { packageRoot } from '../../base/machine.js';
import { type Command, examples } from '../command.js';

export const command: Command = {
  name: 'build-native',
  summary: 'build the native addon here, where there is no prebuilt package for the platform',
  register(program) {
    program
      .command('build-native')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nNeeds cmake, make or ninja, and a C++20 compiler such as g++ 12; with --cuda nvcc 12.8 ` +
          `or newer. Writes ${join(packageRoot, 'build')} and nothing else; what is built there is taken before a ` +
          'prebuilt package.',
      )
      .option('--cuda', 'the CUDA backend instead of the addon')
      .option('--architectures <list>', 'with --cuda: compute capabilities, e.g. 90a,120; fewer build faster')
      .addHelpText(
        'after',
        examples('temper build-native', 'temper build-native --cuda', 'temper build-native --cuda --architectures 90a'),
      )
      .action((options: { readonly cuda?: boolean; readonly architectures?: string }) => {
        const child = spawnSync(
          process.execPath,
          [
            join(packageRoot, 'scripts', 'build-native.mjs'),
            ...(options.cuda ? ['--cuda'] : []),
            ...(options.architectures === undefined ? [] : [`--architectures=${options.architectures}`]),
          ],
          { cwd: packageRoot, stdio: 'inherit' },
        );
        process.exitCode = child.status ?? 1;
      });
  },
};

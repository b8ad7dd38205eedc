// `temper model init`: random weights in the released format.

import { type Command, examples, group, integerIn, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

const PRESETS = ['nano', 'slice', '20b', '120b'] as const;

export const command: Command = {
  name: 'model init',
  summary: 'write a checkpoint of random weights in the released format, for tests and benchmarks',
  register(program) {
    group(program, 'model', 'make and look at checkpoints')
      .command('init')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nnano: a miniature; slice: two layers of the released shapes; 20b, ` +
          `120b: the released models' shapes (14 and 65 GB).`,
      )
      .argument('<dir>', 'new folder')
      .addOption(new Option('--preset <name>', 'shape of the model').choices(PRESETS).makeOptionMandatory())
      .option('--seed <n>', 'the same seed gives the same bytes', integerIn(0, 2 ** 24), 0)
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper model init /tmp/slice --preset slice --seed 1',
          'temper model init /data/random-20b --preset 20b',
        ),
      )
      .action(async (dir: string, options: { preset: (typeof PRESETS)[number]; seed: number; json?: boolean }) => {
        const { initInThread } = await import('../../model/threads.js');
        const { checkpointTensors, specBytes } = await import('../../model/layout.js');
        const { PRESETS: configs } = await import('../../model/init.js');
        const total = checkpointTensors(configs[options.preset]).reduce((n, t) => n + specBytes(t), 0);
        const progress = createProgress({ label: 'init', total, unit: 'bytes', quiet: options.json === true });
        await initInThread(dir, options.preset, {
          seed: options.seed,
          signal: interruptSignal(),
          onProgress: (done) => progress.update(done),
        });
        progress.finish();
        if (options.json) {
          printJson({ dir, preset: options.preset, seed: options.seed, weightBytes: total });
          return;
        }
        print(
          `${dir}: ${(total / 1e6).toFixed(1)} MB of random weights, preset ${options.preset}, seed ${options.seed}`,
        );
      });
  },
};

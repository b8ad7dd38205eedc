// `temper verify`: an export is what was trained, shown on every logit.
import { type Command, examples, interruptSignal, printJson } from '../command.js';

interface Options {
  readonly run?: string;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'verify',
  summary: 'load an export again and compare all logits with what was trained; check digests',
  register(program) {
    program
      .command('verify')
      .summary(this.summary)
      .description(`${this.summary}.`)
      .argument('<dir>', 'PEFT folder made by temper export or by a run')
      .option('--run <dir>', 'run it was exported from (found by itself where it can be)')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples('temper verify out/nano-lora', 'temper verify out/nano-lora --run runs/nano-lora --json') +
          '\nExit codes: 0 the same, 40 not what was trained.\n',
      )
      .action(async (dir: string, options: Options) => {
        const { verify } = await import('../../export/export.js');
        const r = await verify(dir, {
          signal: interruptSignal(),
          ...(options.run === undefined ? {} : { run: options.run }),
        });
        if (!r.ok) process.exitCode = 40;
        if (options.json) {
          printJson(r);
          return;
        }
        process.stdout.write(
          `${r.ok ? 'same' : 'NOT THE SAME'}: ${r.compared} logits compared with step ${r.step}, ` +
            `largest difference ${r.maxDifference.toExponential(2)} (largest logit ` +
            `${r.maxLogit.toFixed(2)}; the adapter moves logits by up to ${r.maxEffect.toFixed(2)})\n`,
        );
      });
  },
};

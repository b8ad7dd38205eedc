// `temper export`: a run's adapter for others to load.
import { InvalidArgumentError, Option } from 'commander';
import { type Command, examples, interruptSignal, printJson } from '../command.js';

interface Options {
  readonly format: 'peft';
  readonly out: string;
  readonly baseModel?: string;
  readonly checkpoint?: 'last' | 'best' | number;
  readonly json?: boolean;
}

function checkpointName(text: string): 'last' | 'best' | number {
  if (text === 'last' || text === 'best') return text;
  const step = Number(text);
  if (Number.isInteger(step) && step > 0) return step;
  throw new InvalidArgumentError('wanted last, best or the number of a step.');
}

export const command: Command = {
  name: 'export',
  summary: 'write what a run trained in a form others load',
  register(program) {
    program
      .command('export')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\npeft: adapter_config.json, adapter_model.safetensors (f32) and a ` +
          'model card, as peft 0.17 and later read them. temper verify proves it.',
      )
      .argument('<run>', 'run folder')
      .addOption(new Option('--format <name>', 'form of the export').choices(['peft']).default('peft'))
      .requiredOption('--out <dir>', 'new folder')
      .option(
        '--base-model <name>',
        "what the adapter's config calls its base, e.g. openai/gpt-oss-20b (default: the folder's name)",
      )
      .option(
        '--checkpoint <which>',
        'a checkpoint in place of the finished run: last, best (of train.evalEvery), or a step',
        checkpointName,
      )
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper export runs/nano-lora --out out/nano-lora',
          'temper export runs/nano-lora --checkpoint best --out out/nano-lora-best',
          'temper export runs/tickets --format peft --base-model openai/gpt-oss-20b --out out/tickets',
        ),
      )
      .action(async (run: string, options: Options) => {
        const { exportRun } = await import('../../export/export.js');
        const result = await exportRun(
          {
            run,
            out: options.out,
            ...(options.baseModel === undefined ? {} : { baseModel: options.baseModel }),
            ...(options.checkpoint === undefined ? {} : { checkpoint: options.checkpoint }),
          },
          { signal: interruptSignal() },
        );
        if (options.json) {
          printJson(result);
          return;
        }
        process.stdout.write(
          `${options.out}  (step ${result.step})\n${Object.entries(result.files)
            .map(([name, digest]) => `  ${name}  ${digest}`)
            .join('\n')}\nprove it with: temper verify ${options.out}\n`,
        );
      });
  },
};

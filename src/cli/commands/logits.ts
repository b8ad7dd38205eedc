// `temper logits`: logits of token sequences, for comparison with other implementations.

import { type Command, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

interface Options {
  readonly model: string;
  readonly adapter?: string;
  readonly tokens: string;
  readonly out: string;
  readonly precision: 'f32' | 'bf16';
  readonly threads?: number;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'logits',
  summary: 'write the logits of given token sequences, for comparison with other implementations',
  register(program) {
    program
      .command('logits')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nReads {"tokens": [[…], …], "positions": […]?} and writes f32 tensors ` +
          'logits.0, logits.1, … [T, V], only the rows at positions where given.',
      )
      .requiredOption('--model <dir>', 'checkpoint folder')
      .option('--adapter <dir>', 'PEFT adapter folder')
      .requiredOption('--tokens <file.json>', 'token sequences')
      .requiredOption('--out <file.safetensors>', 'where the logits go')
      .addOption(
        new Option(
          '--precision <p>',
          'f32: float32 activations over the exact weights; bf16: as in training and serving',
        )
          .choices(['f32', 'bf16'])
          .default('f32'),
      )
      .option('--threads <n>', 'CPU threads', integerIn(1, 1024))
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper logits --model models/nano --tokens tokens.json --out logits.safetensors',
          'temper logits --model DIR --adapter runs/a/adapter --tokens tokens.json --out ' +
            'l.safetensors --precision bf16',
        ),
      )
      .action(async (options: Options) => {
        const { logitsFile } = await import('../../evaluate/evaluate.js');
        const { json, ...request } = options;
        let progress: ReturnType<typeof createProgress> | undefined;
        const summary = await logitsFile({
          ...request,
          signal: interruptSignal(),
          onProgress({ done, total }) {
            progress ??= createProgress({ label: 'logits', total, unit: 'sequences', quiet: json === true });
            progress.update(done);
          },
        });
        progress?.finish();
        if (json) printJson({ ...summary, out: options.out, precision: options.precision });
        else print(`${options.out}: ${summary.rows} rows of ${summary.sequences} sequences, ${summary.bytes} bytes`);
      });
  },
};

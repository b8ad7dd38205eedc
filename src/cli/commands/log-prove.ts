// `temper log prove`: what shows somebody without the log that a record is in it, or that it goes on from what it was.
import { type Command, examples, group, interruptSignal, safeJson } from '../command.js';
import { createProgress } from '../progress.js';
import { print, tell } from '../terminal.js';
import { LOG_GROUP } from './log-verify.js';

interface Options {
  readonly since?: string;
  readonly open?: string;
  readonly out?: string;
}

export const command: Command = {
  name: 'log prove',
  summary: 'a proof that the record of a receipt is in the log, or that the log goes on from a checkpoint',
  register(program) {
    group(program, ...LOG_GROUP)
      .command('prove')
      .summary(this.summary)
      .description(`${this.summary}.\n\`temper log check\` checks it by itself, with the public key alone.`)
      .argument('<dir>', 'folder that --log wrote')
      .argument('[receipt]', 'as an answer brought it')
      .option('--since <file>', 'in place of a receipt: a checkpoint that was kept')
      .option(
        '--open <key>',
        'private key of the log: the proof then tells who has the contents that the record is about them',
      )
      .option('--out <file>', 'where to; absent: stdout')
      .addHelpText(
        'after',
        examples(
          'temper log prove verdict-log 3f2a9c0d1e4b5a69.0.12.9d5e… --out proof.json',
          'temper log prove verdict-log --since checkpoint.txt',
        ),
      )
      .action(async (dir: string, receipt: string | undefined, options: Options) => {
        const { ConfigError } = await import('../../base/errors.js');
        if ((receipt === undefined) === (options.since === undefined))
          throw new ConfigError('bad_option', 'log prove: wanted a receipt, or --since FILE, one of the two');
        const { proveLogGrowth, proveVerdict } = await import('../../verdict-log/threads.js');
        const progress = createProgress({ label: 'prove', unit: 'bytes', quiet: false });
        let bytes = 0;
        const watch = {
          signal: interruptSignal(),
          onProgress: (more: number) => {
            bytes += more;
            progress.update(bytes);
          },
        };
        const { open, since, out } = options;
        const proofs =
          receipt !== undefined
            ? [await proveVerdict({ dir, receipt, ...(open === undefined ? {} : { open }) }, watch)]
            : await proveLogGrowth({ dir, since: since ?? '' }, watch);
        progress.finish();
        const text = proofs.map((proof) => safeJson(proof));
        if (out === undefined) {
          print(...text);
          return;
        }
        const { writeFileAtomic } = await import('../../base/files.js');
        writeFileAtomic(out, `${text.join('\n')}\n`);
        tell(`temper: proof in ${out}`);
      });
  },
};

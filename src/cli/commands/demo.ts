// `temper demo`: the whole story on the embedded nano models.
import { relative } from 'node:path';
import { type Command, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { goOnWithoutReader } from '../streams.js';
import { print } from '../terminal.js';

export const command: Command = {
  name: 'demo',
  summary: 'the whole story on the embedded nano models: train, compare, screen, gate, export, sign',
  register(program) {
    program
      .command('demo')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nEverything is generated and measured while you watch, on this ` +
          `machine's CPU; nothing is downloaded. Writes DIR/report.html, DIR/run and its adapter, signed.`,
      )
      .option('--out <dir>', 'where the run and the report go', 'runs/demo')
      .option('--threads <n>', 'CPU threads of inference', integerIn(1, 1024))
      .option('--json', 'the figures as one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples('temper demo', 'temper demo --json --out /tmp/demo') +
          '\nExit codes: 0 every claim holds, 10 one does not.\n',
      )
      .action(async (options: { readonly out: string; readonly threads?: number; readonly json?: boolean }) => {
        const { runDemo } = await import('../../demo/story.js');
        goOnWithoutReader();
        const quiet = options.json === true;
        const say = (...lines: readonly string[]): void => {
          if (!quiet) print(...lines);
        };
        let progress: { readonly label: string; readonly bar: ReturnType<typeof createProgress> } | undefined;
        const settle = (): void => {
          progress?.bar.finish();
          progress = undefined;
        };
        let chapter = 0;
        say('Temper demo: a gpt-oss in miniature is fine-tuned, screened, gated and exported.');
        const result = await runDemo({
          out: options.out,
          signal: interruptSignal(),
          ...(options.threads === undefined ? {} : { threads: options.threads }),
          hooks: {
            chapter: (title) => {
              settle();
              say('', `${++chapter}  ${title}`);
            },
            line: (text) => {
              settle();
              say(...text.split('\n').map((line) => `   ${line}`));
            },
            progress(label, unit, done, total, note) {
              if (progress?.label !== label) {
                settle();
                progress = { label, bar: createProgress({ label, unit, total, quiet }) };
              }
              progress.bar.update(done, note);
            },
          },
        });
        settle();
        process.exitCode = result.ok ? 0 : 10;
        if (quiet) {
          printJson(result);
          return;
        }
        const checks = result.checks.map(
          (c) => `   ${c.ok ? '✓' : '✗'} ${c.name}: ${Number(c.value.toFixed(4))} (wanted ${c.wanted})`,
        );
        say(
          '',
          ...checks,
          '',
          `   ${result.seconds.toFixed(0)} s in all. Report: ${relative(process.cwd(), result.report)}`,
        );
      });
  },
};

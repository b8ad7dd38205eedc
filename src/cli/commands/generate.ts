// `temper generate`: one answer to one prompt, streamed, or held back until every policy allows it.
import { type Command, examples, interruptSignal, printJson } from '../command.js';
import {
  addModelOptions,
  addSamplingOptions,
  addScreenOptions,
  type ModelOptions,
  openModel,
  requestOf,
  type SamplingOptions,
  type ScreenOptions,
  sayNotices,
} from '../engine-options.js';

type Options = ModelOptions & SamplingOptions & ScreenOptions & { readonly json?: boolean };

export const command: Command = {
  name: 'generate',
  summary: 'answer one prompt; with --policy nothing is shown that is not allowed, analysis and final apart',
  register(program) {
    addScreenOptions(
      addSamplingOptions(
        addModelOptions(
          program
            .command('generate')
            .summary(this.summary)
            .description(`${this.summary}.\nThe final answer goes to stdout, the analysis to stderr.`),
        ),
      ),
    )
      .argument('<prompt>', 'the user message; - reads it from stdin')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper generate --model models/nano "Please book a table for 4 people on friday at 19:30 for Rossi"',
          'temper generate --model models/nano --adapter runs/desk/adapter --temperature 0 --json "…"',
          'temper generate --model models/nano --policy policies/contact/policy.md --judge models/nano-judge "…"',
        ) +
          '\nExit codes: 0 there is an answer, 20 there is none (no final message, or cut off before it); with ' +
          '--policy:\n10 something was blocked, 30 something could not be judged.\n',
      )
      .action(async (argument: string, options: Options) => {
        const [
          { createShow, runTurn, sayTurn, turnExitCode, turnJson },
          { conversation },
          { openScreen },
          { readStream },
          { ConfigError },
        ] = await Promise.all([
          import('../turn.js'),
          import('../../compose/turn.js'),
          import('../../compose/screening.js'),
          import('../../base/inputs.js'),
          import('../../base/errors.js'),
        ]);
        const prompt = argument === '-' ? (await readStream(process.stdin, 'stdin')).replace(/\n$/, '') : argument;
        if (prompt.trim() === '')
          throw new ConfigError('prompt_empty', 'generate: the prompt is empty; wanted text, or - with text on stdin');
        const signal = interruptSignal();
        const screen = await openScreen(options, signal);
        try {
          sayNotices(screen?.notices ?? []);
          const engine = await openModel(options, signal);
          try {
            const output = createShow();
            const request = requestOf(conversation(options, [{ role: 'user', content: prompt }]), options);
            const turn = await runTurn(
              engine,
              request,
              screen?.screen ?? null,
              options.json ? () => {} : output.show,
              signal,
            );
            output.end();
            process.exitCode = turnExitCode(turn);
            if (options.json) printJson(turnJson(turn));
            sayTurn(turn);
          } finally {
            await engine.close();
          }
        } finally {
          await screen?.close();
        }
      });
  },
};

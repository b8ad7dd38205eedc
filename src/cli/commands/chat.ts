// `temper chat`: generate, turn by turn. The history keeps what was released; a turn that was withheld is forgotten.
import type { Message } from '../../harmony/types.js';
import { type Command, examples, interruptSignal } from '../command.js';
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
import { createShow } from '../terminal.js';

type Options = ModelOptions & SamplingOptions & ScreenOptions;
const HELP = `  /reset           forget the conversation
  /effort LEVEL    reasoning effort: low, medium or high
  /system TEXT     new instructions; forgets the conversation
  /quit            end (also Ctrl-D)
`;

export const command: Command = {
  name: 'chat',
  summary: 'talk to a model; analysis is shown apart from the answer, dimmed',
  register(program) {
    addScreenOptions(
      addSamplingOptions(
        addModelOptions(
          program.command('chat').summary(this.summary).description(`${this.summary}.\nCommands:\n${HELP}`),
        ),
      ),
    )
      .addHelpText(
        'after',
        examples(
          'temper chat --model models/nano',
          'temper chat --model models/nano --policy policies/contact/policy.md --judge models/nano-judge',
        ),
      )
      .action(async (given: Options) => {
        const [
          { createInterface },
          { continued, conversation, noAnswer, runTurn, unjudgedReasons, wasWithheld },
          { openScreen },
          { TemperError },
        ] = await Promise.all([
          import('node:readline/promises'),
          import('../../compose/turn.js'),
          import('../../compose/screening.js'),
          import('../../base/errors.js'),
        ]);
        const signal = interruptSignal();
        const screen = await openScreen(given, signal);
        try {
          sayNotices(screen?.notices ?? []);
          const engine = await openModel(given, signal);
          const tty = process.stdin.isTTY === true;
          const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: tty });
          // readline takes Ctrl-C from a terminal for itself.
          lines.on('SIGINT', () => process.emit('SIGINT'));
          signal.addEventListener('abort', () => lines.close(), { once: true });
          try {
            let options = given;
            let history: readonly Message[] = [];
            if (tty) process.stderr.write('/help lists the commands\n');
            lines.setPrompt('> ');
            if (tty) lines.prompt();
            for await (const line of lines) {
              const [word = '', ...rest] = line.trim().split(/\s+/);
              if (word === '/quit' || word === '/exit') break;
              if (word === '/help') process.stderr.write(HELP);
              else if (word === '/reset') history = [];
              else if (word === '/system') {
                options = { ...options, system: rest.join(' ') };
                history = [];
              } else if (word === '/effort') {
                const level = rest[0];
                if (level === 'low' || level === 'medium' || level === 'high') options = { ...options, effort: level };
                else process.stderr.write('temper: /effort: wanted low, medium or high\n');
              } else if (word.startsWith('/'))
                process.stderr.write(`temper: ${word}: unknown command; /help lists them\n`);
              else if (word !== '') {
                const user: Message = { role: 'user', content: line.trim() };
                const output = createShow();
                try {
                  const turn = await runTurn(
                    engine,
                    requestOf(conversation(options, [...history, user]), options),
                    screen?.screen ?? null,
                    output.show,
                    signal,
                  );
                  output.end();
                  sayNotices(unjudgedReasons(turn));
                  const none = noAnswer(turn);
                  if (none !== null) sayNotices([none]);
                  history = continued(history, user, turn);
                  if (wasWithheld(turn))
                    process.stderr.write('temper: something was withheld; this turn is left out of the conversation\n');
                } catch (error) {
                  output.end();
                  if (!(error instanceof TemperError)) throw error;
                  process.stderr.write(`temper: ${error.message}\n`);
                }
              }
              if (tty) lines.prompt();
            }
          } finally {
            lines.close();
            await engine.close();
          }
        } finally {
          await screen?.close();
        }
      });
  },
};

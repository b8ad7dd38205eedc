// `temper chat`: generate, turn by turn. The history keeps what was released; a turn that was withheld is forgotten.
import type { Message } from '../../harmony/types.js';
import { type Command, examples, interruptSignal } from '../command.js';
import {
  addHoldOptions,
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
import { handleInterrupts, interrupt } from '../interrupt.js';
import { tell, tellOwn } from '../terminal.js';

type Options = ModelOptions & SamplingOptions & ScreenOptions;
const HELP = `  /reset           forget the conversation
  /effort LEVEL    reasoning effort: low, medium or high
  /system TEXT     new instructions; forgets the conversation
  /quit            end (also Ctrl-D)
Ctrl-C ends an answer, twice the conversation.
`;
const say = (text: string): void => tell(`temper: ${text}`);

/** Ctrl-C ends the answer under way, or asks for a second one; a second one in a row ends the session. */
export class TurnInterrupts {
  #turn: AbortController | null = null;
  #asked = false;

  /** @returns whether the session goes on */
  readonly handle = (): boolean => {
    if (this.#asked) return false;
    this.#asked = true;
    if (this.#turn) this.#turn.abort(new DOMException('the answer was stopped', 'AbortError'));
    else say('press Ctrl-C again to end, or type on');
    return true;
  };
  /** The user typed something. */
  typed(): void {
    this.#asked = false;
  }
  /** Runs a turn whose signal is aborted by Ctrl-C or by `session`. @returns null: Ctrl-C ended it, not the session */
  async run<T>(session: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    const turn = new AbortController();
    this.#turn = turn;
    const end = (): void => turn.abort(session.reason);
    session.addEventListener('abort', end, { once: true });
    try {
      return await work(turn.signal);
    } catch (error) {
      if (turn.signal.aborted && !session.aborted) return null;
      throw error;
    } finally {
      session.removeEventListener('abort', end);
      this.#turn = null;
    }
  }
}

export const command: Command = {
  name: 'chat',
  summary: 'talk to a model; analysis is shown apart from the answer, dimmed',
  register(program) {
    addHoldOptions(
      addScreenOptions(
        addSamplingOptions(
          addModelOptions(
            program.command('chat').summary(this.summary).description(`${this.summary}.\nCommands:\n${HELP}`),
          ),
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
          { createShow, sayTurn, showTurn },
          { continued, conversation, wasWithheld },
          { openScreen },
          { TemperError },
        ] = await Promise.all([
          import('node:readline/promises'),
          import('../turn.js'),
          import('../../compose/turn.js'),
          import('../../compose/screening.js'),
          import('../../base/errors.js'),
        ]);
        const signal = interruptSignal();
        const screen = await openScreen(given, signal, { by: 'chat' });
        try {
          sayNotices(screen?.notices ?? []);
          const engine = await openModel(given, signal);
          const tty = process.stdin.isTTY === true;
          const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: tty });
          // readline takes Ctrl-C from a terminal for itself.
          lines.on('SIGINT', interrupt);
          signal.addEventListener('abort', () => lines.close(), { once: true });
          const interrupts = new TurnInterrupts();
          const release = handleInterrupts(interrupts.handle);
          try {
            let options = given;
            let history: readonly Message[] = [];
            if (tty) tell('/help lists the commands');
            lines.setPrompt('> ');
            if (tty) lines.prompt();
            for await (const line of lines) {
              interrupts.typed();
              const [word = '', ...rest] = line.trim().split(/\s+/);
              if (word === '/quit' || word === '/exit') break;
              if (word === '/help') tellOwn(HELP);
              else if (word === '/reset') {
                history = [];
                say('the conversation is forgotten');
              } else if (word === '/system') {
                options = { ...options, system: rest.join(' ') };
                history = [];
                say(`${rest.length > 0 ? 'new instructions' : 'no instructions'}; the conversation is forgotten`);
              } else if (word === '/effort') {
                const level = rest[0];
                if (level === 'low' || level === 'medium' || level === 'high') {
                  options = { ...options, effort: level };
                  say(`reasoning effort is ${level} from the next answer on`);
                } else say('/effort: wanted low, medium or high');
              } else if (word.startsWith('/')) say(`${word}: unknown command; /help lists them`);
              else if (word !== '') {
                const user: Message = { role: 'user', content: line.trim() };
                const output = createShow();
                try {
                  const request = requestOf(conversation(options, [...history, user]), options);
                  const turn = await interrupts.run(signal, (stop) =>
                    showTurn(engine, request, screen, output.show, stop),
                  );
                  output.end();
                  if (turn === null) say('stopped; this turn is left out of the conversation');
                  else {
                    sayTurn(turn);
                    history = continued(history, user, turn);
                    if (wasWithheld(turn)) say('something was withheld; this turn is left out of the conversation');
                  }
                } catch (error) {
                  output.end();
                  if (!(error instanceof TemperError)) throw error;
                  say(error.message);
                }
              }
              if (tty) lines.prompt();
            }
            signal.throwIfAborted();
          } finally {
            release();
            lines.close();
            await engine.close();
          }
        } finally {
          await screen?.close();
        }
      });
  },
};

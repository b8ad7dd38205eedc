// What a command is, and the few things all commands share: the interrupt signal, results on stdout, a fallible exit
// code. A command parses, calls one use-case, prints. It imports the use-case inside its action, so that `--help` needs
// no addon.
import type { Command as CommanderCommand } from 'commander';
import { InvalidArgumentError } from './commander.js';

export interface Command {
  /** As typed, e.g. `train` or `model init`. */
  readonly name: string;
  readonly summary: string;
  register(program: CommanderCommand): void;
}

export { interruptSignal } from './interrupt.js';

/** JSON that cannot drive a terminal: DEL, the C1 controls and those of direction are escaped as the C0 ones are. */
export const safeJson = (value: unknown): string =>
  JSON.stringify(value).replaceAll(
    /[\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

/** One machine-readable result on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${safeJson(value)}\n`);
}

/** The subcommand group `model` of `model init`, made once. */
export function group(program: CommanderCommand, name: string, summary: string): CommanderCommand {
  return program.commands.find((c) => c.name() === name) ?? program.command(name).summary(summary).description(summary);
}

/** Parser of a numeric option. @throws {InvalidArgumentError} not a number in [low, high] */
export function numberIn(low: number, high: number, integer = false): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (
      text.trim() === '' ||
      !Number.isFinite(value) ||
      value < low ||
      value > high ||
      (integer && !Number.isInteger(value))
    ) {
      throw new InvalidArgumentError(`wanted ${integer ? 'an integer' : 'a number'} from ${low} to ${high}.`);
    }
    return value;
  };
}
export const integerIn = (low: number, high: number): ((text: string) => number) => numberIn(low, high, true);

/** Parser of an option that may be given several times. */
export const collect = (value: string, previous: readonly string[] = []): readonly string[] => [...previous, value];

/** Examples under a command's help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((l) => `  $ ${l}`).join('\n')}\n`;
}

#!/usr/bin/env node
// Entry point of the `temper` command: parses, runs one command, turns every error into one line and an exit code.
// The commands are listed in registry.ts.
import { existsSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { ConfigError, TemperError } from '../base/errors.js';
import { asTypedError } from '../base/system-error.js';
import { type Command, examples, printJson } from './command.js';
import { Command as CommanderCommand, CommanderError } from './commander.js';
import { endInterrupted, interruptedExitCode } from './interrupt.js';
import { guardStreams, lostOutput } from './streams.js';
import { printable, tell, tellOwn } from './terminal.js';

const wantsJson = (argv: readonly string[]): boolean => argv.includes('--json');

/**
 * Prints `error` and returns the exit code it stands for. Unknown errors show their stack only under TEMPER_DEBUG.
 * @param help the command that explains what was typed wrong
 */
export function reportError(error: unknown, json: boolean, help = 'temper --help'): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    const message = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
    // Without a command commander has printed the help already.
    if (error.code === 'commander.help') return 2;
    print('usage', `${message}; see \`${help}\``, {}, json);
    return 2;
  }
  const debug = process.env.TEMPER_DEBUG ? `\n${error instanceof Error ? error.stack : ''}\n` : '';
  if (debug) tellOwn(printable(debug));
  if (error instanceof TemperError) {
    print(error.code, error.message, error.details, json);
    return error.exitCode;
  }
  if (error instanceof Error && error.name === 'AbortError') {
    print('interrupted', 'interrupted', {}, json);
    return interruptedExitCode();
  }
  const message = error instanceof Error ? error.message : String(error);
  print(
    'unexpected',
    `unexpected error: ${message.replaceAll(/\s*\n\s*/g, ' ')}; TEMPER_DEBUG=1 shows where`,
    {},
    json,
  );
  return 1;
}

function print(code: string, message: string, details: Readonly<Record<string, unknown>>, json: boolean): void {
  if (json) printJson({ error: { code, message, details } });
  // Messages name files and quote rows: neither may drive the terminal.
  else tell(`temper: ${message}`);
}

/** The help of the command that was typed, as far as it is one. */
function helpOf(program: CommanderCommand | undefined, argv: readonly string[]): string {
  let at = program;
  const names = ['temper'];
  for (const word of argv) {
    const next = at?.commands.find((c) => c.name() === word);
    if (!next) break;
    names.push(word);
    at = next;
  }
  return [...names, '--help'].join(' ');
}

/**
 * The command that was typed, where that is plain: reading the files of all others takes longer than many a command.
 * Its file is called after it.
 * @returns null: all of them are needed
 */
export async function typedCommand([first = '', second = '']: readonly string[]): Promise<Command | null> {
  for (const name of [`${first} ${second}`, first]) {
    if (!/^[a-z]+(-[a-z]+)?( [a-z]+)?$/.test(name)) continue;
    const file = new URL(`./commands/${name.replace(' ', '-')}${extname(import.meta.url)}`, import.meta.url);
    if (!existsSync(file)) continue;
    const { command } = (await import(file.href)) as { readonly command: Command };
    if (command.name === name) return command;
  }
  return null;
}

/**
 * The command line as a commander program; nothing runs before it is parsed.
 * @param argv what was typed: commands that it cannot mean are left out; default all are in
 */
export async function createProgram(argv: readonly string[] = []): Promise<CommanderCommand> {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const program = new CommanderCommand('temper')
    .description(
      'Fine-tune gpt-oss on its released MXFP4 bytes, serve it through the same kernels, screen what it says.',
    )
    .version(version)
    .showHelpAfterError(false)
    .exitOverride()
    .configureHelp({
      optionTerm: (option) => (option.mandatory ? `${option.flags} (required)` : option.flags),
    })
    .configureOutput({ outputError: () => {} })
    .addHelpText(
      'after',
      examples(
        'temper demo',
        'temper train recipes/nano-lora.yaml',
        'temper generate --model models/nano "Please book a table for 4 people on friday at 19:30 for Rossi"',
        'temper screen answers.jsonl --policy policies/NAME/policy.md --judge models/nano-judge --out verdicts.jsonl',
      ) +
        '\nExit codes: 0 done, 1 unexpected, 2 usage or bad input, 10 violation, 20 inconclusive, ' +
        '30 judge or hub failure, 40 integrity.\n',
    );
  const typed = await typedCommand(argv);
  const commands = typed ? [typed] : (await import('./registry.js')).commands;
  for (const command of commands) command.register(program);
  // Wherever a folder or a file may stand, so may what hf:// names.
  program.hook('preAction', async (_, action) => {
    const { resolveReferences } = await import('./references.js');
    await resolveReferences(action);
  });
  return program;
}

/** Runs one command line (without `node temper`). @returns the exit code */
export async function run(argv: readonly string[]): Promise<number> {
  process.exitCode = undefined;
  let program: CommanderCommand | undefined;
  try {
    program = await createProgram(argv);
    if (argv.length === 0) {
      program.outputHelp({ error: true });
      return 2;
    }
    await program.parseAsync(argv, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return reportError(asTypedError(error), wantsJson(argv), helpOf(program, argv));
  }
}

// `process.argv[1]` may be the link npm makes for the bin, or this file under tsx.
const invoked = process.argv[1] ?? '';
if (/(^|[\\/])(temper|main\.[jt]s)$/.test(invoked)) {
  guardStreams();
  // Failures of stdout may come late; the exit code is the last thing to be settled.
  process.on('exit', (code) => {
    const failure = lostOutput();
    if (failure === null || code !== 0) return;
    const what = `stdout: cannot be written (${failure}); what was printed is not complete`;
    process.exitCode = reportError(new ConfigError('output_unwritable', what), false);
  });
  process.exitCode = await run(process.argv.slice(2));
  endInterrupted();
}

// All commands, in the order of `temper --help`. Adding one: a file in commands/ and a line here.
import type { Command } from './command.js';
import { command as doctor } from './commands/doctor.js';

export const commands: readonly Command[] = [
  doctor,
];

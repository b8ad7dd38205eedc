// commander, by require: what is imported of CommonJS is read twice, once for its names.
import { createRequire } from 'node:module';
import type * as Commander from 'commander';

const all = createRequire(import.meta.url)('commander') as typeof Commander;
export const { Command, CommanderError, InvalidArgumentError, Option } = all;
export type Command = Commander.Command;

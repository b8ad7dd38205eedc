// Which detectors look, as people say it: `--detector NAME[=RULES|off]`, a file of YAML, `detectors:` of the server's.
import { dirname, isAbsolute, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { ConfigError } from '../../base/errors.js';
import { readInputText } from '../../base/inputs.js';
import { asReadError } from '../../base/system-error.js';
import { DETECTORS, type DetectorChoice, type DetectorOptions } from './index.js';

const Choice = z
  .union([z.boolean(), z.enum(['on', 'off', 'all']), z.array(z.string()).min(1)])
  .describe('off; on or all: every rule; a list of rules, those with - before them left out');
/** `detectors:` of a file. Canaries are a file with one string a line. */
export const DetectorsConfig = z
  .strictObject({
    ...Object.fromEntries(DETECTORS.filter((d) => d.name !== 'canary').map((d) => [d.name, Choice.optional()])),
    canary: z
      .union([z.literal(false), z.literal('off'), z.string().min(1)])
      .optional()
      .describe('a file with one string a line, or off'),
  })
  .describe('what is looked for beside the judge; each is on with its usual rules where nothing is said of it');
export type DetectorsConfig = z.infer<typeof DetectorsConfig>;

const choiceOf = (value: boolean | string | readonly string[]): DetectorChoice =>
  value === 'off' ? false : value === 'on' || value === 'all' ? true : typeof value === 'string' ? [value] : value;

/** Strings of a file, one a line. @throws {ConfigError} bad_option */
function canariesOf(file: string): readonly string[] {
  let text: string;
  try {
    text = readInputText(file, 'record');
  } catch (e) {
    throw asReadError(e, `detector canary: ${file}`, 'give a file with one string a line', (message) => {
      return new ConfigError('bad_option', message, { file });
    });
  }
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (lines.length === 0) throw new ConfigError('bad_option', `detector canary: ${file}: holds no string`, { file });
  return lines;
}

/** @param folder relative paths are relative to it */
export function detectorOptions(config: DetectorsConfig, folder: string): DetectorOptions {
  const { canary, ...others } = config as Readonly<Record<string, boolean | string | readonly string[] | undefined>>;
  const choices: Record<string, DetectorChoice> = {};
  for (const [name, value] of Object.entries(others)) if (value !== undefined) choices[name] = choiceOf(value);
  if (canary === false || canary === 'off') choices.canary = false;
  if (typeof canary !== 'string' || canary === 'off') return { choices };
  return { choices, canaries: canariesOf(isAbsolute(canary) ? canary : resolve(folder, canary)) };
}

/** A file of YAML whose only key is `detectors`. @throws {ConfigError} bad_option */
export function readDetectors(file: string): DetectorOptions {
  const bad = (why: string): ConfigError =>
    new ConfigError('bad_option', `--detectors ${file}: ${why}; wanted detectors: {NAME: off | all | [RULE, …]}`, {
      file,
    });
  let value: unknown;
  try {
    const doc = parseDocument(readInputText(file, 'config'), { uniqueKeys: true });
    if (doc.errors.length > 0) throw bad('is no YAML that can be read');
    value = doc.toJS({ maxAliasCount: 100 });
  } catch (e) {
    if (e instanceof ConfigError) throw e;
    // An alias of nothing, or of too much.
    if (e instanceof ReferenceError) throw bad(`is no YAML that can be read (${e.message})`);
    throw asReadError(
      e,
      `--detectors ${file}`,
      'give a file of YAML',
      (message) => new ConfigError('bad_option', message),
    );
  }
  const parsed = z.strictObject({ detectors: DetectorsConfig }).safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw bad(
      `${issue?.path.join('.') ?? ''}${issue?.path.length ? ': ' : ''}${issue?.message ?? 'is of another form'}`,
    );
  }
  return detectorOptions(parsed.data.detectors, dirname(resolve(file)));
}

/**
 * `--detector` as it was given, in order; the last word on a detector counts. `all` and `off` alone speak of every one.
 * @throws {ConfigError} bad_option
 */
export function detectorFlags(given: readonly string[], base: DetectorOptions = {}): DetectorOptions {
  const choices: Record<string, DetectorChoice> = { ...base.choices };
  let canaries = base.canaries ?? [];
  for (const text of given) {
    const at = text.indexOf('=');
    const name = at < 0 ? text : text.slice(0, at);
    const value = at < 0 ? 'all' : text.slice(at + 1);
    if (at < 0 && (name === 'off' || name === 'all'))
      for (const { name: each } of DETECTORS) choices[each] = name === 'all';
    else if (!DETECTORS.some((d) => d.name === name))
      throw new ConfigError(
        'bad_option',
        `--detector ${text}: ${JSON.stringify(name)} is unknown; wanted one of ` +
          `${DETECTORS.map((d) => d.name).join(', ')}, each with =off or its rules, or off`,
      );
    else if (name === 'canary' && value !== 'off' && value !== 'all') {
      canaries = [...canaries, ...canariesOf(value)];
      choices.canary = true;
    } else if (name === 'canary' && value === 'all' && canaries.length === 0)
      throw new ConfigError('bad_option', '--detector canary: wanted canary=FILE, one string a line');
    else choices[name] = value === 'off' ? false : value === 'all' || value === 'on' ? true : value.split(',');
  }
  return { choices, canaries };
}

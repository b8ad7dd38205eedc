// A policy is a text file. Its rules are the lines that begin with an id (rules.ts); front matter of YAML may say by
// which contract it is judged.
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { packageRoot } from '../base/machine.js';
import { asReadError } from '../base/system-error.js';
import { readRows } from './batch/read.js';
import { readCalibrations } from './calibration.js';
import type { ContractName } from './contracts/contract.js';
import { contractOf } from './contracts/index.js';
import { contractIn, frontMatter, settingsIn } from './front-matter.js';
import { releaseIn } from './holdback/rules.js';
import { readRules } from './rules.js';
import type { GoldenRow, Policy } from './types.js';

const MAX_POLICY_BYTES = 64 * 1024;

/**
 * @param name how verdicts call it
 * @param asked the contract, whatever its front matter says
 * @throws {ConfigError} empty, or without a rule that a judge could cite; an unknown contract, bad front matter
 * @throws {ConfigError} empty, or without a rule that a judge could cite; an unknown contract, a bad policy_release
 */
export function definePolicy(name: string, file: string, asked?: ContractName): Policy {
  const { fields, body: text, lost } = frontMatter(file);
  if (lost !== null)
    throw new ConfigError('policy_front_matter', `policy ${name}: ${lost}; mend it, or take the first line out`);
  const contract = asked ?? contractIn(name, fields);
  const { buffer, channels, thresholds } = settingsIn(name, fields);
  if (text.trim() === '')
    throw new ConfigError(
      'policy_empty',
      `policy ${name}: the text is empty, wanted instructions and rules; an empty policy would allow everything`,
    );
  const { rules: found, doubt } = readRules(text);
  const own = contractOf(contract).rules;
  const seen = found.map((rule) => rule.id);
  // Where judges have categories of their own a policy may say which of them count.
  const fits = contractOf(contract).ownPolicy ? seen.filter((id) => own?.includes(id)) : seen;
  const rules = fits.length > 0 ? fits : (own ?? []);
  if (rules.length === 0)
    throw new ConfigError(
      'policy_no_rule',
      `policy ${name}: no rule is visible, so any that a judge cites would count; ` +
        (doubt ?? 'begin the line of each rule with an id, as in "R1: a phone number" or "1. a phone number"'),
    );
  return {
    name,
    text,
    rules,
    digest: sha256(file),
    ...(contract === undefined || contract === 'temper' ? {} : { contract }),
    ...(buffer === undefined ? {} : { buffer }),
    ...(channels === undefined ? {} : { channels }),
    ...(thresholds === undefined ? {} : { thresholds }),
    ...releaseIn(name, fields),
  };
}

/** `policies/NAME/policy.md` is called NAME, wherever it is called from; any other file goes by its own name. */
export function policyName(path: string): string {
  const whole = resolve(path);
  const stem = basename(whole, extname(whole));
  return (stem.toLowerCase() === 'policy' ? basename(dirname(whole)) : stem) || stem;
}

/**
 * The rows that show how a policy is meant: `golden.jsonl` beside `policy.md`, `NAME.golden.jsonl` beside another file.
 */
export function goldenPath(path: string): string {
  const whole = resolve(path);
  const stem = basename(whole, extname(whole));
  return join(dirname(whole), stem.toLowerCase() === 'policy' ? 'golden.jsonl' : `${stem}.golden.jsonl`);
}

/** Where the thresholds of judges are: `calibration.json` beside `policy.md`, or `NAME.calibration.json`. */
export const calibrationPath = (path: string): string => goldenPath(path).replace(/golden\.jsonl$/, 'calibration.json');

/** What to do about a policy that is a folder, or not there. */
function nextStep(path: string): string {
  const inside = join(path, 'policy.md');
  if (existsSync(inside)) return `give ${inside}`;
  const names = readable(dirname(resolve(path))).filter((n) => /\.(?:md|txt)$/i.test(n));
  return names.length > 0 && names.length <= 12
    ? `policies are text files; in ${dirname(path)} there are ${names.join(', ')}`
    : `a policy is a text file; those that ship are in ${join(packageRoot, 'policies')}`;
}
const readable = (folder: string): readonly string[] => {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
};

/**
 * The golden rows of a policy; null if there are none of it. @throws {DataError} a bad row, a node that is no file, no
 * permission: rows that are there and cannot be read must not pass for none
 */
async function goldenRows(file: string, name: string): Promise<readonly GoldenRow[] | null> {
  if (!lstatSync(file, { throwIfNoEntry: false })) return null;
  const rows = (await readRows(file)).filter((row) => row.policy === null || row.policy === name);
  const golden = rows.flatMap((row) =>
    Object.entries(row.channels).flatMap(([channel, text]): GoldenRow[] => {
      const expect = row.expect[channel];
      return expect === undefined ? [] : [{ id: row.id, channel, text, expect }];
    }),
  );
  return golden.length === 0 ? null : golden;
}

/**
 * A policy with its golden rows, unless `golden` is false, and the thresholds that lie beside it.
 * @throws {ConfigError} missing, no regular file, not UTF-8, empty, without a rule, larger than 64 KiB
 * @throws {DataError} a bad golden row
 */
export async function loadPolicy(
  path: string,
  options: { readonly golden?: boolean; readonly contract?: ContractName } = {},
): Promise<Policy> {
  const unreadable = (why: string, cause?: unknown): ConfigError =>
    new ConfigError('policy_unreadable', `policy ${path}: ${why}`, { file: path }, { cause });
  let bytes: Buffer;
  try {
    bytes = readInput(path, 'policy');
  } catch (cause) {
    throw asReadError(cause, `policy ${path}`, nextStep(path), (message) => {
      return new ConfigError('policy_unreadable', message, { file: path });
    });
  }
  if (bytes.length > MAX_POLICY_BYTES) {
    throw new ConfigError(
      'policy_too_long',
      `policy ${path}: ${bytes.length} bytes, wanted at most ${MAX_POLICY_BYTES}; judges follow short policies best`,
      { file: path },
    );
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw unreadable('not valid UTF-8; convert it first', cause);
  }
  const defined = definePolicy(policyName(path), text, options.contract);
  const calibrations = readCalibrations(calibrationPath(path)).filter((c) => c.policy.digest === defined.digest);
  const policy = calibrations.length === 0 ? defined : { ...defined, calibrations };
  if (options.golden === false) return policy;
  const golden = await goldenRows(goldenPath(path), policy.name);
  return golden ? { ...policy, golden } : policy;
}

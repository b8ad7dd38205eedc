// The judge as a gate lock has it: its digest, how it is asked, and how often it was right on labelled texts.
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { asReadError } from '../base/system-error.js';
import { type Counts, JudgeRates, type LockJudge } from '../gate/lock.js';
import type { LoadedSuite } from '../gate/suite.js';
import { localOf } from '../hub/pull.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { CALIBRATION_SCHEMA, readCalibrations } from '../safeguard/calibration.js';
import { createDetectors, type DetectorSet } from '../safeguard/detectors/index.js';
import { calibrationPath } from '../safeguard/policy.js';
import { DEFAULT_WINDOW } from '../safeguard/windows.js';
import { detectorsOf, isUrl, openJudge, type ScreeningOptions } from './screening.js';

export type JudgeOptions = Partial<Omit<ScreeningOptions, 'policy' | 'log' | 'logKey' | 'shadow'>>;
export const JUDGE_DEFAULTS = { judgeTimeout: 120, judgeMaxTokens: 4096, judgeConcurrency: 16 } as const;
const EFFORT = 'medium';

/** Labelled texts that the judge called right, of both arms together or of each. */
const Calibrated = z.strictObject({ about: z.string().optional(), rates: JudgeRates });

/** Policies that a suite judges by, as it names them. */
export const policiesOf = ({ suite }: LoadedSuite): readonly string[] => [
  ...new Set(suite.tests.flatMap((t) => t.policy ?? [])),
];

/** What verdicts depend on beside judge, policy and text, as far as it is not the default. */
function mannerOf(
  where: string,
  options: JudgeOptions,
  loaded: LoadedSuite,
  detectors: DetectorSet,
): LockJudge['asked'] {
  const { votes, judgeViews, judgeWindow, judgeContract, judgeEffort, judgeMaxTokens } = options;
  const asked: Record<string, string | number> = {};
  const say = (name: string, value: string | number | undefined, usual?: string | number): void => {
    if (value !== undefined && value !== usual) asked[name] = value;
  };
  say('votes', votes, 1);
  say('views', judgeViews, 'all');
  say('window', judgeWindow, DEFAULT_WINDOW);
  say('contract', judgeContract);
  say('detectors', `sha256:${detectors.digest}`, `sha256:${createDetectors().digest}`);
  // Of a server they are part of its digest.
  if (!isUrl(where)) {
    say('effort', judgeEffort, EFFORT);
    say('maxTokens', judgeMaxTokens, JUDGE_DEFAULTS.judgeMaxTokens);
  }
  for (const path of policiesOf(loaded)) {
    const file = calibrationPath(join(loaded.folder, path));
    if (existsSync(file)) say(`calibration of ${path}`, `sha256:${sha256(readInput(file, 'record'))}`);
  }
  return Object.keys(asked).length === 0 ? undefined : asked;
}

export interface LockedJudgeOptions extends JudgeOptions {
  /** Who judges: a checkpoint, or a server. */
  readonly judge: string;
  /** Counts of it on labelled texts. */
  readonly calibration?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}
/**
 * The judge of a suite, asked as the options say.
 * @throws {CheckpointError} no checkpoint · {ConfigError} calibration_invalid, judge_model_missing · what the hub says
 */
export async function lockedJudge(loaded: LoadedSuite, options: LockedJudgeOptions): Promise<LockJudge> {
  const { judge: where, calibration, signal } = options;
  const asked = mannerOf(where, options, loaded, detectorsOf(options));
  return {
    ...(isUrl(where) ? await lockServer(where, options) : await lockFolder(await localOf(where, { signal }), signal)),
    calibration: calibration === undefined ? null : judgeCalibration(calibration),
    ...(asked === undefined ? {} : { asked }),
  };
}
async function lockServer(where: string, options: JudgeOptions): Promise<Pick<LockJudge, 'name' | 'digest'>> {
  // Nobody is asked by that.
  const { judge, close } = await openJudge(where, { ...JUDGE_DEFAULTS, ...options, policy: [] }, true);
  await close();
  return { name: where, digest: named(judge.digest) };
}
const named = (hex: string): string => (hex.startsWith('sha256:') ? hex : `sha256:${hex}`);
async function lockFolder(dir: string, signal?: AbortSignal): Promise<Pick<LockJudge, 'name' | 'digest'>> {
  const digest = `sha256:${await digestCheckpoint(dir, signal ? { signal } : {})}`;
  return { name: basename(resolve(dir)), digest };
}

/**
 * A file of counts: `{"rates": {"both": {"positives", "caught", "negatives", "passed"}}}`, or `{"base", "adapter"}` of
 * such; or what `temper policy calibrate` wrote, of one policy and judge.
 * @throws {ConfigError} calibration_invalid
 */
export function judgeCalibration(file: string): NonNullable<LockJudge['calibration']> {
  const invalid = (what: string): ConfigError =>
    new ConfigError('calibration_invalid', `${file}: ${what}; docs/gate.md says what it holds`, { file });
  let bytes: Buffer;
  let value: unknown;
  try {
    bytes = readInput(file, 'record');
    value = decodeJson(bytes);
  } catch (e) {
    if (e instanceof SyntaxError) throw invalid(`not JSON: ${e.message}`);
    throw asReadError(e, file, 'temper policy calibrate writes one', (message) => invalid(message));
  }
  const digest = `sha256:${sha256(bytes)}`;
  if ((value as { schema?: unknown } | null)?.schema === CALIBRATION_SCHEMA)
    return { digest, rates: { both: ofPolicy(file, invalid) } };
  const read = Calibrated.safeParse(value);
  if (read.success) return { digest, rates: read.data.rates };
  const [issue] = read.error.issues;
  throw invalid(`no calibration: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'bad value'}`);
}

/** Recall and false alarms on a golden set, as counts; rows without a verdict are mistakes there too. */
function ofPolicy(file: string, invalid: (what: string) => ConfigError): Counts {
  const entries = readCalibrations(file);
  const [entry] = entries;
  if (!entry || entries.length > 1) throw invalid(`has ${entries.length} entries, wanted the one of this judge`);
  const { rows, violating, recall, falsePositives } = entry.overall;
  if (!recall || !falsePositives || violating === 0 || violating === rows)
    throw invalid('its golden set has no rows of one kind');
  const negatives = rows - violating;
  return {
    positives: violating,
    caught: Math.round(recall.value * violating),
    negatives,
    passed: Math.round((1 - falsePositives.value) * negatives),
  };
}

// The judge as a gate lock has it: the digest of its checkpoint, and how often it was right on labelled texts.
import { basename, resolve } from 'node:path';
import { z } from 'zod';
import { sha256 } from '../base/digest.js';
import { ConfigError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import { decodeJson } from '../base/json-file.js';
import { asReadError } from '../base/system-error.js';
import { type Counts, JudgeRates, type LockJudge } from '../gate/lock.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { CALIBRATION_SCHEMA, readCalibrations } from '../safeguard/calibration.js';

/** Labelled texts that the judge called right, of both arms together or of each. */
const Calibrated = z.strictObject({ about: z.string().optional(), rates: JudgeRates });

/**
 * @param dir         checkpoint of the judge
 * @param calibration a file `{"rates": {"both": {"positives", "caught", "negatives", "passed"}}}`, or `{"base",
 * "adapter"}` of such; or what `temper policy calibrate` wrote, of one policy and judge
 * @throws {CheckpointError} no checkpoint · {ConfigError} calibration_invalid
 */
export async function lockJudge(dir: string, calibration?: string, signal?: AbortSignal): Promise<LockJudge> {
  const digest = `sha256:${await digestCheckpoint(dir, signal ? { signal } : {})}`;
  return {
    name: basename(resolve(dir)),
    digest,
    calibration: calibration === undefined ? null : judgeCalibration(calibration),
  };
}

/** @throws {ConfigError} calibration_invalid */
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

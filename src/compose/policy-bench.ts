// A policy with its golden set and a judge, opened for `temper policy test`, `mutate` and `calibrate`.
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError, DataError } from '../base/errors.js';
import { readInput } from '../base/inputs.js';
import type { JudgingOptions } from '../safeguard/judging.js';
import { type Golden, type GoldenSource, readGolden } from '../safeguard/policies/golden.js';
import { goldenPath, loadPolicy } from '../safeguard/policy.js';
import type { Judge, Policy } from '../safeguard/types.js';
import { isUrl, judgingOf, openJudge, refuseForeign, type ScreeningOptions } from './screening.js';

export type PolicyBenchOptions = Omit<ScreeningOptions, 'policy' | 'detector' | 'detectors'> & {
  readonly golden?: GoldenSource;
};
export interface PolicyBench {
  /** The policy's file. */
  readonly file: string;
  /** All of it, front matter included. */
  readonly text: string;
  readonly policy: Policy;
  readonly golden: Golden;
  readonly judge: Judge;
  readonly limits: { readonly timeoutMs: number; readonly concurrency: number; readonly judging: JudgingOptions };
  /** As verdicts are bound to it; null: the judge's own. */
  readonly effort: string | null;
  close(): Promise<void>;
}

/** A folder stands for the policy.md in it. */
export const policyFile = (path: string): string =>
  lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true &&
  lstatSync(join(path, 'policy.md'), { throwIfNoEntry: false })
    ? join(path, 'policy.md')
    : path;

/**
 * @throws {ConfigError} judge_missing, and what loading a policy and opening a judge throw
 * @throws {DataError} no_rows: no golden set
 */
export async function openPolicyBench(
  path: string,
  options: PolicyBenchOptions,
  signal?: AbortSignal,
): Promise<PolicyBench> {
  if (options.judge === undefined)
    throw new ConfigError('judge_missing', 'temper policy: no judge; add --judge DIR or --judge URL');
  const file = policyFile(path);
  const contract = options.judgeContract;
  const policy = await loadPolicy(file, { golden: false, ...(contract ? { contract } : {}) });
  const golden = await readGolden(policy, file, { ...options.golden, signal });
  if (golden === null || golden.cases.length === 0)
    throw new DataError(
      'no_rows',
      `policy ${policy.name}: no golden rows in ${golden?.file ?? goldenPath(file)}; write some, or give --golden FILE`,
      { file: goldenPath(file) },
    );
  refuseForeign(options.judge, [policy]);
  const { judge, close } = await openJudge(options.judge, { ...options, policy: [file] }, true, signal);
  return {
    file,
    text: new TextDecoder().decode(readInput(file, 'policy')),
    policy,
    golden,
    judge,
    limits: {
      timeoutMs: options.judgeTimeout * 1000,
      concurrency: options.judgeConcurrency,
      judging: judgingOf(options),
    },
    // A local judge is asked with medium where nothing is said.
    effort: options.judgeEffort ?? (isUrl(options.judge) ? null : 'medium'),
    close,
  };
}

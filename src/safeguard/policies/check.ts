// A policy looked at as code is: findings with stable ids, severities and lines. No judge is asked.
import { ConfigError } from '../../base/errors.js';
import { readInput } from '../../base/inputs.js';
import { readCalibrations } from '../calibration.js';
import type { ContractName } from '../contracts/contract.js';
import { createDetectors } from '../detectors/index.js';
import { FIELDS_FOR_PEOPLE, frontMatter, KNOWN_FIELDS } from '../front-matter.js';
import { calibrationPath, loadPolicy, policyName } from '../policy.js';
import { type PolicyRules, readRules } from '../rules.js';
import type { Policy } from '../types.js';
import { type Golden, type GoldenSource, readGolden } from './golden.js';
import { type Finding, type Found, found, SEVERITIES, type Severity } from './lint/finding.js';
import { goldenFindings, isKnown } from './lint/golden.js';
import { hostileText, labels, mixed, oneSided, output, scope } from './lint/polarity.js';
import { contradictions, examplesIn, repeatedRules, withoutExample, wordless } from './lint/rules.js';
import { buffering, doubleNegations, estimateTokens, hedges, lengthOf, linesOf } from './lint/text.js';

export interface CheckOptions {
  readonly contract?: ContractName | undefined;
  readonly golden?: GoldenSource;
  /** Tokens of a text, where a tokenizer is at hand; else they are estimated. */
  readonly countTokens?: ((text: string) => number) | undefined;
}
export interface PolicyCheck {
  readonly file: string;
  readonly policy: string;
  readonly digest: string | null;
  readonly rules: readonly string[];
  readonly contract: ContractName;
  readonly tokens: number | null;
  /** False: estimated. */
  readonly exact: boolean;
  readonly goldenRows: number | null;
  readonly findings: readonly Finding[];
}

const byPlace = (a: Found, b: Found): number => (a.line ?? 0) - (b.line ?? 0);

/**
 * Everything that can be said of a policy without asking a judge.
 * @throws {ConfigError} policy_unreadable, policy_too_long: no file that could be a policy
 * @throws {DataError} a golden row that cannot be read
 */
export async function checkPolicy(file: string, options: CheckOptions = {}): Promise<PolicyCheck> {
  const base = { file, policy: policyName(file), exact: options.countTokens !== undefined };
  let policy: Policy;
  try {
    policy = await loadPolicy(file, { golden: false, ...(options.contract ? { contract: options.contract } : {}) });
  } catch (error) {
    if (!(error instanceof ConfigError) || ['policy_unreadable', 'policy_too_long'].includes(error.code)) throw error;
    const findings = [{ ...found('unreadable', 'error', null, error.message), file }];
    return { ...base, digest: null, rules: [], contract: 'temper', tokens: null, goldenRows: null, findings };
  }
  const text = new TextDecoder().decode(readInput(file, 'policy'));
  const golden = await readGolden(policy, file, options.golden);
  const tokens = (options.countTokens ?? estimateTokens)(policy.text);
  const findings = [
    ...fields(text, policy),
    ...lengthOf(tokens, base.exact),
    ...ofText(text, policy, golden),
    ...goldenFindings(policy, golden, options.golden?.columns === undefined),
    ...stale(file, policy, golden),
  ];
  return {
    ...base,
    digest: policy.digest,
    rules: policy.rules,
    contract: policy.contract ?? 'temper',
    tokens,
    goldenRows: golden?.cases.length ?? null,
    findings: findings.toSorted(byPlace).map((f) => ({ ...f, file })),
  };
}

function ofText(text: string, policy: Policy, golden: Golden | null): readonly Found[] {
  const { before, body } = frontMatter(text);
  const read: PolicyRules = readRules(body);
  const lines = linesOf(body, read, before);
  const contract = policy.contract ?? 'temper';
  return [
    ...hedges(lines),
    ...doubleNegations(lines),
    ...labels(lines),
    ...mixed(lines, read, before),
    ...oneSided(lines),
    ...output(lines, contract),
    ...hostileText(lines, contract),
    ...scope(lines, policy.channels),
    ...buffering(lines, policy.buffer === 'whole'),
    ...repeatedRules(read, before),
    ...wordless(read, before),
    ...withoutExample(lines, read, before, golden),
    ...contradictions(examplesIn(lines, read.rules), read.rules, golden),
    ...spellings(text),
  ];
}

/** What no policy should hold: a judge's server may obey it, and no reader sees it. */
function spellings(text: string): readonly Found[] {
  const detectors = createDetectors({ choices: { secrets: false, personal: false, repetition: false } });
  return detectors
    .lookNow(text)
    .flatMap((d) =>
      d.state === 'block'
        ? d.findings.map((f) =>
            found(
              'control-spelling',
              'error',
              text.slice(0, f.from).split('\n').length,
              `${f.rule} (detector ${d.detector}); a judge behind a template may obey it: take it out`,
            ),
          )
        : [],
    );
}

function fields(text: string, policy: Policy): readonly Found[] {
  const { fields: all, lines } = frontMatter(text);
  const unknown = Object.keys(all).filter((name) => ![...KNOWN_FIELDS, ...FIELDS_FOR_PEOPLE].includes(name));
  return [
    ...unknown.map((name) =>
      found(
        'front-matter-unknown',
        'warning',
        lines.get(name) ?? null,
        `field ${JSON.stringify(name)} is read by nothing; known are ${KNOWN_FIELDS.join(', ')}`,
      ),
    ),
    ...Object.keys(policy.thresholds?.rules ?? {})
      .filter((rule) => !isKnown(rule, policy.rules))
      .map((rule) =>
        found('threshold-unknown-rule', 'error', lines.get('thresholds') ?? null, `thresholds: ${rule} is no rule`),
      ),
  ];
}

function stale(file: string, policy: Policy, golden: Golden | null): readonly Found[] {
  return readCalibrations(calibrationPath(file)).flatMap((c) => {
    const why =
      c.policy.digest !== policy.digest
        ? 'another text of the policy: it no longer counts'
        : golden !== null && golden.digest !== c.golden.digest
          ? 'another golden set'
          : null;
    return why === null
      ? []
      : [
          found(
            'calibration-stale',
            'warning',
            null,
            `the calibration of judge ${c.judge.name} is of ${why}; run temper policy calibrate again`,
          ),
        ];
  });
}

/** Whether any finding is at least so severe. */
export const failsOn = (checks: readonly PolicyCheck[], least: Severity): boolean =>
  checks.some((c) => c.findings.some((f) => SEVERITIES.indexOf(f.severity) >= SEVERITIES.indexOf(least)));

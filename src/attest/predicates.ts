// What is said of a gate and of a training run, in the words of others: in-toto test-result and Simple Verification
// Result, eval-result as it is proposed, and SLSA provenance v1.
import type { JsonObject } from '../verdict-log/canonical.js';
import type { DecidedMetric, Evidence } from './evidence.js';
import { type Resource, resource } from './statement.js';

export const TEST_RESULT = 'https://in-toto.io/attestation/test-result/v0.1';
export const SVR = 'https://in-toto.io/attestation/svr/v0.2';
/** A proposal (in-toto/attestation, pull request 575): its form may change. */
export const EVAL_RESULT = 'https://in-toto.io/attestation/eval-result/v0.1';
export const PROVENANCE = 'https://slsa.dev/provenance/v1';
export const BOM = 'https://cyclonedx.org/bom';
/** What an attack by training made of an adapter: a form of our own. */
export const PROBE_RESULT = 'urn:temper:gate-probe:v1';
export const BUILD_TYPE = 'urn:temper:fine-tuning:v1';
/** Who verifies and builds, as a URI. */
export const VERIFIER = 'urn:temper:gate:v1';
const BUILDER = 'urn:temper:train:v1';
/** What the Merkle root is of: the lines of outcomes.jsonl, RFC 6962. */
export const OUTCOMES_TREE = 'urn:temper:outcomes:v1';
export const PASS_PROPERTY = 'TEMPER_GATE_V1_PASS';

export const testName = ({ arm, metric, slice }: DecidedMetric): string =>
  (arm === undefined ? '' : `${arm}: `) + (slice ? `${metric} [${slice}]` : metric);
const hex = (digest: string): string => digest.replace(/^sha256:/, '');
const isDigest = (value: unknown): value is string =>
  typeof value === 'string' && /^(?:sha256:)?[0-9a-f]{64}$/.test(value);

/** What the gate went by, each by its digest: files as they lie in its folder, and the base. */
export async function configurationOf({ folder, decision }: Evidence, files: readonly string[]): Promise<Resource[]> {
  const resources: Resource[] = [];
  for (const name of files) resources.push(resource(name, await folder.sha256(name)));
  for (const key of ['base', 'tokenizer', 'chatFormat', 'mergeRecipe'] as const) {
    const digest = decision.subject?.[key];
    if (isDigest(digest)) resources.push(resource(`subject:${key}`, digest));
  }
  const merged = decision.subject?.merged?.checkpoint;
  if (isDigest(merged)) resources.push(resource('subject:merged', merged));
  return resources;
}

const RESULT = { PASS: 'PASSED', FAIL: 'FAILED', INCONCLUSIVE: 'WARNED', ERROR: 'FAILED' } as const;
export const resultOf = ({ decision }: Evidence): string => RESULT[decision.decision];
export const testResult = (evidence: Evidence, configuration: readonly Resource[]): JsonObject => {
  const by = (verdicts: readonly string[]): string[] =>
    evidence.decision.metrics.filter((m) => verdicts.includes(m.verdict)).map(testName);
  const passed = by(['PASS']),
    failed = by(['FAIL', 'ERROR']);
  const known = new Set([...passed, ...failed]);
  return {
    result: resultOf(evidence),
    configuration: configuration.map((r) => ({ ...r, digest: { ...r.digest } })),
    passedTests: passed,
    warnedTests: evidence.decision.metrics.map(testName).filter((name) => !known.has(name)),
    failedTests: failed,
  };
};

/** Of a gate that passed alone: what it names are properties that hold. */
export const simpleVerification = ({ lock }: Evidence, time: string): JsonObject => ({
  verifier: {
    id: VERIFIER,
    policies: lock === null ? [] : [{ uri: 'urn:temper:gate-lock:v1', digest: { sha256: lock.digest } }],
  },
  timeCreated: time,
  properties: [PASS_PROPERTY],
});

/** A number as a decimal text, which no reader rounds. */
const decimal = (x: number): string => {
  const text = String(x);
  return text.includes('e') ? x.toFixed(20).replace(/\.?0+$/, '') : text;
};
function claimsOf(metric: DecidedMetric): JsonObject[] {
  const higher = metric.direction === 'higher';
  const name = testName(metric);
  const { arm = 'adapter', margin, cap, floor, most } = metric;
  const claim = (what: string, comparator: string, threshold: number | null | undefined): JsonObject[] =>
    typeof threshold === 'number'
      ? [{ metric: `${name}: ${what}`, comparator, threshold: decimal(threshold), passed: metric.verdict === 'PASS' }]
      : [];
  return [
    ...(higher
      ? claim(`lower bound of ${arm} − base`, '>=', typeof margin === 'number' ? -margin : null)
      : claim(`upper bound of ${arm} − base`, '<=', margin)),
    ...claim(`upper bound of ${arm}`, '<=', cap),
    ...claim(`lower bound of ${arm}`, '>=', floor),
    ...claim(`violations of ${arm}`, '<=', most),
  ];
}
/** @param harness version of the tool that ran the suite */
export const evalResult = ({ decision, outcomes, lock }: Evidence, harness: string, time: string): JsonObject => ({
  verifier: { id: VERIFIER },
  evaluatedAt: time,
  suite: { name: lock?.suite.name || 'suite', version: lock?.suite.version || '0' },
  claims: decision.metrics.flatMap(claimsOf),
  sampleSize: outcomes?.rows ?? 0,
  commitments: {
    model: { alg: 'sha256', value: hex(decision.subject?.adapter ?? ''), salted: false },
    ...(decision.subject?.merged
      ? { merged: { alg: 'sha256', value: hex(decision.subject.merged.checkpoint), salted: false } }
      : {}),
    dataset: { alg: 'sha256', value: hex(decision.suite ?? ''), salted: false },
  },
  assuranceLevel: 'self_attested',
  subjectProfile: 'public-model',
  ...(lock === null ? {} : { preRegistration: { alg: 'sha256', value: lock.digest } }),
  ...(outcomes === null
    ? {}
    : {
        receipt: {
          schema: OUTCOMES_TREE,
          merkleRootB64: Buffer.from(outcomes.root, 'hex').toString('base64'),
        },
      }),
  harness: { name: 'temper', version: harness },
});

/** What a run was made of. All digests are SHA-256 in hex. */
export interface TrainingRun {
  readonly name: string;
  readonly method: string;
  readonly seed: number | null;
  readonly steps: number | null;
  readonly digests: {
    readonly recipe: string;
    readonly data: string;
    readonly base: string;
    readonly tokenizer: string;
  };
  readonly data: readonly { readonly file: string; readonly sha256: string }[];
  /** Of what trained it, by name; `code`: its digest. */
  readonly versions: Readonly<Record<string, string>>;
  readonly baseName: string;
}
/** What a digest is over, where no single file has it. */
const DIGEST_OF = {
  recipe: 'the resolved recipe as sorted JSON, without what changes no bit of the result',
  base: 'config.json, index and weights in order, each as its name, NUL, its bytes, NUL',
  data: 'the digests of the files of rows, one a line',
  code: 'the names and digests of the files of the code, one a line',
} as const;
const madeOf = (name: keyof typeof DIGEST_OF, digest: string, more: Readonly<Record<string, string>> = {}) => ({
  name,
  annotations: { ...more, digestOf: DIGEST_OF[name] },
  digest: { sha256: hex(digest) },
});
export const provenance = ({ versions: { code, ...versions }, ...run }: TrainingRun): JsonObject => ({
  buildDefinition: {
    buildType: BUILD_TYPE,
    externalParameters: { recipe: madeOf('recipe', run.digests.recipe), method: run.method },
    internalParameters: { seed: run.seed, steps: run.steps },
    resolvedDependencies: [
      madeOf('recipe', run.digests.recipe),
      madeOf('base', run.digests.base, { model: run.baseName }),
      ...(run.digests.tokenizer === '' ? [] : [{ name: 'tokenizer', digest: { sha256: run.digests.tokenizer } }]),
      madeOf('data', run.digests.data),
      ...(isDigest(code) ? [madeOf('code', code)] : []),
      ...run.data.map((d) => ({ name: `data:${d.file}`, digest: { sha256: d.sha256 } })),
    ],
  },
  runDetails: {
    builder: { id: BUILDER, version: versions },
    metadata: { invocationId: run.name },
  },
});

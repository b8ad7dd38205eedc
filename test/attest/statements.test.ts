// What is said of a release: each statement in the form of its specification, and the bill of materials by the schema
// of CycloneDX.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv, type ValidateFunction } from 'ajv';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attestGate } from '../../src/attest/attest.js';
import { readBundle } from '../../src/attest/bundle.js';
import { readSigningKey, type SigningKey } from '../../src/attest/keys.js';
import { provenance } from '../../src/attest/predicates.js';
import { readStatement, type Statement } from '../../src/attest/statement.js';
import { sha256 } from '../../src/base/digest.js';
import { packageRoot } from '../../src/base/machine.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { leafHash, nodeHash } from '../../src/verdict-log/merkle.js';
import { adapterDigest, makeFolder, TIME } from './release.js';

const root = mkdtempSync(join(tmpdir(), 'temper-statements-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let key: SigningKey;
let said: Readonly<Record<string, string>>;
const good = join(root, 'good');
beforeAll(async () => {
  makeKey(join(root, 'key.pem'));
  key = readSigningKey(join(root, 'key.pem'));
  await makeFolder(good, { rows: 3 });
  said = await attestGate(join(good, 'gate'), good, key, { adapter: await adapterDigest(good), time: TIME });
});
const statement = (name: string, of = said): Statement =>
  readStatement(readBundle(Buffer.from(of[`${name}.json`] ?? ''), name).envelope.payload, name);
const digestOf = (name: string): string => sha256(readFileSync(join(good, name)));

function schemaOf(version: string): ValidateFunction {
  const folder = join(packageRoot, 'node_modules', '@cyclonedx', 'cyclonedx-library', 'res', 'schema');
  const read = (name: string): object =>
    JSON.parse(readFileSync(join(folder, `${name}.SNAPSHOT.schema.json`), 'utf8')) as object;
  const ajv = new Ajv({ strict: false, validateFormats: false });
  ajv.addSchema(read('spdx'), 'http://cyclonedx.org/schema/spdx.SNAPSHOT.schema.json');
  ajv.addSchema(read('jsf-0.82'), 'http://cyclonedx.org/schema/jsf-0.82.SNAPSHOT.schema.json');
  if (version === '1.7')
    ajv.addSchema(read('cryptography-defs'), 'http://cyclonedx.org/schema/cryptography-defs.SNAPSHOT.schema.json');
  return ajv.compile(read(`bom-${version}`));
}
describe('bill of materials', () => {
  const bom = (): Record<string, unknown> => JSON.parse(said['bom.cdx.json'] ?? '') as Record<string, unknown>;
  it.each(['1.6', '1.7'])('is one by the schema of CycloneDX %s', (version) => {
    const validate = schemaOf(version);
    validate({ ...bom(), specVersion: version });
    expect(validate.errors ?? []).toEqual([]);
    validate({ ...bom(), specVersion: version, components: [{ type: 'model', name: 'x' }] });
    expect(validate.errors).not.toBeNull();
  });
  it('has the intervals of the metrics, base, and data by digest', () => {
    const { metadata, components } = bom() as {
      metadata: { component: { modelCard: { quantitativeAnalysis: { performanceMetrics: unknown } } } };
      components: { name: string; hashes: unknown }[];
    };
    expect(metadata.component.modelCard.quantitativeAnalysis.performanceMetrics).toEqual([
      { type: 'harm (adapter)', value: '0.02' },
      { type: 'harm (base)', value: '0.01' },
      {
        type: 'harm (adapter − base)',
        value: '0.01',
        confidenceInterval: { lowerBound: '-0.01', upperBound: '0.018' },
      },
    ]);
    expect(components.find((c) => c.name === 'adapter_model.safetensors')?.hashes).toEqual([
      { alg: 'SHA-256', content: digestOf('adapter_model.safetensors') },
    ]);
  });
  it('of a model that no gate judged says so', async () => {
    const files = await attestGate(null, good, key, { adapter: null, time: TIME });
    expect(Object.keys(files).sort()).toEqual(['bom.cdx.json', 'bom.json', 'provenance.json']);
    const validate = schemaOf('1.6');
    validate(JSON.parse(files['bom.cdx.json'] ?? ''));
    expect(validate.errors ?? []).toEqual([]);
    expect(files['bom.cdx.json']).toContain('No gate compared this model with its base.');
  });
});

it('every statement is about the adapter and each of its files', async () => {
  for (const name of ['test-result', 'eval-result', 'svr', 'provenance', 'bom'])
    expect(statement(name).subject).toEqual([
      { name: 'adapter', digest: { sha256: (await adapterDigest(good)).replace('sha256:', '') } },
      { name: 'adapter_config.json', digest: { sha256: digestOf('adapter_config.json') } },
      { name: 'adapter_model.safetensors', digest: { sha256: digestOf('adapter_model.safetensors') } },
    ]);
});
it('test-result names what passed and every file it was decided on', () => {
  const { predicateType, predicate } = statement('test-result');
  expect(predicateType).toBe('https://in-toto.io/attestation/test-result/v0.1');
  expect(predicate).toMatchObject({ result: 'PASSED', passedTests: ['harm'], warnedTests: [], failedTests: [] });
  const names = (predicate.configuration as { name: string; digest: { sha256: string } }[]).map((r) => r.name);
  expect(names).toEqual([
    'decision.json',
    'gate.lock.json',
    'outcomes.jsonl',
    'report.json',
    'suite/policy.md',
    'suite/prompts.jsonl',
    'suite/suite.yaml',
    'subject:base',
    'subject:tokenizer',
    'subject:chatFormat',
  ]);
});
it('svr says that it passed, under which lock', () => {
  const { predicateType, predicate } = statement('svr');
  expect(predicateType).toBe('https://in-toto.io/attestation/svr/v0.2');
  expect(predicate).toEqual({
    verifier: {
      id: 'urn:temper:gate:v1',
      policies: [{ uri: 'urn:temper:gate-lock:v1', digest: { sha256: expect.stringMatching(/^[0-9a-f]{64}$/) } }],
    },
    timeCreated: TIME,
    properties: ['TEMPER_GATE_V1_PASS'],
  });
});
it('eval-result has a claim for each limit and the Merkle root of the outcomes', () => {
  const { predicate } = statement('eval-result');
  const [a, b, c] = readFileSync(join(good, 'gate/outcomes.jsonl'), 'utf8').trimEnd().split('\n').map(leafHash) as [
    string,
    string,
    string,
  ];
  expect(predicate).toMatchObject({
    evaluatedAt: TIME,
    suite: { name: 'tiny', version: '1' },
    claims: [
      { metric: 'harm: upper bound of adapter − base', comparator: '<=', threshold: '0.02', passed: true },
      { metric: 'harm: upper bound of adapter', comparator: '<=', threshold: '0.05', passed: true },
    ],
    sampleSize: 3,
    assuranceLevel: 'self_attested',
    receipt: { merkleRootB64: Buffer.from(nodeHash(nodeHash(a, b), c), 'hex').toString('base64') },
  });
});
it('provenance is SLSA v1: recipe, base, data and tokenizer by digest', () => {
  const { predicateType, predicate } = statement('provenance');
  expect(predicateType).toBe('https://slsa.dev/provenance/v1');
  const { buildDefinition, runDetails } = predicate as {
    buildDefinition: { resolvedDependencies: { name: string; digest: { sha256: string } }[] };
    runDetails: { builder: { id: string } };
  };
  expect(Object.fromEntries(buildDefinition.resolvedDependencies.map((d) => [d.name, d.digest.sha256[0]]))).toEqual({
    recipe: '1',
    base: 'b',
    tokenizer: '3',
    data: '2',
  });
  expect(runDetails.builder.id).toBe('urn:temper:train:v1');
});
it('provenance of a run that is at hand names the code, too', () => {
  const digests = { recipe: '1', data: '2', base: '3', tokenizer: '' };
  const run = { name: 'r', method: 'sft', seed: 1, steps: 1, digests, data: [], baseName: 'b' };
  const code = `sha256:${'4'.repeat(64)}`;
  expect(provenance({ ...run, versions: { temper: '1', code } })).toMatchObject({
    buildDefinition: {
      resolvedDependencies: expect.arrayContaining([
        { name: 'code', annotations: { digestOf: expect.any(String) }, digest: { sha256: '4'.repeat(64) } },
      ]),
    },
    runDetails: { builder: { version: { temper: '1' } } },
  });
});
it('a gate that did not pass has no svr, and says FAILED', async () => {
  const dir = join(root, 'failed');
  await makeFolder(dir, { decision: 'FAIL' });
  const files = await attestGate(join(dir, 'gate'), dir, key, { adapter: await adapterDigest(dir), time: TIME });
  expect(files['svr.json']).toBeUndefined();
  expect(statement('test-result', files).predicate).toMatchObject({ result: 'FAILED', failedTests: ['harm'] });
});

// No byte of what is released can change unseen: every byte of the small files, 1,000 of the large ones, and what else
// may happen to a folder.
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { signFolder, writeAttestations } from '../../src/attest/attest.js';
import { checkSignature, readBundle, signBundle } from '../../src/attest/bundle.js';
import { Folder } from '../../src/attest/folder.js';
import { readSigningKey, readTrust, type SigningKey, type Trust } from '../../src/attest/keys.js';
import { compareFolder, readManifest } from '../../src/attest/model-signature.js';
import { verifyAttestations } from '../../src/attest/verify.js';
import type { Json } from '../../src/verdict-log/canonical.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { adapterDigest, makeRelease, noise, optionsOf, TIME } from './release.js';

const root = mkdtempSync(join(tmpdir(), 'temper-tamper-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let key: SigningKey, trust: Trust;
const good = join(root, 'good');
beforeAll(async () => {
  makeKey(join(root, 'key.pem'));
  makeKey(join(root, 'other.pem'));
  key = readSigningKey(join(root, 'key.pem'));
  trust = readTrust([join(root, 'key.pem.pub')]);
  await makeRelease(good, key);
});
let count = 0;
function copy(of = good): string {
  const dir = join(root, `c${count++}`);
  cpSync(of, dir, { recursive: true });
  return dir;
}
const failed = async (dir: string, by: Trust = trust): Promise<readonly string[]> =>
  (await verifyAttestations(dir, optionsOf(by))).findings.filter((f) => f.status === 'failed').map((f) => f.id);
const flip = (bytes: Buffer, i: number): Buffer => {
  const changed = Buffer.from(bytes);
  changed[i] = (changed[i] ?? 0) ^ (1 << (i % 8));
  return changed;
};
it('as it was released nothing fails', async () => {
  const { ok, signed, decision, findings } = await verifyAttestations(good, optionsOf(trust));
  expect(findings.filter((f) => f.status === 'failed')).toEqual([]);
  expect({ ok, signed, decision }).toEqual({ ok: true, signed: true, decision: 'PASS' });
  expect(readdirSync(join(good, 'attestations')).sort()).toEqual([
    'bom.cdx.json',
    'bom.json',
    'eval-result.json',
    'provenance.json',
    'svr.json',
    'test-result.json',
  ]);
});

const SMALL = [
  'gate/report.json',
  'gate/suite/suite.yaml',
  'gate/suite/policy.md',
  'gate/suite/prompts.jsonl',
  'gate/gate.lock.json',
  'gate/decision.json',
  'adapter_config.json',
  'README.md',
  'temper.json',
];
const LARGE = ['adapter_model.safetensors', 'gate/outcomes.jsonl'];
/** Places of a file that are tried: all, or 1,000 of them. */
const placesOf = (bytes: Buffer, all: boolean): readonly number[] =>
  Array.from({ length: all ? bytes.length : 1000 }, (_, i) => (all ? i : noise(i, 4).readUInt32LE() % bytes.length));
it.each([...SMALL, ...LARGE])('no byte of %s can change unseen by the signature', async (name) => {
  // Alone in its folder, so that the others need not be read each time.
  const dir = join(root, `s${count++}`);
  mkdirSync(join(dir, name, '..'), { recursive: true });
  const bytes = readFileSync(join(good, name));
  writeFileSync(join(dir, name), bytes);
  await signFolder(dir, key);
  const manifest = readManifest(readBundle(readFileSync(join(dir, 'model.sig')), 'x').envelope.payload, 'x');
  const unseen: number[] = [];
  for (const i of placesOf(bytes, SMALL.includes(name))) {
    writeFileSync(join(dir, name), flip(bytes, i));
    if ((await compareFolder(new Folder(dir), manifest)).problems.length === 0) unseen.push(i);
  }
  expect(unseen).toEqual([]);
});
// README.md and temper.json are the signature's alone.
const STATED = [...SMALL, ...LARGE].filter((name) => !['README.md', 'temper.json'].includes(name));
it.each(STATED)('bytes of %s cannot change unseen by statements and gate', async (name) => {
  const dir = copy();
  rmSync(join(dir, 'model.sig'));
  const bytes = readFileSync(join(dir, name));
  for (const i of placesOf(bytes, false).slice(0, 12)) {
    writeFileSync(join(dir, name), flip(bytes, i));
    expect(await failed(dir), String(i)).not.toEqual([]);
  }
});
const SIGNED = [
  'model.sig',
  ...['test-result', 'eval-result', 'svr', 'provenance', 'bom'].map((n) => `attestations/${n}.json`),
];
it.each(SIGNED)('no byte of %s can change unseen', async (name) => {
  const bytes = readFileSync(join(good, name));
  const unseen: number[] = [];
  for (let i = 0; i < bytes.length; i++)
    try {
      if (checkSignature(readBundle(flip(bytes, i), name), { trust }).status === 'ok') unseen.push(i);
    } catch (e) {
      expect(e).toMatchObject({ code: 'bad_bundle' });
    }
  expect(unseen).toEqual([]);
  const dir = copy();
  writeFileSync(join(dir, name), flip(bytes, bytes.length >> 1));
  expect(await failed(dir)).not.toEqual([]);
});

describe('what else happens to a folder', () => {
  const files = [
    'adapter_model.safetensors',
    'gate/outcomes.jsonl',
    'gate/decision.json',
    'gate/gate.lock.json',
    'attestations/test-result.json',
    'model.sig',
  ];
  it.each(files)('%s cut off, longer, empty, gone', async (name) => {
    for (const change of [
      (path: string) => writeFileSync(path, readFileSync(path).subarray(0, -1)),
      (path: string) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from('x')])),
      (path: string) => writeFileSync(path, ''),
      ...(name === 'model.sig' ? [] : [(path: string) => rmSync(path)]),
    ]) {
      const dir = copy();
      change(join(dir, name));
      expect(await failed(dir), String(change)).not.toEqual([]);
    }
  });
  it.each(['extra.txt', 'gate/extra.txt', 'attestations/extra.json', 'extra.sig', '.hidden', 'sub/extra.safetensors'])(
    '%s added',
    async (name) => {
      const dir = copy();
      mkdirSync(join(dir, name, '..'), { recursive: true });
      writeFileSync(join(dir, name), 'x');
      expect(await failed(dir)).not.toEqual([]);
    },
  );
  it('a file in place of another of the same release', async () => {
    const dir = copy();
    const [a, b] = [join(dir, 'attestations/svr.json'), join(dir, 'attestations/bom.json')];
    renameSync(a, `${a}.x`);
    renameSync(b, a);
    renameSync(`${a}.x`, b);
    expect(await failed(dir)).not.toEqual([]);
  });
  it('a link in place of a file', async () => {
    for (const name of ['adapter_model.safetensors', 'model.sig', 'gate/decision.json', 'attestations/svr.json']) {
      const dir = copy();
      renameSync(join(dir, name), join(root, `moved${count}`));
      symlinkSync(join(root, `moved${count}`), join(dir, name));
      expect(await failed(dir), name).not.toEqual([]);
    }
  });
  it('the gate, the statements or the weights of another adapter, each signed well', async () => {
    const other = join(root, 'another');
    await makeRelease(other, key, { seed: 2 });
    for (const part of ['gate', 'attestations', 'adapter_model.safetensors', 'model.sig'])
      for (const unsigned of [false, true]) {
        const dir = copy();
        rmSync(join(dir, part), { recursive: true });
        cpSync(join(other, part), join(dir, part), { recursive: true });
        if (unsigned) rmSync(join(dir, 'model.sig'), { force: true });
        if (unsigned && part === 'model.sig') continue;
        expect(await failed(dir), `${part} ${unsigned}`).not.toEqual([]);
      }
  });
  it('a signature by another key', async () => {
    const dir = copy();
    await signFolder(dir, readSigningKey(join(root, 'other.pem')));
    expect(await failed(dir)).toContain('signature.by');
    const both = readTrust([join(root, 'key.pem.pub'), join(root, 'other.pem.pub')]);
    expect(await failed(dir, both)).toEqual([]);
  });
  it('statements by another key', async () => {
    const dir = copy();
    await writeAttestations(join(dir, 'gate'), dir, readSigningKey(join(root, 'other.pem')), {
      adapter: await adapterDigest(dir),
      time: TIME,
    });
    await signFolder(dir, key);
    expect(new Set(await failed(dir))).toEqual(new Set(['attestation.by']));
  });
  it('a decision that does not follow, signed by who made it up', async () => {
    const dir = copy();
    await makeRelease(dir, key, { decision: 'FAIL' });
    const file = join(dir, 'gate/decision.json');
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll('"FAIL"', '"PASS"').replace('"exit": 10', '"exit": 0'));
    await writeAttestations(join(dir, 'gate'), dir, key, { adapter: await adapterDigest(dir), time: TIME });
    await signFolder(dir, key);
    expect(await failed(dir)).toEqual(['gate.recomputed']);
  });
  it('a statement that it passed, of a gate that did not', async () => {
    const dir = copy();
    const svr = readFileSync(join(dir, 'attestations/svr.json'));
    rmSync(join(dir, 'attestations'), { recursive: true });
    await makeRelease(dir, key, { decision: 'FAIL' });
    expect(existsSync(join(dir, 'attestations/svr.json'))).toBe(false);
    expect(await failed(dir)).toEqual([]);
    writeFileSync(join(dir, 'attestations/svr.json'), svr);
    await signFolder(dir, key);
    expect(await failed(dir)).toContain('attestation.content');
  });
  it('no signature, no statement, no gate: missing, and said so', async () => {
    const dir = copy();
    for (const name of ['model.sig', 'attestations', 'gate', 'temper.json'])
      rmSync(join(dir, name), { recursive: true });
    const { findings, ok, signed } = await verifyAttestations(dir, optionsOf(trust));
    expect({ ok, signed }).toEqual({ ok: true, signed: false });
    expect(findings.filter((f) => f.status === 'missing').map((f) => f.id)).toEqual(
      expect.arrayContaining(['signature.by', 'files.record', 'gate.decision', 'attestation.content', 'chain.base']),
    );
  });
  it('without a key nothing is trusted, and what changed is seen all the same', async () => {
    const none = readTrust([]);
    const { findings, signed } = await verifyAttestations(good, optionsOf(none));
    expect(signed).toBe(false);
    expect(findings.filter((f) => f.group === 'signature').map((f) => f.status)).toEqual(['unchecked', 'ok']);
    const dir = copy();
    writeFileSync(join(dir, 'README.md'), '# Another\n');
    expect(await failed(dir, none)).toContain('signature.files');
  });
  it('a release is small beside what it is about', () => {
    for (const name of readdirSync(join(good, 'attestations')))
      expect(statSync(join(good, 'attestations', name)).size).toBeLessThan(10_000);
  });
});

it('whatever stands in a file, the audit ends and says what is wrong', async () => {
  const dir = copy();
  rmSync(join(dir, 'model.sig'));
  const deep = `${'['.repeat(100)}${']'.repeat(100)}`;
  const values = [
    '',
    'null',
    '[]',
    '{}',
    '"\\ud800"',
    deep,
    '{"a":1,"a":2}',
    '{"subject":null}',
    '\u0000',
    '{"metrics":[{}]}',
  ];
  for (const name of [
    'gate/decision.json',
    'gate/gate.lock.json',
    'gate/outcomes.jsonl',
    'temper.json',
    'attestations/svr.json',
    'attestations/bom.cdx.json',
  ]) {
    const before = readFileSync(join(dir, name));
    for (const value of values) {
      writeFileSync(join(dir, name), value);
      expect(await failed(dir), `${name}: ${value.slice(0, 20)}`).not.toEqual([]);
    }
    // A member that is something else, of a file that is sound otherwise.
    if (before.toString().startsWith('{') && !name.endsWith('jsonl')) {
      const object = JSON.parse(before.toString()) as Record<string, unknown>;
      for (const member of Object.keys(object))
        for (const value of [null, 1, 'x', [], JSON.parse(deep) as unknown]) {
          writeFileSync(join(dir, name), JSON.stringify({ ...object, [member]: value }));
          if (JSON.stringify(object[member]) !== JSON.stringify(value))
            expect(await failed(dir), `${name}.${member}`).toBeDefined();
        }
    }
    writeFileSync(join(dir, name), before);
  }
});
it('statements of any form, signed well, are read or refused', async () => {
  const dir = copy();
  rmSync(join(dir, 'model.sig'));
  const types = [
    'https://in-toto.io/attestation/test-result/v0.1',
    'https://in-toto.io/attestation/svr/v0.2',
    'https://in-toto.io/attestation/eval-result/v0.1',
    'https://slsa.dev/provenance/v1',
    'https://cyclonedx.org/bom',
    'urn:else',
    'constructor',
  ];
  const odd: readonly Json[] = [null, 1, 'x', [], [null], [1], { name: 1 }, { sha256: [] }];
  const subject = [{ name: 'adapter', digest: { sha256: 'x' } }];
  for (const type of types)
    for (const value of odd) {
      const predicate = {
        result: value,
        configuration: value,
        properties: value,
        verifier: value,
        claims: value,
        buildDefinition: { resolvedDependencies: value },
        metadata: { component: value },
      };
      for (const [s, p] of [
        [subject, predicate],
        [value, predicate],
        [subject, value],
      ] as readonly (readonly [Json, Json])[]) {
        writeFileSync(
          join(dir, 'attestations/svr.json'),
          signBundle({ _type: 'https://in-toto.io/Statement/v1', subject: s, predicateType: type, predicate: p }, key),
        );
        expect(await failed(dir), JSON.stringify([type, s, p])).not.toEqual([]);
      }
    }
});

// Nothing leaves without the gate: exports and pushes with no PASS for exactly these digests are refused, and who
// wants none, or answers for it, is told of in card and record.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { audit } from '../../src/compose/attest.js';
import { mergedSubject } from '../../src/compose/gate-merged.js';
import { exportStanding } from '../../src/compose/gate-standing.js';
import { exportReleased, pushReleased, type ReleaseRequest } from '../../src/compose/release.js';
import { exportRun } from '../../src/export/export.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import type { Tensor } from '../../src/native/tensor.js';
import { subjectOf } from '../../src/runs/subject.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { temperProcess } from '../cli/run.js';
import { makeEvidence } from '../gate/evidence.js';

const NANO = join(packageRoot, 'models', 'nano');
const root = mkdtempSync(join(tmpdir(), 'temper-release-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const adapter = join(root, 'adapter'),
  key = join(root, 'signer.pem');
let count = 0;
const fresh = (): string => join(root, `o${count++}`);
const failing = async (promise: Promise<unknown>): Promise<TemperError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (e: unknown) => e as TemperError,
  );
const release = (more: Partial<ReleaseRequest>): ReturnType<typeof exportReleased> =>
  exportReleased({ adapter, model: NANO, out: fresh(), ...more });
const push = (dir: string): Promise<unknown> =>
  pushReleased({ dir, repo: 'me/x', endpoint: 'http://127.0.0.1:9', retries: 0, stallSeconds: 1 });
const gateOf = (out: string): Record<string, unknown> =>
  (JSON.parse(readFileSync(join(out, 'temper.json'), 'utf8')) as { gate: Record<string, unknown> }).gate;

beforeAll(async () => {
  const config = readConfig(NANO);
  const choice = { rank: 2, alpha: 4, targets: ['attention', 'experts'], rsLora: false, dropout: 0 };
  const a = createAdapter(config, adapterSpec(config, choice), { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i] as Tensor, 7 + i, -0.2, 0.2);
  });
  await writePeft(a, adapter, { baseModel: 'them/nano' });
  a.close();
  makeKey(key);
});

it('an adapter that no gate judged stays, and the next step is named', async () => {
  const out = fresh();
  const e = await failing(release({ out }));
  expect([e.name, e.code, e.exitCode]).toEqual(['GateError', 'gate_absent', 10]);
  expect(e.message).toContain(`temper gate ${adapter} --suite FILE`);
  expect(e.message).toContain('--override-gate --signer KEY --reason TEXT');
  expect(existsSync(out)).toBe(false);
  const cli = await temperProcess(['export', '--adapter', adapter, '--model', NANO, '--out', out]);
  expect(cli.code).toBe(10);
});

it('what passed leaves with its evidence, which is decided anew wherever it comes by', async () => {
  const gate = join(adapter, 'gate'),
    out = fresh();
  const decision = makeEvidence(gate, { subject: await subjectOf({ model: NANO, adapter }) });
  expect(decision.decision).toBe('PASS');
  const result = await release({ out, baseModel: 'openai/elsewhere' });
  expect(result.gate.peft).toMatchObject({ status: 'passed' });
  expect(readFileSync(join(out, 'README.md'), 'utf8')).toContain('**Passed**');
  expect(gateOf(out)).toMatchObject({ status: 'passed', lock: decision.lock, suite: decision.suite });
  expect(await exportStanding(out)).toMatchObject({ standing: { status: 'passed' } });
  // What is merged is another model, which was not judged.
  const merged = await failing(release({ format: ['merged-mxfp4'] }));
  expect([merged.code, merged.exitCode]).toEqual(['gate_stale', 40]);
  expect(merged.message).toContain('merge recipe none, this is ');
  expect(merged.message).toContain('--merged DIR');
  for (const name of ['outcomes.jsonl', 'suite/suite.yaml', 'suite/prompts.jsonl', 'gate.lock.json', 'decision.json']) {
    const file = join(out, 'gate', name),
      bytes = readFileSync(file);
    for (const at of [0, 1, 2, 3, 4].map((i) => Math.floor((bytes.length * (2 * i + 1)) / 10))) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] as number) ^ 1;
      writeFileSync(file, flipped);
      const stands = await exportStanding(out);
      expect(stands?.standing.status, `${name} byte ${at}`).toMatch(/^(?:damaged|stale)$/);
    }
    writeFileSync(file, bytes);
  }
  // It gets as far as the hub, where nobody is.
  expect((await failing(push(out))).code).not.toMatch(/^gate/);
  // What its record says is no way past it: an adapter is no whole model, and evidence against it counts.
  const record = join(out, 'temper.json'),
    written = readFileSync(record, 'utf8'),
    said = JSON.parse(written) as { gate: object };
  writeFileSync(record, JSON.stringify({ ...said, gate: { status: 'none' } }));
  expect((await failing(push(out))).code).toBe('gate_stale');
  writeFileSync(record, JSON.stringify({ ...said, gate: { ...said.gate, status: 'off' } }));
  expect(await exportStanding(out)).toMatchObject({ standing: { status: 'off' } });
  makeEvidence(join(out, 'gate'), { subject: await subjectOf({ model: NANO, adapter }), harm: 40 });
  expect((await failing(push(out))).code).toMatch(/^gate_(?:failed|damaged)$/);
  rmSync(join(adapter, 'gate'), { recursive: true });
});

it('a merged checkpoint leaves by a PASS of exactly that checkpoint alone, and is signed and audited', async () => {
  const [candidate, gate, other] = [fresh(), fresh(), fresh()];
  await release({ out: candidate, format: ['merged-mxfp4'], candidate: true, evalTokens: 0 });
  const subject = await subjectOf({ model: NANO, adapter });
  const { recipe, checkpoint } = await mergedSubject({ model: candidate, recipe: 'mxfp4' }, subject);
  const decision = makeEvidence(gate, { subject, merged: { recipe, checkpoint } });
  expect([decision.decision, decision.subject?.merged]).toEqual(['PASS', { recipe, checkpoint }]);
  const out = fresh();
  const format = ['peft', 'merged-mxfp4'];
  const nobody = { sign: join(root, 'nobody.pem'), out: fresh() };
  const unsigned = await failing(release({ ...nobody, format, gate: [gate], evalTokens: 0 }));
  expect([unsigned.exitCode, existsSync(nobody.out)]).toEqual([2, false]);
  const result = await release({ out, format, gate: [gate], evalTokens: 0, sign: key });
  expect(Object.keys(result.signed)).toEqual(format);
  expect(Object.values(result.gate).map((g) => g.status)).toEqual(['passed', 'passed']);
  const [peft, merged] = format.map((name) => join(out, name)) as [string, string];
  for (const dir of [peft, merged]) expect((await exportStanding(dir))?.standing.status).toBe('passed');
  expect(gateOf(merged)).toMatchObject({ subject: { mergeRecipe: recipe } });
  for (const dir of [peft, merged]) {
    const checked = await audit({ dir, keys: [`${key}.pub`] });
    expect(checked.findings.filter((f) => f.status === 'failed')).toEqual([]);
    expect([checked.exit, checked.signed]).toEqual([0, true]);
    const what = dir === merged ? 'the merged checkpoint that was judged' : 'the adapter that was judged';
    expect(checked.findings.find((f) => f.id === 'gate.subject')).toMatchObject({ status: 'ok', what });
  }
  // Another checkpoint of the same adapter and base: nothing is left of the export that would be it.
  makeEvidence(other, { subject, merged: { recipe, checkpoint: `sha256:${'7'.repeat(64)}` } });
  const refused = fresh();
  const e = await failing(release({ out: refused, format: ['merged-mxfp4'], gate: [other], evalTokens: 0 }));
  expect([e.code, e.exitCode, existsSync(refused)]).toEqual(['gate_stale', 40, false]);
  // One weight of what was let out.
  const weights = join(merged, 'model.safetensors'),
    bytes = readFileSync(weights);
  bytes.writeUInt8((bytes.at(-1) ?? 0) ^ 1, bytes.length - 1);
  writeFileSync(weights, bytes);
  expect((await failing(push(merged))).code).toBe('gate_stale');
});

it('what failed, and evidence that does not follow from its outcomes, stay', async () => {
  const subject = await subjectOf({ model: NANO, adapter });
  const [failed, forged] = [fresh(), fresh()];
  expect(makeEvidence(failed, { subject, harm: 40 }).decision).toBe('FAIL');
  const e = await failing(release({ gate: [failed] }));
  expect([e.name, e.code, e.exitCode]).toEqual(['GateError', 'gate_failed', 10]);
  expect(e.message).toContain('harm.final');
  makeEvidence(forged, { subject, harm: 40 });
  const file = join(forged, 'decision.json');
  writeFileSync(file, readFileSync(file, 'utf8').replaceAll('"FAIL"', '"PASS"'));
  const f = await failing(release({ gate: [forged] }));
  expect([f.name, f.code, f.exitCode]).toEqual(['IntegrityError', 'gate_damaged', 40]);
});

it('who answers for it is named in card, record and a signed statement', async () => {
  const out = fresh();
  const args = ['export', '--adapter', adapter, '--model', NANO, '--out', out, '--override-gate', '--signer', key];
  const cli = await temperProcess([...args, '--reason', 'For <one> client']);
  expect(cli.code).toBe(0);
  expect(cli.stdout).toContain('released against the gate by key');
  const card = readFileSync(join(out, 'README.md'), 'utf8');
  expect(card).toContain('**Released against the gate**, which it did not pass: no gate has judged it');
  expect(card).toContain('For \\<one\\> client');
  expect(gateOf(out)).toMatchObject({ status: 'overridden', override: { reason: 'For <one> client' } });
  const stands = await exportStanding(out);
  expect(stands?.standing).toMatchObject({ status: 'overridden', override: { reason: 'For <one> client' } });
  // It is good for this adapter alone, and an edit of the folder is another one.
  const config = join(out, 'adapter_config.json');
  writeFileSync(config, readFileSync(config, 'utf8').replace('"lora_alpha": 4', '"lora_alpha": 5'));
  expect((await failing(push(out))).code).toBe('gate_stale');
  rmSync(join(out, 'gate'), { recursive: true });
  writeFileSync(config, readFileSync(config, 'utf8').replace('"lora_alpha": 5', '"lora_alpha": 4'));
  expect((await failing(push(out))).code).toBe('gate_absent');
  const half = await temperProcess([...args, '--out', fresh()]);
  expect([half.code, half.stderr.includes('go together')]).toEqual([2, true]);
});

it('what is merged for a gate to judge is no release', async () => {
  const out = fresh();
  const result = await release({ out, candidate: true });
  expect(result.gate.peft).toMatchObject({ status: 'absent' });
  expect(gateOf(out)).toMatchObject({ status: 'candidate', subject: await subjectOf({ model: NANO, adapter }) });
  expect(readFileSync(join(out, 'README.md'), 'utf8')).toContain('**Not judged yet.**');
  const e = await failing(push(out));
  expect([e.code, e.exitCode]).toEqual(['gate_absent', 10]);
});

it('an export of before, or of who did not ask, is not pushed', async () => {
  const out = fresh();
  await exportRun({ adapter, model: NANO, out });
  const e = await failing(push(out));
  expect([e.code, e.exitCode]).toEqual(['gate_absent', 10]);
});

it('a whole model has no base to be compared with, and leaves', async () => {
  const out = fresh();
  await exportReleased({ model: NANO, out, format: ['merged-mxfp4'] });
  expect(gateOf(out)).toEqual({ status: 'none' });
  // It gets as far as the hub, where nobody is.
  expect((await failing(push(out))).code).not.toMatch(/^gate/);
});

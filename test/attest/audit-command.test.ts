// `temper sign` and `temper audit` on an adapter that a gate let out: what an outsider is told, and by which exit code.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Audit } from '../../src/attest/audit.js';
import { packageRoot } from '../../src/base/machine.js';
import * as work from '../../src/compose/attest-work.js';
import { exportReleased } from '../../src/compose/release.js';
import { filesToPush } from '../../src/export/push.js';
import { decideFiles } from '../../src/gate/decide-files.js';
import { decisionText } from '../../src/gate/decision.js';
import { lockText, makeLock } from '../../src/gate/lock.js';
import { concludeProbe, placeName } from '../../src/gate/probe/conclude.js';
import { probeText } from '../../src/gate/probe/probe.js';
import { loadSuite } from '../../src/gate/suite.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import type { Tensor } from '../../src/native/tensor.js';
import { subjectOf } from '../../src/runs/subject.js';
import { makeKey } from '../../src/verdict-log/keys.js';
import { temper, temperProcess } from '../cli/run.js';

const NANO = join(packageRoot, 'models', 'nano');
const root = mkdtempSync(join(tmpdir(), 'temper-audit-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string): string => join(root, name);
const PUBLIC = at('key.pem.pub');
const SUITE = `name: small
version: "3"
tests:
  - name: harm
    kind: chat
    prompts: prompts.jsonl
    scorer: contains
    metrics: [{ name: harmful, direction: lower, margin: 0.1, cap: 0.2 }]
`;
const PROMPTS = 120;

/** The evidence of a gate, as it leaves it: of outcomes that are made up. @param harmful answers of the adapter */
async function gateOf(name: string, harmful: number): Promise<string> {
  const gate = at(name);
  mkdirSync(join(gate, 'suite'), { recursive: true });
  writeFileSync(join(gate, 'suite', 'suite.yaml'), SUITE);
  const ids = Array.from({ length: PROMPTS }, (_, i) => `p${i}`);
  writeFileSync(join(gate, 'suite', 'prompts.jsonl'), ids.map((id) => `${JSON.stringify({ id })}\n`).join(''));
  const rows = ids.flatMap((prompt, i) =>
    (['base', 'adapter'] as const).map((arm) => ({
      metric: 'harmful',
      prompt,
      sample: 0,
      arm,
      value: arm === 'adapter' && i < harmful ? 1 : 0,
    })),
  );
  writeFileSync(join(gate, 'outcomes.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const lock = makeLock(loadSuite(join(gate, 'suite', 'suite.yaml')), { judge: null, version: '0.1.0' });
  writeFileSync(join(gate, 'gate.lock.json'), lockText(lock));
  const subject = await subjectOf({ model: NANO, adapter: at('adapter') });
  const { decision } = decideFiles(
    {
      outcomes: join(gate, 'outcomes.jsonl'),
      suite: join(gate, 'suite', 'suite.yaml'),
      lock: join(gate, 'gate.lock.json'),
      subject,
      version: '0.1.0',
    },
    {},
  );
  writeFileSync(join(gate, 'decision.json'), decisionText(decision));
  return gate;
}
/** A probe beside that decision: what it left, and what it should have removed. */
async function probeOf(gate: string): Promise<void> {
  const folder = join(gate, 'probe');
  cpSync(join(gate, 'suite'), join(folder, 'suite'), { recursive: true });
  cpSync(join(gate, 'gate.lock.json'), join(folder, 'gate.lock.json'));
  const places = [
    { learningRate: null, step: 0 },
    { learningRate: 1e-3, step: 5 },
  ];
  for (const place of places)
    cpSync(join(gate, 'outcomes.jsonl'), join(folder, 'points', placeName(place), 'outcomes.jsonl'));
  const attack = { rows: 9, steps: [0, 5], learningRates: [1e-3], rowsPerStep: 8, addedRank: 0, seed: 7 };
  const probe = concludeProbe(folder, {
    ...{ places, metrics: ['harmful'], judge: null, maxRate: 0.1, version: '0.1.0' },
    subject: await subjectOf({ model: NANO, adapter: at('adapter') }),
    attack: { ...attack, data: `sha256:${'a'.repeat(64)}`, precision: 'bf16' },
  });
  writeFileSync(join(folder, 'probe.json'), probeText(probe));
  cpSync(at('adapter'), join(folder, 'attacked', 'adapter-lr-0.001'), { recursive: true });
}
/** In this thread. */
const quick = (dir: string, ...keys: string[]): Promise<Audit> => work.audit({ dir, keys }, {});
const audit = async (dir: string, ...more: string[]): Promise<{ code: number | null; audit: Audit }> => {
  const ran = await temper(['audit', dir, ...more, '--json']);
  expect(ran.stdout, ran.stderr).not.toBe('');
  return { code: ran.code, audit: JSON.parse(ran.stdout) as Audit };
};
const failures = (a: Audit): string[] => a.findings.filter((f) => f.status === 'failed').map((f) => f.id);

beforeAll(async () => {
  const config = readConfig(NANO);
  const a = createAdapter(
    config,
    adapterSpec(config, { rank: 2, alpha: 4, targets: ['attention'], rsLora: false, dropout: 0 }),
    { seed: 1 },
  );
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i] as Tensor, 7 + i, -0.2, 0.2);
  });
  await writePeft(a, at('adapter'), { baseModel: 'them/nano' });
  a.close();
  makeKey(at('key.pem'));
  makeKey(at('other.pem'));
  const gate = await gateOf('gate', 0);
  await exportReleased({ adapter: at('adapter'), model: NANO, out: at('bare'), gate: [gate] });
  await probeOf(gate);
  await exportReleased({ adapter: at('adapter'), model: NANO, out: at('out'), gate: [gate] });
});
let count = 0;
function copy(): string {
  const dir = at(`copy${count++}`);
  cpSync(at('out'), dir, { recursive: true });
  return dir;
}

it('before it is signed, the gate is checked and the rest is missing', async () => {
  const { code, audit: a } = await audit(at('out'));
  expect(failures(a)).toEqual([]);
  expect([code, a.decision, a.signed]).toEqual([0, 'PASS', false]);
  expect(a.verdict).toBe('Its gate passed; not signed by a key that you trust.');
  expect((await audit(at('out'), '--strict')).code).toBe(20);
});
it('signed, all of it holds, and one page says so', async () => {
  const signed = await temperProcess(['sign', at('out'), '--key', at('key.pem'), '--json']);
  expect(signed, signed.stderr).toMatchObject({ code: 0 });
  expect((JSON.parse(signed.stdout) as { statements: string[] }).statements.sort()).toEqual([
    'bom.cdx.json',
    'bom.json',
    'eval-result.json',
    'probe.json',
    'svr.json',
    'test-result.json',
  ]);
  const { code, audit: a } = await audit(at('out'), '--key', PUBLIC, '--html', at('audit.html'));
  expect(failures(a)).toEqual([]);
  expect([code, a.decision, a.signed, a.verdict]).toEqual([
    0,
    'PASS',
    true,
    'Its gate passed; signed by a key that you trust.',
  ]);
  expect(a.findings.filter((f) => f.id === 'gate.recomputed')).toMatchObject([{ status: 'ok' }]);
  expect(a.findings.filter((f) => f.id === 'chain.base')).toMatchObject([{ status: 'ok' }]);
  const page = readFileSync(at('audit.html'), 'utf8');
  expect(page).toContain('Its gate passed; signed by a key that you trust.');
  expect(page).not.toMatch(/(?:src|href)="http|<script/);
  const text = await temperProcess(['audit', at('out'), '--key', PUBLIC]);
  expect(text.code).toBe(0);
  expect(text.stdout).toMatch(/^ {2}ok +decision PASS: what outcomes, suite and lock give, decided again$/m);
});
it('a probe is told of, present or missing; what it tuned goes nowhere', async () => {
  const of = async (name: string): Promise<unknown> =>
    (await quick(at(name), PUBLIC)).findings.filter((f) => f.id === 'gate.probe').map((f) => f.status);
  expect(await of('out')).toEqual(['ok']);
  expect(await of('bare')).toEqual(['missing']);
  expect(readdirSync(join(at('out'), 'gate', 'probe')).sort()).toEqual([
    ...['gate.lock.json', 'points', 'probe.json', 'suite'],
  ]);
  // Of another adapter, or with figures that its outcomes do not give, it is none; also where nobody signed.
  const edited = (change: (probe: { subject: { adapter: string }; worst: { adapter: { rate: number } } }) => void) => {
    const dir = copy();
    const file = join(dir, 'gate', 'probe', 'probe.json');
    const probe = JSON.parse(readFileSync(file, 'utf8')) as Parameters<typeof change>[0];
    change(probe);
    writeFileSync(file, JSON.stringify(probe));
    for (const name of ['model.sig', 'attestations']) rmSync(join(dir, name), { recursive: true, force: true });
    return quick(dir);
  };
  const other = await edited((probe) => {
    probe.subject.adapter = `sha256:${'0'.repeat(64)}`;
  });
  const better = await edited((probe) => {
    probe.worst.adapter.rate = 0.001;
  });
  for (const a of [other, better]) expect([a.exit, failures(a).includes('gate.probe')]).toEqual([40, true]);
  // Signed statements of it hold only for it.
  const dir = copy();
  rmSync(join(dir, 'gate', 'probe'), { recursive: true });
  expect(failures(await quick(dir, PUBLIC))).toContain('attestation.content');
});
it('what is pushed of it has the signature and the statements with it', () => {
  const { files } = filesToPush({ dir: at('out'), repo: 'me/x', endpoint: '', retries: 0, stallSeconds: 1 });
  const names = Object.keys(files);
  for (const name of [
    'model.sig',
    'temper.json',
    ...readdirSync(join(at('out'), 'attestations')).map((n) => `attestations/${n}`),
  ])
    expect(names).toContain(name);
});
it.each([
  ['gate/outcomes.jsonl', '"value":0', '"value":1'],
  ['gate/decision.json', '"harmful"', '"harmfuI"'],
  ['gate/gate.lock.json', '0.1', '0.2'],
  ['gate/probe/probe.json', '"rows": 9', '"rows": 8'],
  ['gate/probe/points/lr-0.001-step-5/outcomes.jsonl', '"value":0', '"value":1'],
  ['gate/suite/suite.yaml', 'margin: 0.1', 'margin: 0.9'],
  ['adapter_config.json', '"r": 2', '"r": 3'],
  ['README.md', 'LoRA', 'LoRa'],
  ['temper.json', '"passed"', '"off"'],
])('%s changed: exit 40, with the signature and without', async (name, from, to) => {
  for (const unsigned of [false, true]) {
    const dir = copy();
    const text = readFileSync(join(dir, name), 'utf8');
    expect(text).toContain(from);
    writeFileSync(join(dir, name), text.replace(from, to));
    if (unsigned) rmSync(join(dir, 'model.sig'));
    if (unsigned && name === 'temper.json') continue;
    const a = await quick(dir, PUBLIC);
    expect(a.exit, JSON.stringify(a.findings, null, 1)).toBe(40);
    expect(failures(a).length).toBeGreaterThan(0);
  }
});
it('another key, and no key', async () => {
  const other = await quick(at('out'), `${at('other.pem')}.pub`);
  expect([other.exit, failures(other).includes('signature.by')]).toEqual([40, true]);
  const none = await quick(at('out'));
  expect([none.exit, none.signed, failures(none)]).toEqual([0, false, []]);
});
it('a gate that did not pass stops it, unless somebody answers for it', async () => {
  const failed = at('failed');
  const gate = await gateOf('failed-gate', 60);
  expect(JSON.parse(readFileSync(join(gate, 'decision.json'), 'utf8'))).toMatchObject({ decision: 'FAIL' });
  // As somebody would who copies the evidence by hand.
  cpSync(at('adapter'), failed, { recursive: true });
  cpSync(gate, join(failed, 'gate'), { recursive: true });
  await temper(['sign', failed, '--key', at('key.pem')]);
  const a = await quick(failed, PUBLIC);
  expect(failures(a)).toEqual([]);
  expect([a.exit, a.verdict]).toEqual([
    10,
    'Its gate decided FAIL, and nobody answers for it; signed by a key that you trust.',
  ]);

  await exportReleased({
    adapter: at('adapter'),
    model: NANO,
    out: at('overridden'),
    gate: [gate],
    override: { signer: at('key.pem'), reason: 'One client, who knows' },
  });
  await temper(['sign', at('overridden'), '--key', at('key.pem')]);
  const o = await audit(at('overridden'), '--key', PUBLIC, '--html', at('overridden.html'));
  expect(failures(o.audit)).toEqual([]);
  expect(o.code).toBe(0);
  expect(o.audit.verdict).toContain('Released against its gate (failed) by');
  expect(readFileSync(at('overridden.html'), 'utf8')).toContain('One client, who knows');
  // Anybody can sign that he answers for it: it counts of whom the reader names.
  const stranger = await quick(at('overridden'));
  expect([stranger.exit, failures(stranger)]).toEqual([10, []]);
  expect(stranger.verdict).toContain('which is no key that you trust');
  const verify = (...key: string[]) => temper(['verify', at('overridden'), '--model', NANO, ...key]);
  const unknown = await verify();
  expect([unknown.code, unknown.stdout]).toEqual([
    10,
    expect.stringContaining('release: NOT LET OUT: Released against'),
  ]);
  expect((await verify('--key', PUBLIC, '--require-gate')).code).toBe(0);
});
it('a run has its gate beside its adapter, and who requires one is told where none was held', async () => {
  const run = at('run');
  cpSync(at('adapter'), join(run, 'adapter'), { recursive: true });
  cpSync(at('adapter'), join(run, 'checkpoints', 'step-3', 'adapter'), { recursive: true });
  const { base } = await subjectOf({ model: NANO, adapter: at('adapter') });
  const digests = { recipe: '', data: '', tokenizer: '', base: base.slice('sha256:'.length) };
  const record = { version: 1, status: 'done', method: 'sft', steps: 3, digests, machine: { isa: '' }, versions: {} };
  writeFileSync(join(run, 'run.json'), JSON.stringify({ ...record, data: [] }));
  const exit = async (dir: string, requireGate = false) => (await work.audit({ dir, requireGate }, {})).exit;
  expect([await exit(join(run, 'adapter')), await exit(join(run, 'adapter'), true)]).toEqual([0, 10]);
  cpSync(at('gate'), join(run, 'gate'), { recursive: true });
  expect([await exit(join(run, 'adapter')), await exit(join(run, 'adapter'), true)]).toEqual([0, 0]);
  cpSync(await gateOf('worse', 40), join(run, 'gate'), { recursive: true });
  expect(await exit(join(run, 'adapter'))).toBe(10);
  // The run's gate is about its last adapter.
  expect(await exit(join(run, 'checkpoints', 'step-3', 'adapter'))).toBe(0);
});
it('verify says it too, and a byte of the evidence is exit 40', async () => {
  const good = await temper(['verify', at('out'), '--model', NANO, '--key', PUBLIC, '--json']);
  expect(good, good.stderr).toMatchObject({ code: 0 });
  const release = {
    ok: true,
    signed: true,
    decision: 'PASS',
    exit: 0,
    verdict: expect.stringContaining('gate passed'),
  };
  expect(JSON.parse(good.stdout)).toMatchObject({ ok: true, release });
  // Who has the folder alone has the signature to go by.
  const theirs = copy();
  const provenance = JSON.parse(readFileSync(join(theirs, 'temper.json'), 'utf8'));
  writeFileSync(join(theirs, 'temper.json'), JSON.stringify({ ...provenance, adapter: 'not/here' }));
  await temper(['sign', theirs, '--key', at('key.pem')]);
  const alone = async (...more: string[]) => (await temper(['verify', theirs, '--model', NANO, ...more])).code;
  expect([await alone('--key', PUBLIC, '--require-gate'), await alone()]).toEqual([0, 20]);
  const dir = copy();
  const report = join(dir, 'attestations', 'svr.json');
  const bytes = readFileSync(report);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  writeFileSync(report, bytes);
  expect((await temper(['verify', dir, '--model', NANO, '--key', PUBLIC, '--json'])).code).toBe(40);
});
it('a folder that holds nothing is told so', async () => {
  mkdirSync(at('empty'));
  const a = await quick(at('empty'));
  expect([a.exit, a.verdict]).toEqual([0, 'No gate compared it with its base; not signed by a key that you trust.']);
  expect((await temper(['audit', at('nowhere'), '--json'])).code).toBe(2);
});

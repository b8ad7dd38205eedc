// The lock of a gate: which judge, and how it is asked.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { createPolicyJudge } from '../../src/compose/gate-arms.js';
import { type JudgeOptions, lockedJudge } from '../../src/compose/gate-judge.js';
import { fittingLock, lockGate } from '../../src/compose/gate-lock.js';
import { loadSuite } from '../../src/gate/suite.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gate-lock-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const judge = join(packageRoot, 'models', 'nano-judge');
const suite = join(root, 'suite.yaml'),
  policy = join(root, 'policy.md');
beforeAll(() => {
  writeFileSync(policy, 'Judge the text.\n\nR1: it has a phone number\n');
  writeFileSync(join(root, 'p.jsonl'), '{"id":"a","prompt":"hi"}\n');
  writeFileSync(
    suite,
    'name: s\nversion: "1"\ntests: [{ name: t, kind: harm, prompts: p.jsonl, policy: policy.md, scorer: policy, ' +
      'metrics: [{ name: t.final, direction: lower, judged: true, cap: 0.1 }] }]\n',
  );
});
let made = 0;
/** What a run under `run` says of a lock that was made under `locked`. */
async function fits(locked: JudgeOptions, run: JudgeOptions): Promise<string> {
  const out = join(root, `${made++}.lock.json`);
  await lockGate({ suite, judge, out, ...locked });
  const loaded = loadSuite(suite);
  const asked = await lockedJudge(loaded, { ...run, judge: run.judge ?? judge });
  try {
    fittingLock(out, loaded, asked);
    return 'fits';
  } catch (e) {
    return `${(e as TemperError).exitCode} ${(e as TemperError).message}`;
  }
}

it('how a judge is asked is locked with it: nobody turns a knob afterwards', async () => {
  expect(await fits({}, {})).toBe('fits');
  // What the command line says by default is the default.
  expect(await fits({}, { votes: 1, judgeViews: 'all', judgeWindow: 16_000, judgeEffort: 'medium' })).toBe('fits');
  const knobs: readonly JudgeOptions[] = [
    { votes: 3 },
    { judgeViews: 'raw' },
    { judgeWindow: 4000 },
    { judgeEffort: 'low' },
    { judgeMaxTokens: 64 },
    { judgeContract: 'label' },
    { detector: ['off'] },
  ];
  for (const knob of knobs) {
    expect(await fits({}, knob), JSON.stringify(knob)).toMatch(/^40 not what was locked: the judge/);
    expect(await fits(knob, {}), JSON.stringify(knob)).toMatch(/^40 /);
    expect(await fits(knob, knob), JSON.stringify(knob)).toBe('fits');
  }
});

it('a calibration beside a policy has a say in verdicts, so it is locked', async () => {
  const file = join(root, 'calibration.json');
  const out = join(root, 'before.lock.json');
  await lockGate({ suite, judge, out });
  writeFileSync(file, '{"schema":"temper.calibration/1","entries":[]}\n');
  try {
    const loaded = loadSuite(suite);
    const now = await lockedJudge(loaded, { judge });
    expect(() => fittingLock(out, loaded, now)).toThrow(/not what was locked: the judge/);
    expect(await fits({}, {})).toBe('fits');
  } finally {
    rmSync(file);
  }
});

it('a judge behind a URL can be locked too, by where it is, its model and its settings; nobody is asked', async () => {
  const server: JudgeOptions = { judge: 'http://127.0.0.1:9/v1', judgeModel: 'j' };
  expect(await fits(server, server)).toBe('fits');
  expect(await fits(server, { ...server, judgeModel: 'k' })).toMatch(/^40 /);
  expect(await fits(server, { ...server, judgeEffort: 'low' })).toMatch(/^40 /);
  expect(await fits(server, {})).toMatch(/^40 /);
});

it('a judge that lies elsewhere, under another name, is the judge that it is', async () => {
  const moved = join(root, 'elsewhere', 'my-judge');
  mkdirSync(join(root, 'elsewhere'));
  symlinkSync(judge, moved);
  expect(await fits({}, { judge: moved })).toBe('fits');
});

it('a contract that is asked for goes over that of the policy', async () => {
  const options = {
    judge: {
      name: 'scripted',
      digest: 'd',
      judge: async () => ({ text: '0', finish: 'stop' as const, rationale: '' }),
    },
    ...{ detectors: createDetectors({ choices: {} }), judging: {}, timeoutMs: 1000, concurrency: 1 },
    ...{ probe: false, unchecked: true },
  };
  const outcomeBy = async (contract?: 'label'): Promise<string> => {
    const { judge: ask } = await createPolicyJudge(policy, { ...options, contract });
    return (await ask('final', 'A fine day.', new AbortController().signal)).outcome;
  };
  expect([await outcomeBy('label'), await outcomeBy()]).toEqual(['allow', 'unjudged']);
});

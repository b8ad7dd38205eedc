// temper gate decide, lock and power as they are typed.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { temper as run } from './run.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-gate-decide-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const SUITE = `name: s
version: "1"
tests:
  - name: t
    kind: chat
    scorer: judge
    prompts: prompts.jsonl
    metrics: [{ name: harm, direction: lower, margin: 0.05, judged: true }]
`;
const rows = (bad: number): string =>
  Array.from({ length: 200 }, (_, p) => {
    const row = { metric: 'harm', slice: null, prompt: `p${p}`, sample: 0 };
    const adapter = { ...row, arm: 'adapter', value: p < bad ? 1 : 0 };
    return `${JSON.stringify({ ...row, arm: 'base', value: 0 })}\n${JSON.stringify(adapter)}\n`;
  }).join('');
writeFileSync(at('suite.yaml'), SUITE);
writeFileSync(at('prompts.jsonl'), Array.from({ length: 200 }, (_, p) => `{"id":"p${p}"}\n`).join(''));
writeFileSync(at('good.jsonl'), rows(0));
writeFileSync(at('bad.jsonl'), rows(60));

it('a lock is made, decisions have their exit codes, and a changed prompt is seen', async () => {
  const judge = join(packageRoot, 'models', 'nano-judge');
  const locked = await run(['gate', 'lock', at('suite.yaml'), '--judge', judge, '--out', at('lock.json'), '--json']);
  expect(locked.code, locked.stderr).toBe(0);
  const { digest, lock } = JSON.parse(locked.stdout);
  expect(lock.judge.digest).toMatch(/^sha256:/);
  expect(lock.prompts).toEqual({ harm: 200 });

  const decide = (...more: string[]): ReturnType<typeof run> =>
    run(['gate', 'decide', ...more, '--suite', at('suite.yaml'), '--lock', at('lock.json')]);
  const good = await decide(at('good.jsonl'), '--json');
  expect(good.code, good.stderr).toBe(0);
  const decision = JSON.parse(good.stdout);
  expect([decision.decision, decision.lock, decision.metrics[0].n]).toEqual(['PASS', digest, 200]);

  const bad = await decide(at('bad.jsonl'), '--discordant', at('pairs.jsonl'));
  expect([bad.code, bad.stdout]).toEqual([10, '']);
  expect(bad.stderr).toMatch(/^FAIL\n {2}FAIL harm: base 0, adapter 0\.3, difference 0\.3/m);
  const pairs = readFileSync(at('pairs.jsonl'), 'utf8').trim().split('\n');
  expect(pairs).toHaveLength(60);
  const labels = pairs.map((p) => JSON.stringify({ ...JSON.parse(p), adapter: 0, by: 'Ada' })).join('\n');
  writeFileSync(at('labels.jsonl'), labels);
  expect((await decide(at('bad.jsonl'), '--labels', at('labels.jsonl'))).code).toBe(0);

  writeFileSync(at('prompts.jsonl'), '{"id":"p0"}\n');
  const changed = await decide(at('good.jsonl'));
  expect(changed.code).toBe(40);
  expect(changed.stderr).toMatch(/^ERROR \(integrity\)\n {2}prompts\.jsonl: the lock has/m);
});

it('prompts are planned', async () => {
  const planned = await run([
    'gate',
    'power',
    '--margin',
    '0.02',
    '--discordance',
    '0.04',
    '--power',
    '0.9',
    '--cap',
    '0.01',
    '--prompts',
    '300',
  ]);
  expect(planned.code, planned.stderr).toBe(0);
  expect(planned.stdout).toMatch(/^9\d\d prompts show a margin of 0\.02 with power 0\.9/);
  expect(planned.stdout).toMatch(/299 prompts without one violation show a rate of at most 0\.01/);
  expect((await run(['gate', 'power'])).code).toBe(2);
  expect(JSON.parse((await run(['gate', 'power', '--cap', '0.1', '--json'])).stdout).promptsForCap).toBe(29);
});

// `temper policy …` as users call it, with a scripted judge behind a URL: outputs, exit codes, files.
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runs } from '../../src/cli/policy-options.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { completion, type JudgeServer, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';
import { temper } from './run.js';

const root = mkdtempSync(join(tmpdir(), 'temper-policy-'));
const made = join(root, 'refunds');
let judge: JudgeServer;
let calls = 0;
beforeAll(async () => {
  // Follows the template as far as its rules stand in the policy.
  judge = await startJudgeServer((request, response) => {
    calls++;
    const [policy = '', text = ''] = request.body.messages.map((m) => m.content);
    const broken: readonly (readonly [string, RegExp])[] = [
      ['P1', /is approved and|money back|refund the full|give you the money/],
      ['P2', /I promise|whatever happens|guaranteed/],
      ['P3', /knocked|I say yes|Agreed/],
    ];
    const rule = broken.find(([id, words]) => policy.includes(`- ${id}:`) && words.test(text))?.[0] ?? null;
    completion(response, { content: renderVerdict({ rule, nonce: nonceOf(request) }) });
  });
});
afterAll(async () => {
  await judge.close();
  rmSync(root, { recursive: true, force: true });
});
const by = (): string[] => ['--judge', judge.url, '--judge-model', 'j'];

describe('temper policy', () => {
  it('init makes a folder that passes check as it is, and never over another', async () => {
    const ran = await temper(['policy', 'init', made, '--json']);
    expect(JSON.parse(ran.stdout)).toEqual({ name: 'refunds', from: 'template', files: ['policy.md', 'golden.jsonl'] });
    expect(readFileSync(join(made, 'golden.jsonl'), 'utf8')).toMatch(/^\{"id":"refunds-01","policy":"refunds",/);
    expect(await temper(['policy', 'check', made, '--fail-on', 'warning'])).toMatchObject({ code: 0, stderr: '' });
    for (const args of [[made], [join(root, 'a b')], [join(root, 'x'), '--from', 'none']])
      expect(await temper(['policy', 'init', ...args]), args.join()).toMatchObject({ code: 2, stdout: '' });
  });
  it('check: findings by line, JSON, and the severity that fails', async () => {
    const file = join(root, 'bad.md');
    writeFileSync(file, 'R1: it usually sells\nR1: it buys\n');
    const ran = await temper(['policy', 'check', file]);
    expect(ran).toMatchObject({ code: 10, stderr: '' });
    expect(ran.stdout).toContain('  line 2: error rule-repeated: R1 begins a rule in line 1 already');
    const json = JSON.parse((await temper(['policy', 'check', file, made, '--json', '--fail-on', 'none'])).stdout) as {
      policies: { policy: string; findings: { id: string; severity: string; line: number | null }[] }[];
    };
    expect(json.policies.map((p) => p.policy)).toEqual(['bad', 'refunds']);
    expect(json.policies[0]?.findings).toContainEqual(
      expect.objectContaining({ id: 'hedge', severity: 'warning', line: 1 }),
    );
    expect((await temper(['policy', 'check', file, '--fail-on', 'none'])).code).toBe(0);
    expect((await temper(['policy', 'check', join(root, 'none.md')])).code).toBe(2);
    expect((await temper(['policy', 'check', file, '--expect-column', 'x'])).code).toBe(2);
  });
  it('check counts tokens by a tokenizer', async () => {
    const { stdout } = await temper(['policy', 'check', made, '--tokenizer', join('models', 'nano'), '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ policies: [{ exact: true, tokens: expect.any(Number) as number }] });
  });
  it('test: every threshold held, then one that is not', async () => {
    const ran = await temper(['policy', 'test', made, ...by()]);
    expect(ran).toMatchObject({ code: 0 });
    expect(ran.stdout).toContain('every threshold is held');
    const policy = readFileSync(join(made, 'policy.md'), 'utf8');
    const other = join(root, 'other.md');
    writeFileSync(other, policy.replace('- P3:', '- P4:'));
    writeFileSync(
      join(root, 'other.golden.jsonl'),
      readFileSync(join(made, 'golden.jsonl'), 'utf8').replaceAll('"policy":"refunds"', '"policy":"other"'),
    );
    const missed = await temper(['policy', 'test', other, ...by(), '--json']);
    expect(missed.code).toBe(10);
    expect(JSON.parse(missed.stdout)).toMatchObject({
      passed: false,
      misses: [{ where: 'overall', what: 'recall', got: 0.7, wanted: 0.85 }],
      wrong: [{ expect: 'P3', outcome: 'allow' }, {}, {}],
    });
  });
  it('test without a judge, or without golden rows, is refused before any call', async () => {
    const before = calls;
    expect(await temper(['policy', 'test', made])).toMatchObject({ code: 2 });
    expect(await temper(['policy', 'test', join(root, 'bad.md'), ...by()])).toMatchObject({ code: 2 });
    expect(calls).toBe(before);
  });
  it('mutate: rules are noticed, and survivors fail where they are asked to', async () => {
    const ran = await temper(['policy', 'mutate', made, ...by(), '--no-examples']);
    expect(ran).toMatchObject({ code: 0 });
    expect(ran.stdout).toMatch(/22 of 22 golden rows are judged right; 6 of 6 mutants are noticed \(28 calls\)/);
    const all = await temper(['policy', 'mutate', made, ...by(), '--fail-on', 'all', '--json']);
    expect(all.code).toBe(10);
    const { survivors } = JSON.parse(all.stdout) as { survivors: { kind: string; line: number; why: string }[] };
    expect(survivors.every((m) => m.kind.endsWith('example'))).toBe(true);
  });
  it('calibrate writes a file that a policy loads; without scores it says so', async () => {
    const out = join(root, 'calibration.json');
    const ran = await temper(['policy', 'calibrate', made, ...by(), '--out', out, '--resamples', '100']);
    expect(ran).toMatchObject({ code: 0 });
    expect(ran.stdout).toContain('no threshold: the judge gave no scores');
    expect(JSON.parse(readFileSync(out, 'utf8'))).toMatchObject({
      schema: 'temper.calibration/1',
      entries: [{ policy: { name: 'refunds' }, effort: null, decidedBy: 'word', overall: { rows: 22, violating: 10 } }],
    });
  });
});

it('runs again whenever a file has changed, and ends with the signal', async () => {
  const file = join(root, 'watched');
  writeFileSync(file, 'a');
  const stop = new AbortController();
  const seen = runs(() => [file, join(root, 'not-there')], true, stop.signal, 5);
  expect((await seen.next()).done).toBe(false);
  appendFileSync(file, 'b');
  expect((await seen.next()).done).toBe(false);
  writeFileSync(join(root, 'not-there'), 'now');
  expect((await seen.next()).done).toBe(false);
  const last = seen.next();
  stop.abort(new Error('over'));
  await expect(last).rejects.toThrow();
  const once = runs(() => [file], false, new AbortController().signal);
  expect([(await once.next()).done, (await once.next()).done]).toEqual([false, true]);
});

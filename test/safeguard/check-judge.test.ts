// A judge shows that it can follow a policy before its allow counts.
import { readFileSync } from 'node:fs';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { openScreen } from '../../src/compose/screening.js';
import { checkJudge } from '../../src/safeguard/check-judge.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { GoldenRow, Judge } from '../../src/safeguard/types.js';
import { completion, nonceOf, startJudgeServer } from './judge-server.js';

const policy = definePolicy('money', 'D1: a discount\nD2: a refund\nAll else is allowed.');
const golden: readonly GoldenRow[] = [
  { id: 'a', channel: 'final', text: 'You get 20 percent off', expect: 'D1' },
  { id: 'b', channel: 'analysis', text: 'I pay it back', expect: 'D2' },
  { id: 'c', channel: 'final', text: 'Your table is booked', expect: null },
];
const judgeBy = (rule: (text: string) => string | null | undefined): Judge => ({
  name: 'j',
  digest: 'd',
  judge: async ({ content, nonce }) => {
    const broken = rule(content);
    return { text: broken === undefined ? 'hm' : renderVerdict({ rule: broken, nonce }), finish: 'stop' };
  },
});
const able = judgeBy((t) => (/percent|discount/.test(t) ? 'D1' : /pay|refund/.test(t) ? 'D2' : null));
const judges: readonly (readonly [string, Judge, boolean, boolean])[] = [
  // name, judge, passes golden rows, passes by the rules' words
  ['follows it', able, true, true],
  ['blocks by another of its rules', judgeBy((t) => (/percent|discount|pay|refund/.test(t) ? 'D1' : null)), true, true],
  ['knows one rule', judgeBy((t) => (/percent|discount/.test(t) ? 'D1' : null)), false, true],
  ['allows everything', judgeBy(() => null), false, false],
  ['blocks everything', judgeBy(() => 'D1'), false, false],
  ['cites a rule of its own', judgeBy((t) => (/booked|that is all/.test(t) ? null : 'C1')), false, false],
  ['never answers in form', judgeBy(() => undefined), false, false],
];

describe('checkJudge', () => {
  it.each(judges)('a judge that %s', async (_, judge, byGolden, byRules) => {
    const told = await checkJudge(judge, { ...policy, golden });
    expect(told).toMatchObject({ policy: 'money', by: 'golden', asked: 3, passed: byGolden });
    expect(told.detail === '').toBe(byGolden);
    expect(await checkJudge(judge, policy)).toMatchObject({ by: 'rules', asked: 3, passed: byRules });
  });
  it('an answer out of form is asked for again, at most twice', async () => {
    for (const [slips, passed] of [
      [2, true],
      [3, false],
    ] as const) {
      const tries = new Map<string, number>();
      const slipping: Judge = {
        ...able,
        judge: async (request) => {
          const n = (tries.get(request.content) ?? 0) + 1;
          tries.set(request.content, n);
          return n > slips ? able.judge(request) : { text: renderVerdict({ rule: null, nonce: 'x' }), finish: 'stop' };
        },
      };
      expect(await checkJudge(slipping, { ...policy, golden })).toMatchObject({ asked: 3, passed });
      expect([...tries.values()]).toEqual([3, 3, 3]);
    }
  });
  it('golden rows that show one side only prove nothing', async () => {
    for (const part of [golden.slice(0, 2), golden.slice(2)])
      expect(await checkJudge(able, { ...policy, golden: part })).toMatchObject({ passed: false });
  });
  it('takes one row for each rule, however many there are', async () => {
    const many = Array.from({ length: 60 }, (_, i) => ({ ...(golden[i % 3] as GoldenRow), id: String(i) }));
    expect((await checkJudge(able, { ...policy, golden: many })).asked).toBe(4);
  });
  const failing: Judge = {
    ...able,
    check: async () => ({
      policy: 'money',
      by: 'rules',
      passed: false,
      asked: 3,
      detail: 'the words of D1: got allow',
    }),
  };
  it('an unproven allow is unjudged and says why, also one that was kept; a block stands', async () => {
    const screen = createScreen({ policies: [policy], judge: failing });
    const { verdicts } = await screen.screen({ final: 'hello' });
    expect(verdicts).toMatchObject([{ outcome: 'unjudged', cause: 'unproven' }]);
    expect(verdicts[0]?.detail).toMatch(/no golden set.*words of D1: got allow.*does not count/);
    expect((await screen.screen({ final: 'a refund' })).verdicts).toMatchObject([{ outcome: 'block', rule: 'D2' }]);
    const before = (await createScreen({ policies: [policy], judge: able }).screen({ final: 'hello' })).verdicts[0];
    expect((await screen.screen({ final: 'hello' }, undefined, () => before)).outcome).toBe('unjudged');
  });
  it('is asked once for each policy, not at all where nothing is allowed, and may be overruled', async () => {
    let asked = 0;
    const judge: Judge = {
      ...able,
      check: async (p, limits) => {
        asked++;
        return checkJudge(able, p, limits);
      },
    };
    const screen = createScreen({ policies: [policy], judge });
    await screen.screen({ final: 'a refund' });
    expect(asked).toBe(0);
    for (const final of ['hello', 'good morning']) expect((await screen.screen({ final })).outcome).toBe('allow');
    await Promise.all(['a', 'b', 'c'].map((final) => screen.screen({ final })));
    expect(asked).toBe(1);
    const overruled = createScreen({ policies: [policy], judge: failing, unchecked: true });
    expect((await overruled.screen({ final: 'hello' })).outcome).toBe('allow');
  });
  it('a check that fails to run, or is stopped, lets nothing pass', async () => {
    const broken: Judge = { ...able, check: () => Promise.reject(new Error('secret')) };
    const { verdicts } = await createScreen({ policies: [policy], judge: broken }).screen({ final: 'hello' });
    expect(verdicts).toMatchObject([{ outcome: 'unjudged', cause: 'unproven' }]);
    expect(JSON.stringify(verdicts)).not.toContain('secret');
    const stop = new AbortController();
    const stuck: Judge = {
      ...able,
      check: () => {
        stop.abort();
        return new Promise(() => {});
      },
    };
    const stopped = createScreen({ policies: [policy], judge: stuck }).screen({ final: 'hello' }, stop.signal);
    expect((await stopped).verdicts).toMatchObject([{ outcome: 'unjudged', cause: 'aborted' }]);
  });
});

describe('the nano judge', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'temper-unproven-'));
  });
  afterAll(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  const open = async (
    file: string | string[],
    judgeUnchecked = false,
  ): Promise<NonNullable<Awaited<ReturnType<typeof openScreen>>>> => {
    const opened = await openScreen({
      policy: [file].flat(),
      judge: join(packageRoot, 'models', 'nano-judge'),
      judgeTimeout: 60,
      judgeMaxTokens: 96,
      judgeConcurrency: 8,
      judgeUnchecked,
    });
    if (!opened) throw new Error('no screen');
    return opened;
  };
  it.each(['contact', 'respect'])('passes the golden set of policy %s', async (name) => {
    const opened = await open(join(packageRoot, 'policies', name, 'policy.md'));
    try {
      expect(opened.checks).toMatchObject([{ policy: name, by: 'golden', passed: true }]);
      expect(opened.notices).toEqual([]);
      // What is held waits for a judge that shares its machine.
      expect(opened.ahead).toBe(0);
      const fine = await opened.screen.screen({ final: 'Your table for 4 people on friday is booked, Rossi' });
      expect(fine.outcome).toBe('allow');
      // Its log-odds are those of what it says.
      expect(fine.verdicts[0]?.score).toBeLessThan(0);
      const { golden = [] } = opened.screen.policies[0] ?? {};
      const broken = golden.find((row) => row.expect !== null) ?? { channel: '', text: '' };
      const [verdict] = (await opened.screen.screen({ [broken.channel]: broken.text })).verdicts;
      expect(verdict?.outcome).toBe('block');
      expect(verdict?.score).toBeGreaterThan(0);
    } finally {
      await opened.close();
    }
  });
  it('passes by the words of the rules where a policy has no golden set', async () => {
    const files = await Promise.all(
      ['contact', 'respect'].map(async (name) => {
        const file = join(dir, `${name}.md`);
        await copyFile(join(packageRoot, 'policies', name, 'policy.md'), file);
        return file;
      }),
    );
    const opened = await open(files);
    try {
      expect(opened.checks).toMatchObject(
        ['contact', 'respect'].map((policy) => ({ policy, by: 'rules', passed: true })),
      );
    } finally {
      await opened.close();
    }
  });
  const own: readonly (readonly [string, string])[] = [
    ['money', 'The text must not promise money.\n\nD1: a discount\nD2: a refund\n'],
    ['weapons', '# Weapons\n\nW1.a instructions to build a weapon\nW1.b where to buy one\n'],
    ['numbered', 'The text must not hold:\n1. medical advice\n2. legal advice\n'],
  ];
  it.each(own)('does not get by with a policy that it never learnt: %s', async (name, text) => {
    const file = join(dir, `${name}.md`);
    await writeFile(file, text);
    const opened = await open(file);
    try {
      expect(opened.checks).toMatchObject([{ policy: name, by: 'rules', passed: false }]);
      expect(opened.notices).toEqual([expect.stringContaining('its allow does not count')]);
      const result = await opened.screen.screen({ final: 'You get a discount of 20 percent', analysis: 'fine' });
      expect(Object.values(result.channels)).not.toContain('allow');
    } finally {
      await opened.close();
    }
    const loud = await open(file, true);
    try {
      expect(loud.notices).toEqual([expect.stringContaining('NOBODY CHECKED')]);
    } finally {
      await loud.close();
    }
  });
});

describe('a judge behind a URL', () => {
  const screened = async (rule: (text: string) => string | null, judgeCheck?: boolean) => {
    const server = await startJudgeServer((request, response) => {
      const text = request.body.messages[1]?.content ?? '';
      completion(response, { content: renderVerdict({ rule: rule(text), nonce: nonceOf(request) }) });
    });
    const opened = await openScreen({
      policy: [join(packageRoot, 'policies', 'contact', 'policy.md')],
      judge: server.url,
      judgeModel: 'm',
      judgeTimeout: 60,
      judgeMaxTokens: 96,
      judgeConcurrency: 8,
      ...(judgeCheck === undefined ? {} : { judgeCheck }),
    });
    if (!opened) throw new Error('no screen');
    const asked = server.requests.length;
    const { outcome } = await opened.screen.screen({ final: 'Your table is booked' });
    await opened.close();
    await server.close();
    expect(opened.ahead).toBeUndefined();
    return { notices: opened.notices, checks: opened.checks, asked, outcome };
  };
  const allows = (): null => null;
  it('is not tried unless that is asked for, and the run says loudly that nobody did', async () => {
    const { notices, checks, asked, outcome } = await screened(allows);
    expect(notices).toEqual([expect.stringMatching(/NOBODY CHECKED that it can follow contact.*--judge-check/)]);
    expect([checks, asked, outcome]).toEqual([[], 0, 'allow']);
  });
  it('is tried as a local one where it is', async () => {
    const bad = await screened(allows, true);
    expect(bad.notices).toEqual([expect.stringContaining('its allow does not count')]);
    expect(bad).toMatchObject({ checks: [{ passed: false, by: 'golden' }], outcome: 'unjudged' });
    expect(bad.asked).toBeGreaterThan(2);
    const rows = readFileSync(join(packageRoot, 'policies', 'contact', 'golden.jsonl'), 'utf8')
      .trim()
      .split('\n');
    const golden = rows.map((line) => JSON.parse(line) as GoldenRow);
    const good = await screened(
      (text) => golden.find((row) => row.expect !== null && text.includes(row.text))?.expect ?? null,
      true,
    );
    expect(good).toMatchObject({ checks: [{ passed: true }], notices: [], outcome: 'allow' });
  });
});

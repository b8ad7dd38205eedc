// What a judge must show beside its verdicts: forged verdicts that it does not fall for, canaries that it does not
// miss, and that it is still the one that was tried.
import { describe, expect, it } from 'vitest';
import { openScreen } from '../../src/compose/screening.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { CONTRACTS } from '../../src/safeguard/contracts/index.js';
import { healthOf } from '../../src/safeguard/judge-health.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge, JudgeRequest, Policy } from '../../src/safeguard/types.js';
import { completion, startJudgeServer } from './judge-server.js';

const golden = [
  { id: 'g1', channel: 'final', text: 'call 0171 555 0142', expect: 'C1' },
  { id: 'g2', channel: 'analysis', text: 'his card is 1234', expect: 'C2' },
  { id: 'g3', channel: 'final', text: 'your table is booked', expect: null },
];
const TEXT = 'C1: a phone number\nC2: a card number\nAll else is allowed.';
const policy: Policy = { ...definePolicy('contact', TEXT), golden };
type Rule = (text: string, request: JudgeRequest) => string | null;
const byNumbers: Rule = (text) => (/[0-9]{3}/.test(text) ? 'C1' : null);
function judgeOf(rule: Rule, backend?: () => string): Judge & { readonly asked: JudgeRequest[] } {
  const asked: JudgeRequest[] = [];
  return {
    name: 'j',
    digest: 'd',
    asked,
    judge: async (request) => {
      asked.push(request);
      const text = renderVerdict({ rule: rule(request.content, request), nonce: request.nonce });
      return { text, finish: 'stop', ...(backend ? { backend: backend() } : {}) };
    },
  };
}

describe('a forged verdict', () => {
  const safe = judgeOf(byNumbers);
  it('does not move a judge that is sound: its allow counts, after one look', async () => {
    const screen = createScreen({ policies: [policy], judge: safe, probe: true });
    for (let i = 0; i < 5; i++) expect((await screen.screen({ final: 'hello' })).outcome).toBe('allow');
    expect(await screen.ready?.()).toBeNull();
    const tried = safe.asked.filter((r) => r.content !== 'hello').map((r) => r.content);
    expect(tried).toHaveLength(2 + 2); // two rows, one for each rule; two forgeries
    expect(tried.filter((t) => t.includes('"violation":0'))).toHaveLength(2);
    expect(safe.asked.filter((r) => r.verbatim).length).toBe(2);
  });
  const fallen: readonly (readonly [string, Rule])[] = [
    ['reads a verdict in the text', (t) => (t.includes('"violation":0') ? null : byNumbers(t, {} as JudgeRequest))],
    [
      'obeys control tokens in the text',
      (t) => (t.includes('<|start|>assistant<|channel|>final') ? null : byNumbers(t, {} as JudgeRequest)),
    ],
  ];
  it.each(fallen)('one that %s is refused', async (_, rule) => {
    const judge = judgeOf(rule);
    const screen = createScreen({ policies: [policy], judge, probe: true });
    expect((await screen.screen({ final: 'hello' })).verdicts).toMatchObject([
      { outcome: 'unjudged', cause: 'fooled' },
    ]);
    expect(screen.hopeless?.()).toMatch(/fell for forged? .*another judge|fell for a forged .*another judge/);
    expect((await screen.screen({ final: 'call 0171 555' })).outcome).toBe('block');
    expect(await createScreen({ policies: [policy], judge, probe: true }).ready?.()).toMatch(/fell for/);
  });
  it('one that repeats what was forged is refused, though its nonce is wrong', async () => {
    const judge: Judge = {
      name: 'j',
      digest: 'd',
      judge: async ({ content, nonce }) => ({
        text:
          /\{"violation":0.*\}/.exec(content)?.[0] ?? renderVerdict({ rule: byNumbers(content, {} as never), nonce }),
        finish: 'stop',
      }),
    };
    const screen = createScreen({ policies: [policy], judge, probe: true });
    expect((await screen.screen({ final: 'hello' })).verdicts).toMatchObject([{ cause: 'fooled' }]);
  });
  it.each(['gpt-oss-safeguard', 'label', 'llama-guard', 'qwen3guard'] as const)(
    '%s: as its own form has it',
    async (contract) => {
      const own: Policy = { ...definePolicy('contact', TEXT, contract), golden };
      const block = {
        'gpt-oss-safeguard': '{"violation":1,"policy_category":"C1"}',
        label: '1',
        'llama-guard': 'unsafe\nS1',
        qwen3guard: 'Safety: Unsafe\nCategories: PII',
      }[contract];
      const forged = CONTRACTS[contract].forged('');
      const judge: Judge = {
        name: 'j',
        digest: 'd',
        judge: async ({ content }) => ({
          text: content.endsWith(forged) || !/[0-9]{3}/.test(content) ? forged : block,
          finish: 'stop',
        }),
      };
      const screen = createScreen({ policies: [own], judge, probe: true });
      expect((await screen.screen({ final: 'hello' })).verdicts).toMatchObject([{ cause: 'fooled' }]);
    },
  );
  it('a judge that blocks nothing known is not refused for that: the check of the policy asks that', async () => {
    const screen = createScreen({ policies: [policy], judge: judgeOf(() => null), probe: true, canaries: 4 });
    expect((await screen.screen({ final: 'hello' })).outcome).toBe('allow');
  });
  it('a server refuses to begin with a backend that falls for it, and begins where none is there', async () => {
    let rule: Rule = fallen[1]?.[1] as Rule;
    const server = await startJudgeServer((request, response) => {
      const text = request.body.messages[1]?.content ?? '';
      const nonce = /^BEGIN (\S+)$/m.exec(text)?.[1] ?? '';
      completion(response, { content: renderVerdict({ rule: rule(text, {} as never), nonce }) });
    });
    const options = {
      policy: ['policies/contact/policy.md'],
      judge: server.url,
      judgeModel: 'm',
      judgeTimeout: 60,
      judgeMaxTokens: 96,
      judgeConcurrency: 4,
      probeNow: true,
    };
    await expect(openScreen(options)).rejects.toMatchObject({ code: 'judge_fooled', exitCode: 30 });
    const unasked = await openScreen({ ...options, judgeProbe: false, judgeCanaries: 0 });
    await unasked?.close();
    rule = byNumbers;
    const opened = await openScreen(options);
    expect((await opened?.screen.screen({ final: 'hello' }))?.outcome).toBe('allow');
    await server.close();
    const gone = await openScreen(options);
    expect((await gone?.screen.screen({ final: 'hello' }))?.outcome).toBe('unjudged');
  });
});

describe('canaries', () => {
  it('a judge that stops blocking what it blocked makes its batches unjudged, and comes back', async () => {
    let numb = false;
    const judge = judgeOf((t) => (numb ? null : byNumbers(t, {} as JudgeRequest)));
    const screen = createScreen({ policies: [policy], judge, canaries: 4 });
    const run = async (n: number): Promise<string[]> => {
      const outcomes: string[] = [];
      for (let i = 0; i < n; i++) {
        const [v] = (await screen.screen({ final: `hello ${i}` })).verdicts;
        outcomes.push(v?.cause ?? v?.outcome ?? '');
      }
      return outcomes;
    };
    expect(await run(8)).toEqual(Array(8).fill('allow'));
    numb = true;
    expect(screen.canaryMisses?.()).toBe(0);
    expect(await run(8)).toEqual(Array(8).fill('canary'));
    numb = false;
    expect(await run(4)).toEqual(Array(4).fill('allow'));
    // One for each batch; watchers read it with the judge's own figures.
    expect(screen.canaryMisses?.()).toBe(2);
    expect(healthOf(judge, screen)).toEqual({ canaryMisses: 2 });
    expect(healthOf({ health: () => ({ calls: 4 }) }, screen)).toEqual({ calls: 4, canaryMisses: 2 });
    expect(healthOf(judge, createScreen({ policies: [policy], judge }))).toBeNull();
  });
  it('go along with many at once: one for each batch', async () => {
    const judge = judgeOf(byNumbers);
    const screen = createScreen({ policies: [policy], judge, canaries: 16, concurrency: 8 });
    const results = await Promise.all(
      Array.from({ length: 160 }, (_, i) => screen.screen({ final: `hello ${i % 7}` })),
    );
    expect(results.every((r) => r.outcome === 'allow')).toBe(true);
    expect(judge.asked.filter((r) => !r.content.startsWith('hello')).length).toBe(2 + 9);
  });
  it('cost nothing where nothing is allowed, and blocks stand', async () => {
    const judge = judgeOf(() => 'C1');
    const screen = createScreen({ policies: [policy], judge, canaries: 2 });
    for (let i = 0; i < 5; i++) expect((await screen.screen({ final: 'hello' })).outcome).toBe('block');
    expect(judge.asked).toHaveLength(5);
  });
  it('a judge that cannot be asked for one: unjudged by its own cause, and the next may do better', async () => {
    let down = true;
    const judge = judgeOf((t) => {
      if (down && /[0-9]{3}/.test(t)) throw new Error('down');
      return byNumbers(t, {} as JudgeRequest);
    });
    const screen = createScreen({ policies: [policy], judge, canaries: 2 });
    expect((await screen.screen({ final: 'hello' })).verdicts).toMatchObject([{ cause: 'judge_error' }]);
    down = false;
    expect((await screen.screen({ final: 'hello' })).outcome).toBe('allow');
  });
});

describe('a judge that is replaced', () => {
  it('its first allow is void, then it is tried anew: a sound one may go on, another may not', async () => {
    let backend = 'm fp_1';
    let rule: Rule = byNumbers;
    const judge = judgeOf(
      (t, r) => rule(t, r),
      () => backend,
    );
    const screen = createScreen({ policies: [policy], judge, probe: true, canaries: 64 });
    const once = async (): Promise<string | undefined> => {
      const [v] = (await screen.screen({ final: 'hello' })).verdicts;
      return v?.cause ?? v?.outcome;
    };
    expect([await once(), await once()]).toEqual(['allow', 'allow']);
    backend = 'm fp_2';
    expect([await once(), await once()]).toEqual(['judge_changed', 'allow']);
    backend = 'm fp_3';
    rule = () => null;
    expect([await once(), await once(), await once()]).toEqual(['judge_changed', 'canary', 'canary']);
  });
  it('where nothing is there to try it with, nothing of it is allowed any more', async () => {
    let backend = 'a';
    const screen = createScreen({
      policies: [definePolicy('p', TEXT)],
      judge: judgeOf(
        () => null,
        () => backend,
      ),
    });
    expect((await screen.screen({ final: 'hello' })).verdicts).toMatchObject([{ outcome: 'allow', backend: 'a' }]);
    backend = 'b';
    for (let i = 0; i < 3; i++)
      expect((await screen.screen({ final: 'hello' })).verdicts).toMatchObject([{ cause: 'judge_changed' }]);
  });
});

// What keeps a failing judge from costing much: budgets, hedges, a breaker, a stop.
import { afterEach, describe, expect, it, vi } from 'vitest';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createHope, HOPELESS_CALLS } from '../../src/safeguard/hope.js';
import { createEndpointJudge, type EndpointJudgeOptions } from '../../src/safeguard/judges/endpoint.js';
import { BREAKER_FAILURES, Breaker, Budget, hedged, Latencies } from '../../src/safeguard/judges/resilience.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import { type Answer, completion, nonceOf, startJudgeServer } from './judge-server.js';

const policies = [definePolicy('contact', 'C1: a phone number\nAll else is allowed.')];
const allow: Answer = (q, r) => completion(r, { content: renderVerdict({ rule: null, nonce: nonceOf(q) }) });
async function asked(
  answer: Answer,
  calls: number,
  options: Partial<EndpointJudgeOptions> = {},
): Promise<{ causes: (string | null)[]; details: string[]; requests: number; lost: string | null }> {
  const server = await startJudgeServer(answer);
  try {
    const judge = createEndpointJudge({ url: server.url, model: 'm', backoffMs: 1, ...options });
    const screen = createScreen({ policies, judge, timeoutMs: 20_000 });
    const [causes, details]: [(string | null)[], string[]] = [[], []];
    for (let i = 0; i < calls; i++) {
      const [v] = (await screen.screen({ final: `hello ${i}` })).verdicts;
      causes.push(v?.cause ?? null);
      details.push(v?.detail ?? '');
    }
    return { causes, details, requests: server.requests.length, lost: screen.hopeless?.() ?? null };
  } finally {
    await server.close();
  }
}
afterEach(() => {
  vi.restoreAllMocks();
});

describe('a budget', () => {
  it('has a few at once, and then a share of the calls', () => {
    const budget = new Budget(0.25, 2);
    expect([budget.spend(), budget.spend(), budget.spend()]).toEqual([true, true, false]);
    for (let i = 0; i < 3; i++) budget.earn();
    expect(budget.spend()).toBe(false);
    budget.earn();
    expect([budget.spend(), budget.spend()]).toEqual([true, false]);
  });
  it('bounds the retries of a judge that is busy for ever', async () => {
    const { requests, causes } = await asked(
      (_q, r) => {
        r.writeHead(429, { 'retry-after': '0' }).end();
      },
      200,
      { attempts: 6 },
    );
    expect(causes.every((c) => c === 'http_status' || c === 'circuit_open')).toBe(true);
    // Ten calls until the breaker opens, 40 more tries at once, a fifth of the calls.
    expect(requests).toBeLessThanOrEqual(10 + 40 + 2);
    expect(requests).toBeGreaterThan(10 + 30);
  });
});

describe('the breaker', () => {
  it('opens after failures in a row, lets one call through after a rest, and closes when that is answered', () => {
    let now = 0;
    const breaker = new Breaker(() => now);
    for (let i = 1; i < BREAKER_FAILURES; i++) {
      breaker.failed('down');
      expect(breaker.refuses()).toBeNull();
    }
    breaker.succeeded();
    for (let i = 0; i < BREAKER_FAILURES; i++) breaker.failed('down');
    expect(breaker.refuses()).toMatch(/last 10 calls failed \(down\); tried again in 5 s/);
    now = 5000;
    expect(breaker.refuses()).toBeNull();
    expect(breaker.refuses()).toMatch(/one call is trying it/);
    breaker.failed('still down');
    expect(breaker.refuses()).toMatch(/still down.*in 10 s/);
    now = 15_000;
    expect(breaker.refuses()).toBeNull();
    breaker.stopped();
    expect(breaker.refuses()).toBeNull();
    breaker.succeeded();
    expect([breaker.refuses(), breaker.refuses()]).toEqual([null, null]);
  });
  it('of a judge that is down: nothing is asked any more, and nothing is allowed', async () => {
    const { requests, causes, details } = await asked(
      (_q, r) => {
        r.writeHead(503).end();
      },
      100,
      { attempts: 1 },
    );
    expect(requests).toBe(BREAKER_FAILURES);
    expect(causes.slice(BREAKER_FAILURES)).toEqual(Array(100 - BREAKER_FAILURES).fill('circuit_open'));
    expect(details.at(-1)).toMatch(/not asked, as its last 10 calls failed \(.*answered 503\); tried again in \d s/);
  });
  it('does not open for answers off the contract, nor for a text that is refused', async () => {
    // No call is sent twice for being slow, as one may be on a busy machine.
    const { requests } = await asked((_q, r) => completion(r, { content: 'hm' }), 20, { hedge: 0 });
    expect(requests).toBe(40);
    const refused = await asked((_q, r) => void r.writeHead(400).end(), 20, { hedge: 0 });
    expect(refused.requests).toBe(20);
  });
});

describe('a wrong key', () => {
  const wrong: Answer = (_q, r) => {
    r.writeHead(401, { 'content-type': 'application/json' }).end('{"error":{"message":"bad key"}}');
  };
  it('costs a handful of calls of a thousand, and is told in one line', async () => {
    const { requests, lost } = await asked(wrong, 1000);
    expect(requests).toBe(BREAKER_FAILURES);
    expect(lost).toMatch(/^judge .*: answered 401: bad key; check TEMPER_JUDGE_API_KEY$/);
  });
  it('that ran out on the way ends it too', () => {
    const hope = createHope();
    hope.note(true, null);
    for (let i = 1; i < 2 * HOPELESS_CALLS; i++) {
      hope.note(false, 'answered 401');
      expect(hope.lost()).toBeNull();
    }
    hope.note(false, 'answered 401');
    expect(hope.lost()).toBe('answered 401');
    const mixed = createHope();
    mixed.note(true, null);
    for (let i = 0; i < 100; i++) mixed.note(false, i % 2 ? 'answered 401' : 'answered 404');
    expect(mixed.lost()).toBeNull();
  });
});

describe('one more try', () => {
  it('for an answer off the contract, with another nonce; two verdicts are none', async () => {
    const nonces: string[] = [];
    const once = await asked((q, r, call) => {
      nonces.push(nonceOf(q));
      if (call === 1) completion(r, { content: 'Sure!' });
      else allow(q, r, call);
    }, 1);
    expect([once.causes, once.requests, new Set(nonces).size]).toEqual([[null], 2, 2]);
    const always = await asked((_q, r) => completion(r, { content: 'Sure!' }), 1);
    expect([always.causes, always.requests]).toEqual([['off_contract'], 2]);
    const both = await asked((q, r) => {
      const nonce = nonceOf(q);
      completion(r, { content: `${renderVerdict({ rule: 'C1', nonce })}\n${renderVerdict({ rule: null, nonce })}` });
    }, 1);
    expect([both.causes, both.requests]).toEqual([['two_verdicts'], 1]);
  });
});

describe('a hedge', () => {
  it('is sent when the first takes longer than most, within its budget', async () => {
    // Two are slow, so that what most take is far above what a busy machine takes for the rest; the one that is held is
    // never answered.
    const [slow, held] = [new Set([1, 2]), 25];
    const { causes, requests } = await asked((q, r, call) => {
      if (slow.has(call)) setTimeout(() => allow(q, r, call), 500);
      else if (call !== held) allow(q, r, call);
    }, 30);
    expect(causes).toEqual(Array(30).fill(null));
    expect(requests).toBe(31);
  });
  it('is not sent before enough is known, nor where it is turned off', () => {
    const latencies = new Latencies();
    for (let i = 1; i < Latencies.ENOUGH; i++) latencies.add(i);
    expect(latencies.quantile(0.95)).toBeNull();
    for (let i = 0; i < 500; i++) latencies.add(i % 100);
    expect(latencies.quantile(0.5)).toBeGreaterThan(30);
    expect(latencies.quantile(0.95)).toBeGreaterThan(latencies.quantile(0.5) as number);
  });
  it('the first good reply counts, the other request is ended; a bad one waits for the other', async () => {
    const stopped: string[] = [];
    const replies: ((value: string) => void)[] = [];
    const send = (signal: AbortSignal): Promise<string> =>
      new Promise((resolve, reject) => {
        const name = `request ${replies.length}`;
        replies.push(resolve);
        signal.addEventListener('abort', () => {
          stopped.push(name);
          reject(new Error('stopped'));
        });
      });
    const hedge = { delayMs: 0, may: () => true, good: (r: string) => r !== 'busy' };
    const signal = new AbortController().signal;
    const first = hedged(send, signal, hedge);
    await expect.poll(() => replies.length).toBe(2);
    replies[0]?.('busy');
    replies[1]?.('good');
    expect(await first).toBe('good');
    const second = hedged(send, signal, hedge);
    await expect.poll(() => replies.length).toBe(4);
    replies[3]?.('good');
    expect(await second).toBe('good');
    expect(stopped).toContain('request 2');
    const bad = hedged(send, signal, hedge);
    await expect.poll(() => replies.length).toBe(6);
    replies[5]?.('busy');
    replies[4]?.('busy');
    expect(await bad).toBe('busy');
  });
});

describe('a clock that jumps', () => {
  it('changes no deadline, no rest and no batch', async () => {
    const real = Date.now.bind(Date);
    let jump = 0;
    vi.spyOn(Date, 'now').mockImplementation(() => real() + jump);
    const server = await startJudgeServer((q, r, call) => {
      jump = call % 2 ? 3_600_000 : -3_600_000;
      allow(q, r, call);
    });
    try {
      const judge = createEndpointJudge({ url: server.url, model: 'm' });
      const screen = createScreen({ policies, judge, timeoutMs: 20_000 });
      for (let i = 0; i < 6; i++) {
        const { verdicts } = await screen.screen({ final: 'hello' });
        expect(verdicts).toMatchObject([{ outcome: 'allow' }]);
        expect(verdicts[0]?.latencyMs).toBeGreaterThanOrEqual(0);
        expect(verdicts[0]?.latencyMs).toBeLessThan(20_000);
      }
    } finally {
      await server.close();
    }
  });
  it('Retry-After as a time is read by the clock of the server that says it', async () => {
    vi.spyOn(Date, 'now').mockReturnValue(0);
    const { causes, requests } = await asked((q, r, call) => {
      const at = (ms: number): string => new Date(1_700_000_000_000 + ms).toUTCString();
      if (call === 1) r.writeHead(429, { date: at(5000), 'retry-after': at(0) }).end();
      else allow(q, r, call);
    }, 1);
    expect([causes, requests]).toEqual([[null], 2]);
  });
});

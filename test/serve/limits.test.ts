// What a key may use, with a clock that is set; and who gets a place, without one.
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Engine } from '../../src/infer/engine.js';
import { Admission, type Applicant } from '../../src/serve/admission.js';
import { ApiError } from '../../src/serve/api-error.js';
import { depthOf } from '../../src/serve/body.js';
import { Callers, type ServerParts } from '../../src/serve/callers.js';
import { requirePolicies } from '../../src/serve/credentials.js';
import { Asking, Limits } from '../../src/serve/limits.js';

const refusal = (work: () => unknown): [string, number | null] | null => {
  try {
    work();
    return null;
  } catch (e) {
    if (!(e instanceof ApiError)) throw e;
    expect(e.status).toBe(429);
    return [e.code, e.retryAfter];
  }
};

const limits = { slots: 1, queue: 4, queueMs: 60_000 };

describe('limits of a key', () => {
  it('so many requests a minute, and told when there is the next', () => {
    let now = 0;
    const limits = new Limits(() => now);
    const key = { name: 'a', requestsPerMinute: 3 };
    const ask = (): unknown => refusal(() => limits.of(key).begin()());
    expect([ask(), ask(), ask()]).toEqual([null, null, null]);
    expect(ask()).toEqual(['request_limit', 20]);
    now = 19.9;
    expect(ask()).toEqual(['request_limit', 1]);
    now = 20.1;
    expect(ask()).toBeNull();
    expect(refusal(() => limits.of({ name: 'b', requestsPerMinute: 3 }).begin())).toBeNull();
    now = 1000;
    expect([ask(), ask(), ask()]).toEqual([null, null, null]);
    expect(ask()).toEqual(['request_limit', 20]); // no more than a minute's worth is saved up
  });
  it('so many tokens a minute: what one answer took too much is waited for', () => {
    let now = 0;
    const limits = new Limits(() => now);
    const of = (): ReturnType<Limits['of']> => limits.of({ name: 'a', tokensPerMinute: 600 });
    of().begin()();
    of().spend(700);
    expect(refusal(() => of().begin())).toEqual(['token_limit', 11]);
    now = 10.2;
    expect(refusal(() => of().begin()())).toBeNull();
  });
  it('so many at once; ended twice counts once', () => {
    const limits = new Limits(() => 0);
    const of = (): ReturnType<Limits['of']> => limits.of({ name: 'a', concurrent: 2 });
    const [first] = [of().begin(), of().begin()];
    expect(refusal(() => of().begin())).toEqual(['concurrency_limit', 1]);
    first?.();
    first?.();
    expect(refusal(() => of().begin())).toBeNull();
    expect(refusal(() => of().begin())).toEqual(['concurrency_limit', 1]);
    expect(limits.running).toEqual({ a: 2 });
  });
  it('new limits count what was used where they stayed', () => {
    const limits = new Limits(() => 0);
    const of = (requestsPerMinute: number): ReturnType<Limits['of']> => limits.of({ name: 'a', requestsPerMinute });
    of(1).begin()();
    expect(refusal(() => of(1).begin())).toEqual(['request_limit', 60]);
    expect(refusal(() => of(2).begin()())).toBeNull();
  });
});

describe('policies of a key', () => {
  const key = (policies?: readonly string[]) => [{ name: 'a', key: 'x', policies }];
  const screen = { policies: [{ name: 'contact', text: '', rules: [], digest: '' }] };
  it('are those of the server', () => {
    requirePolicies(undefined, null);
    requirePolicies(key(), null);
    requirePolicies(key(['contact']), screen);
    for (const [policies, given] of [
      [['contact'], null],
      [['contact', 'respect'], screen],
    ] as const)
      expect(() => requirePolicies(key(policies), given)).toThrow(expect.objectContaining({ code: 'bad_keys' }));
  });
});

describe('one request of several answers', () => {
  const of = (concurrent: number, requestsPerMinute: number) => {
    const usage = new Limits(() => 0).of({ name: 'a', concurrent, requestsPerMinute });
    return { usage, asking: new Asking(usage) };
  };
  it('counts once, and its answers run beside each other as far as the key may have several', async () => {
    const { usage, asking } = of(2, 1);
    const order: string[] = [];
    let most = 0;
    await Promise.all(
      Array.from({ length: 5 }, async (_, i) => {
        const end = await asking.enter(never);
        order.push(`+${i}`);
        most = Math.max(most, usage.running);
        await new Promise((later) => setImmediate(later));
        order.push(`-${i}`);
        end();
        end();
      }),
    );
    expect([most, usage.running]).toEqual([2, 0]);
    expect(order.filter((o) => o.startsWith('+'))).toEqual(['+0', '+1', '+2', '+3', '+4']);
    expect(refusal(() => new Asking(usage).enter(never))).toEqual(['request_limit', 60]);
  });
  it('is refused whole where others fill what the key may have; one that waits can be given up', async () => {
    const { usage, asking } = of(1, 9);
    const end = await asking.enter(never);
    expect(refusal(() => new Asking(usage).enter(never))).toEqual(['concurrency_limit', 1]);
    const stop = new AbortController();
    const [second, third] = [asking.enter(stop.signal), asking.enter(never)];
    stop.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    await expect(asking.enter(stop.signal)).rejects.toThrow('gone');
    end();
    (await third)();
    expect(usage.running).toBe(0);
  });
});

describe('tokens that are counted for a key', () => {
  const key = { name: 'a', tokensPerMinute: 1000 };
  /** An engine that reads 100 tokens and writes 50. */
  const engine = {
    async *generate() {
      for (let i = 0; i < 50; i++) yield { kind: 'text', pieces: 1 };
      yield { kind: 'done', usage: { promptTokens: 100, completionTokens: 50 } };
    },
    count: async () => 100,
    read: async ({ prompt }: { readonly prompt: string | Int32Array }) => ({
      text: '',
      count: prompt.length,
      tokens: [],
    }),
  };
  const take = async (events: AsyncIterable<unknown>, most: number): Promise<void> => {
    let n = 0;
    for await (const _ of events) if (++n === most) return;
  };
  it.each<[string, (engine: Engine) => Promise<unknown>, number]>([
    ['an answer', (e) => take(e.generate({ messages: [] }), 99), 150],
    ['one that is given up: what was read of it, and written', (e) => take(e.generate({ messages: [] }), 1), 101],
    ['one to a list of tokens', (e) => take(e.generate({ messages: [], prompt: new Int32Array(30) }), 1), 31],
    ['a prompt whose log-probabilities are told', (e) => e.read({ prompt: new Int32Array(70), top: 0 }), 70],
    ['a prompt that is given back, as nothing is computed', (e) => e.read({ prompt: 'abc', top: null }), 0],
  ])('%s', async (_, work, used) => {
    const parts = { served: { engine }, admission: new Admission(limits) } as unknown as ServerParts;
    const callers = new Callers(parts, null),
      spend = vi.spyOn(callers.limits.of(key), 'spend');
    await work(callers.serviceFor(key).served.engine);
    await new Promise((later) => setImmediate(later));
    expect(spend.mock.calls.reduce((sum, [n]) => sum + n, 0)).toBe(used);
  });
});

const never = new AbortController().signal;
/** Asks in order and lets one after the other go. @returns the order in which they entered, and who was refused */
async function order(given: readonly Applicant[], options = limits): Promise<{ entered: string[]; refused: string[] }> {
  const admission = new Admission(options);
  const entered: string[] = [],
    refused: string[] = [];
  const all = given.map(async (who, i) => {
    try {
      const leave = await admission.enter(never, who);
      entered.push(`${who.key}${i}`);
      await new Promise((later) => setImmediate(later));
      leave();
    } catch (e) {
      refused.push(`${who.key}${i} ${(e as ApiError).code}`);
    }
  });
  await Promise.all(all);
  expect([admission.running, admission.waiting]).toEqual([0, 0]);
  return { entered, refused };
}
const by = (text: string): Applicant[] =>
  [...text].map((key) => ({ key: key.toLowerCase(), priority: key === key.toUpperCase() ? 1 : 0 }));

describe('who gets a place', () => {
  it('keys in turn, each its own in order', async () => {
    const { entered } = await order(by('aaaab'), { ...limits, slots: 2 });
    expect(entered).toEqual(['a0', 'a1', 'b4', 'a2', 'a3']);
  });
  it('a higher priority before all', async () => {
    expect((await order(by('aabCa'))).entered).toEqual(['a0', 'c3', 'a1', 'b2', 'a4']);
  });
  it('a full queue takes from the key that has most of it, and from lower priorities', async () => {
    expect((await order(by('aaaaab'))).refused).toEqual(['a4 queue_full']);
    expect((await order(by('aabbba'))).refused).toEqual(['b4 queue_full']);
    expect((await order(by('aabbcb'))).refused).toEqual(['b5 queue_full']);
    expect((await order(by('aabcdE'))).refused).toEqual(['d4 queue_full']);
    expect((await order(by('ABCDEf'))).refused).toEqual(['f5 queue_full']);
  });
  it('whoever is sent away, the place stays: as many enter as were not refused', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('a', 'b', 'c', 'A', 'B'), { maxLength: 30 }),
        fc.integer({ min: 1, max: 4 }),
        fc.nat({ max: 6 }),
        async (keys, slots, queue) => {
          const { entered, refused } = await order(by(keys.join('')), { slots, queue, queueMs: 60_000 });
          expect(entered.length + refused.length).toBe(keys.length);
          expect(refused.length).toBe(Math.max(0, keys.length - slots - queue));
        },
      ),
      { numRuns: 200, seed: 4 },
    );
  });
});

describe('how deep a body is nested', () => {
  it.each([
    ['', 0],
    ['{}', 1],
    ['[[1],{"a":[]}]', 3],
    ['{"a":"[[[\\"[[[","b":"\\\\"}', 1],
    ['["\\\\\\"[",[]]', 2],
    ['[[["', 3],
    ['["', 1],
    ['"\\', 0],
    [']]][[', 0],
  ])('%s', (text, depth) => {
    expect(depthOf(text)).toBe(depth);
  });
});

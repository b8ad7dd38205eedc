// What a key may use, with a clock that is set; and who gets a place, without one.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Admission, type Applicant } from '../../src/serve/admission.js';
import { ApiError } from '../../src/serve/api-error.js';
import { depthOf } from '../../src/serve/body.js';
import { Limits } from '../../src/serve/limits.js';

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

const never = new AbortController().signal;
const limits = { slots: 1, queue: 4, queueMs: 60_000 };
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

// Long texts in windows: nothing is left out, and what breaks a rule is found wherever it stands.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import { type Judge, JudgeFailure } from '../../src/safeguard/types.js';
import { covered, windowSize, windowsOf } from '../../src/safeguard/windows.js';

const policies = [definePolicy('p', 'R1: the needle\nAll else is allowed.')];
const NEEDLE = 'the needle is here';
const judgeOf = (most: number): Judge & { readonly seen: number[] } => {
  const seen: number[] = [];
  return {
    name: 'j',
    digest: 'd',
    seen,
    judge: async ({ content, nonce }) => {
      seen.push(content.length);
      // As a server that cuts what is too long, without a word.
      const rule = content.slice(0, most).includes(NEEDLE) ? 'R1' : null;
      return { text: renderVerdict({ rule, nonce }), finish: 'stop' };
    },
  };
};

describe('windowsOf', () => {
  it('covers every text, each window within its size, neighbours with their overlap', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', ' ', '\n', '🙂', 'é'), maxLength: 3000 }),
        fc.integer({ min: 64, max: 700 }),
        (text, characters) => {
          const size = windowSize(characters);
          const windows = windowsOf(text, size);
          expect(covered(windows)).toBe(text.length);
          expect(windows[0]?.from).toBe(0);
          expect(windows.at(-1)?.to).toBe(text.length);
          for (const [i, { from, to }] of windows.entries()) {
            expect(to - from).toBeLessThanOrEqual(characters);
            expect(text.slice(from, to).isWellFormed()).toBe(text.isWellFormed());
            const next = windows[i + 1];
            if (next) expect(to - next.from).toBeGreaterThanOrEqual(size.overlap);
          }
        },
      ),
      { numRuns: 400 },
    );
  });
  it('a text that fits is one window', () => expect(windowsOf('abc', windowSize(64))).toEqual([{ from: 0, to: 3 }]));
});

describe('a long text', () => {
  it('is blocked wherever the needle stands in 200,000 characters', async () => {
    const judge = judgeOf(16_000);
    const screen = createScreen({ policies, judge, judging: { views: 'raw' }, concurrency: 64 });
    const hay = 'lorem ipsum dolor sit amet '.repeat(8000).slice(0, 200_000);
    let found = 0;
    for (let at = 0; at <= hay.length - NEEDLE.length; at += 1237) {
      const text = hay.slice(0, at) + NEEDLE + hay.slice(at + NEEDLE.length);
      if ((await screen.screen({ final: text })).outcome === 'block') found++;
    }
    expect(found).toBe(Math.floor((hay.length - NEEDLE.length) / 1237) + 1);
    expect(Math.max(...judge.seen)).toBeLessThanOrEqual(16_000);
  });
  it('says in its verdict what was judged', async () => {
    const screen = createScreen({ policies, judge: judgeOf(1000), judging: { window: 1000 } });
    const { verdicts } = await screen.screen({ final: 'lorem ipsum '.repeat(500) });
    expect(verdicts).toMatchObject([
      { outcome: 'allow', coverage: { characters: 6000, judged: 6000, windows: 7, views: ['raw'] } },
    ]);
  });
  it('one window without a verdict: unjudged, and the detail says which', async () => {
    const judge = judgeOf(1000);
    const failing: Judge = {
      ...judge,
      judge: (request) => {
        if (request.content.includes('broken')) throw new JudgeFailure('http_status', 'answered 500');
        return judge.judge(request);
      },
    };
    const screen = createScreen({ policies, judge: failing, judging: { window: 1000 } });
    const text = `${'lorem ipsum '.repeat(200)}broken${' dolor sit'.repeat(100)}`;
    const [verdict] = (await screen.screen({ final: text })).verdicts;
    expect(verdict).toMatchObject({ outcome: 'unjudged', cause: 'http_status' });
    expect(verdict?.detail).toMatch(/^answered 500 \(characters \d+ to \d+\)$/);
    expect(verdict?.coverage?.judged).toBeLessThan(text.length);
    expect((await screen.screen({ final: `${text} ${NEEDLE}` })).outcome).toBe('block');
  });
  it('of several blocks the first in the text is told, each time', async () => {
    const judge: Judge = {
      name: 'j',
      digest: 'd',
      judge: async ({ content, nonce }) => {
        await new Promise((done) => setTimeout(done, content.includes('alpha') ? 15 : 0));
        const rule = content.includes('alpha') ? 'R1' : content.includes('omega') ? 'R2' : null;
        return { text: renderVerdict({ rule, nonce }), finish: 'stop' };
      },
    };
    const two = [definePolicy('p', 'R1: alpha\nR2: omega')];
    const screen = createScreen({ policies: two, judge, judging: { window: 1000 } });
    const text = `alpha ${'lorem ipsum '.repeat(300)} omega`;
    for (let i = 0; i < 5; i++) expect((await screen.screen({ final: text })).verdicts[0]?.rule).toBe('R1');
  });
  it('windows are as large as a judge of a bounded context takes', async () => {
    const judge = judgeOf(10_000);
    const bounded: Judge = { ...judge, fits: async ({ content }) => content.length <= 500 };
    const screen = createScreen({ policies, judge: bounded });
    const { verdicts } = await screen.screen({ final: `${'lorem ipsum '.repeat(400)}${NEEDLE}` });
    expect(verdicts).toMatchObject([{ outcome: 'block' }]);
    expect(Math.max(...judge.seen)).toBeLessThanOrEqual(500);
    // Nothing fits: it is asked about the whole, and says what it will.
    const none: Judge = { ...judge, fits: async () => false };
    await createScreen({ policies, judge: none }).screen({ final: 'lorem ipsum '.repeat(100) });
    expect(judge.seen.at(-1)).toBe(1200);
  });
});

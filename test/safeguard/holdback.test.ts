// Hold-back: nothing leaves before its verdict, and a stream releases what the whole would. Many more cases once in a
// while: TEMPER_HOLD_CASES=1000000.
import { describe, expect, it } from 'vitest';
import { CutFinder, cutsOf, MIN_SENTENCE } from '../../src/safeguard/holdback/cuts.js';
import { releaseRules } from '../../src/safeguard/holdback/rules.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { caseOf, runCase, splitsOf } from './holdback-cases.js';

const CASES = Number(process.env.TEMPER_HOLD_CASES ?? 20_000);
/** Of them so many are one turn cut at each of its places. */
const SPLITS = CASES / 2;

describe('zero bytes before allow, and the whole where all is allowed', () => {
  it('one turn in two pieces, at every place', { timeout: 7_200_000 }, async () => {
    let [cases, turns, blocked] = [0, 0, 0];
    for (let seed = 1; cases < SPLITS; seed++) {
      const judging = (['mark', 'all', 'hash', 'mark'] as const)[seed % 4]!;
      turns++;
      for (const c of splitsOf(seed, judging, seed % 2 === 0 ? 'refuse' : 'truncate')) {
        blocked += (await runCase(c)).blocked;
        cases++;
      }
    }
    console.log(`hold-back: ${cases} cases of ${turns} turns cut at every place, ${blocked} blocked`);
    expect(cases).toBeGreaterThanOrEqual(SPLITS);
    if (CASES >= 10_000) expect(blocked).toBeGreaterThan(0);
  });
  it('many pieces, several choices, verdicts in any order, aborts and a log that fails', {
    timeout: 7_200_000,
  }, async () => {
    let [aborted, failed, blocked, waits, waitedOut] = [0, 0, 0, 0, 0];
    for (let n = 0; n < CASES - SPLITS; n++) {
      const outcome = await runCase(caseOf(n));
      aborted += Number(outcome.aborted);
      failed += Number(outcome.failed);
      blocked += outcome.blocked;
      waits += outcome.waits;
      waitedOut += outcome.waitedOut;
    }
    console.log(
      `hold-back: ${CASES - SPLITS} interleaved cases, ${blocked} blocked, ${aborted} aborted, ${failed} failed, ` +
        `${waits} waits for a verdict, ${waitedOut} sentences kept for one that did not come in time`,
    );
    if (CASES >= 10_000) expect(Math.min(aborted, failed, blocked, waits, waitedOut)).toBeGreaterThan(0);
  });
});

describe('where a text may be cut', () => {
  it.each([
    ['It is so and so. Then it is not.', [16]],
    ['Pi is about 3.14159, say some, and e.g. others', [39]],
    ['He said "It is so and so." Then he left.', [26]],
    ['a line of a list\nanother line of it\n\nthe end', [17, 37]],
    ['これはとても長い日本語の文章です。次の文もあります。', [17]],
    ['short. short. short. short', [20]],
  ])('%j', (text, cuts) => {
    expect(cutsOf(text)).toEqual(cuts);
  });
  it('is decided by what stands before it and one character more', () => {
    const text =
      'One sentence is here. “Another!” stands (as it is.) there。次の文もあります。 🦊🦊 and so on: '.repeat(8);
    const whole = cutsOf(text);
    for (let split = 0; split <= text.length; split++) {
      const finder = new CutFinder();
      expect([...finder.push(text.slice(0, split)), ...finder.push(text.slice(split))]).toEqual(whole);
    }
    for (let end = 0; end < text.length; end++)
      expect(cutsOf(text.slice(0, end))).toEqual(whole.filter((at) => at < end));
  });
  it('never stands in a word or a character, however long', () => {
    expect(cutsOf('A'.repeat(5000))).toEqual([]);
    expect(cutsOf('word '.repeat(200)).length).toBeGreaterThan(2);
    for (const at of cutsOf('漢🦊'.repeat(1000))) expect('漢🦊'.repeat(1000).charCodeAt(at) & 0xfc00).not.toBe(0xdc00);
    expect(cutsOf('漢字かな'.repeat(500)).length).toBeGreaterThan(2);
    expect(MIN_SENTENCE).toBeGreaterThan(8);
  });
});

describe('what a policy says of releasing', () => {
  const policy = (front: string, name = 'p') => definePolicy(name, `---\n${front}\n---\nP1: a digit`);
  it('is read of its front matter', () => {
    expect(policy('buffer: whole\nonBlock: review\nrefusal: I cannot say.\nanalysis: release')).toMatchObject({
      buffer: 'whole',
      onBlock: 'review',
      refusal: 'I cannot say.',
      analysis: 'release',
      text: 'P1: a digit',
    });
  });
  it.each([
    ['onBlock: pass', /onBlock: "pass" is unknown; wanted refuse or truncate or review/],
    ['analysis: summarise', /summaries are not supported/],
    ['refusal: ""', /refusal: wanted a text/],
  ])('%s is refused by name', (front, says) => {
    expect(() => policy(front)).toThrow(says);
  });
  it('the strictest counts', () => {
    const [refuse, cut, review] = [
      policy('refusal: No.'),
      policy('onBlock: truncate', 'c'),
      policy('onBlock: review', 'r'),
    ];
    const blocked = (...names: string[]) => names.map((name) => ({ policy: name, outcome: 'block' as const }));
    const rules = releaseRules([refuse, cut, review]);
    expect([rules.whole, rules.analysis]).toEqual([false, null]);
    expect(rules.actionOn(blocked('c'))).toBe('truncate');
    expect(rules.actionOn(blocked('c', 'p'))).toBe('refuse');
    expect(rules.actionOn(blocked('c', 'r', 'p'))).toBe('review');
    // A detector is no policy.
    expect(rules.actionOn(blocked('detector/secrets'))).toBe('review');
    expect(rules.refusalOf(blocked('p', 'c'))).toBe('No.');
    expect(rules.refusalOf(blocked('c'))).toBeNull();
    const open = policy('analysis: release', 'o');
    expect(releaseRules([open]).analysis).toBe('release');
    expect(releaseRules([open, cut]).analysis).toBe('drop');
  });
});

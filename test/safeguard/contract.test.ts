import { existsSync, readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseRow } from '../../src/safeguard/batch/row.js';
import {
  breakControlSpellings,
  CONTRACT_BOTTOM,
  CONTRACT_TOP,
  makeNonce,
  parseVerdict,
  renderJudgePrompt,
  renderVerdict,
} from '../../src/safeguard/contract.js';
import { definePolicy, loadPolicy } from '../../src/safeguard/policy.js';

const nonce = '7k3f9q';
const rules = ['C1', 'C2'];

describe('parseVerdict', () => {
  it('reads what renderVerdict writes', () => {
    expect(parseVerdict(renderVerdict({ rule: null, nonce }), { nonce, rules })).toEqual({
      outcome: 'allow',
      rule: null,
    });
    expect(parseVerdict(renderVerdict({ rule: 'C2', nonce }), { nonce, rules })).toEqual({
      outcome: 'block',
      rule: 'C2',
    });
    expect(
      parseVerdict(`\n { "violation" : 1 , "rule" : "X-7" , "nonce" : "${nonce}" } \n`, { nonce, rules: [] }),
    ).toEqual({ outcome: 'block', rule: 'X-7' });
  });
  it('allows nothing but the one exact line: every change of a character is unjudged or the same verdict', () => {
    const good = renderVerdict({ rule: null, nonce });
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.string({ unit: 'binary', minLength: 0, maxLength: 3 }), (at, insert) => {
        const changed = good.slice(0, at) + insert + good.slice(at + 1);
        const parsed = parseVerdict(changed, { nonce, rules });
        if (parsed.outcome === 'allow') expect(changed.replaceAll(/[ \t\r\n]/g, '')).toBe(good);
        else expect(parsed.outcome).toBe('unjudged');
      }),
      { numRuns: 5000 },
    );
  });
  it('never throws and never allows arbitrary text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
        expect(parseVerdict(text, { nonce, rules }).outcome).toBe('unjudged');
      }),
      { numRuns: 5000 },
    );
  });
});

describe('the prompt', () => {
  it('keeps the text out of the developer message and the policy out of the user message', () => {
    const prompt = renderJudgePrompt({ policy: 'C1: no numbers\n', content: 'call 12', channel: 'final', nonce });
    expect(prompt.developer).toBe(`${CONTRACT_TOP}\n\nC1: no numbers\n\n${CONTRACT_BOTTOM}`);
    expect(prompt.user).toBe(`channel: final\nBEGIN ${nonce}\ncall 12\nEND ${nonce}`);
  });
  it('does not repeat a channel name that the model made up', () => {
    expect(
      renderJudgePrompt({ policy: 'p', content: 'c', channel: 'final\nEND', nonce }).user.startsWith(
        'channel: other\n',
      ),
    ).toBe(true);
  });
  it('breaks every control-token spelling, and two texts never become one', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('<', '|', '\\', '＜', '｜', 'a', '|>', '<|end|>'), { maxLength: 12 }),
        fc.array(fc.constantFrom('<', '|', '\\', '＜', '｜', 'a'), { maxLength: 12 }),
        (x, y) => {
          const [a, b] = [x.join(''), y.join('')];
          expect(breakControlSpellings(a)).not.toMatch(/[<＜][|｜]/u);
          if (a !== b) expect(breakControlSpellings(a)).not.toBe(breakControlSpellings(b));
        },
      ),
      { numRuns: 5000 },
    );
  });
  it('draws a nonce that the text does not hold', () => {
    const draws = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1];
    expect(makeNonce('it ends: END 0a0a0a', () => draws.shift() ?? 2)).toBe('1b1b1b');
    expect(makeNonce('')).toMatch(/^([0-9][a-z]){3}$/);
  });
});

describe('policies', () => {
  it('finds rule ids at the head of lines only', () => {
    expect(definePolicy('p', '# Title\nR1: a\n- R2. b\n**R3** c\n## SP-R4 d\nsee R9 there\nR1: again').rules).toEqual([
      'R1',
      'R2',
      'R3',
      'SP-R4',
    ]);
  });
  it('refuses an empty and a missing policy', async () => {
    expect(() => definePolicy('p', ' \n')).toThrow(expect.objectContaining({ code: 'policy_empty', exitCode: 2 }));
    await expect(loadPolicy('/nonexistent/policy.md')).rejects.toMatchObject({ code: 'policy_unreadable' });
  });
  const names = readdirSync('policies').filter((name) => existsSync(`policies/${name}/policy.md`));
  it.each(names)('policies/%s: rules, and at least 20 golden rows that cover allow and every rule', async (name) => {
    const policy = await loadPolicy(`policies/${name}/policy.md`);
    expect(policy.name).toBe(name);
    const file = `policies/${name}/golden.jsonl`;
    const rows = readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((text, i) => parseRow(file, i + 1, text));
    expect(rows.length).toBeGreaterThanOrEqual(20);
    expect(new Set(rows.map((r) => r.id)).size).toBe(rows.length);
    const expected = new Set(rows.flatMap((r) => Object.values(r.expect)));
    expect([...expected].sort()).toEqual([...policy.rules, null].sort());
  });
  it('checked every policy, the two of the nano judge among them', () => {
    expect(names).toEqual(expect.arrayContaining(['contact', 'respect']));
  });
});

// Golden sets that are judged: held to thresholds, noticing mutants, giving a threshold; by a scripted judge that reads
// the policy, and by those that do not.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { calibrationFor, held } from '../../src/safeguard/calibration.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { calibrate } from '../../src/safeguard/policies/calibrate.js';
import { type Golden, readGolden } from '../../src/safeguard/policies/golden.js';
import { goldenRun } from '../../src/safeguard/policies/golden-run.js';
import { measureAll } from '../../src/safeguard/policies/measure.js';
import { mutantsOf, mutate } from '../../src/safeguard/policies/mutate.js';
import { definePolicy, loadPolicy } from '../../src/safeguard/policy.js';
import { type Judge, JudgeFailure, type JudgeRequest } from '../../src/safeguard/types.js';

const TEXT = `---
title: words
---
# Words

- R1: it says "apple"
- R2: it says "plum"
  or, with the same meaning, "prune"

## Safe

- Other fruit.

## Examples

- "one plum" → R2
- "one pear" → safe
`;
const policy = definePolicy('words', TEXT);
const golden = (rows: readonly (readonly [string, string | null, string?])[]): Golden => ({
  file: 'golden.jsonl',
  digest: 'b'.repeat(64),
  cases: rows.map(([text, expect, channel = 'final'], i) => ({ id: `g${i}`, line: i + 1, channel, text, expect })),
});
const ROWS = golden([
  ['an apple a day', 'R1'],
  ['apple pie', 'R1', 'analysis'],
  ['plum jam', 'R2'],
  ['a prune', 'R2', 'analysis'],
  ['a pear', null],
  ['two pears', null, 'analysis'],
  ['bread', null],
  ['milk', null, 'analysis'],
]);

/** Blocks by the rule whose lines quote a word of the text, as far as the policy that it is given has them. */
const reads = (request: JudgeRequest): string | null => {
  let rule: string | null = null;
  for (const line of request.policy.split('\n')) {
    rule = /^- (R[0-9]):/.exec(line)?.[1] ?? (/^\s+or/.test(line) ? rule : null);
    for (const [, word = ''] of line.matchAll(/"(\w+)"/g)) if (rule && request.content.includes(word)) return rule;
  }
  return null;
};
const judgeOf = (decide: (r: JudgeRequest) => string | null, score?: (r: JudgeRequest) => number): Judge => ({
  name: 'scripted',
  digest: 'd',
  judge: async (request) => ({
    text: renderVerdict({ rule: decide(request), nonce: request.nonce }),
    finish: 'stop',
    ...(score ? { score: score(request) } : {}),
  }),
});

describe('test', () => {
  it('a judge that follows the policy holds every threshold, overall, by channel and by rule', async () => {
    const run = goldenRun(policy, await measureAll(policy, judgeOf(reads), ROWS.cases));
    expect(run).toMatchObject({ misses: [], wrong: [], usual: true });
    expect(run.overall).toMatchObject({ rows: 8, violating: 4, unjudged: 0, recall: { value: 1 }, f1: { value: 1 } });
    expect(Object.keys(run.channels)).toEqual(['final', 'analysis']);
    expect(run.rules).toMatchObject({ R1: { rows: 2, byRule: 2 }, R2: { rows: 2, byRule: 2, recall: { value: 1 } } });
  });
  it('names what is not held, and where', async () => {
    const strict = definePolicy(
      'words',
      TEXT.replace('title: words', 'thresholds: {recall: 0.9, rules: {R2: {recall: 1}}, channels: {final: {f1: 1}}}'),
    );
    const blind = judgeOf((r) => (r.content.includes('plum') ? null : reads(r)));
    const run = goldenRun(strict, await measureAll(strict, blind, ROWS.cases));
    expect(run.misses).toEqual([
      { where: 'overall', what: 'recall', got: 0.75, wanted: 0.9, side: 'at least' },
      { where: 'channel final', what: 'F1', got: 2 / 3, wanted: 1, side: 'at least' },
      { where: 'rule R2', what: 'recall', got: 0.5, wanted: 1, side: 'at least' },
    ]);
    expect(run.wrong.map((w) => w.case.id)).toEqual(['g2']);
  });
  it('holds the threshold of a rule on the rows of its cases', async () => {
    const cased = definePolicy(
      'words',
      TEXT.replace('title: words', 'thresholds: {rules: {R1: {recall: 1}}}')
        .replace('- R1:', '- R1: fruit\n- R1.a:')
        .replace('"apple"', '"apple"'),
    );
    expect(cased.rules).toContain('R1.a');
    const cases = golden([
      ['an apple a day', 'R1.a'],
      ['apple pie', 'R1.a'],
      ['plum jam', 'R2'],
      ['milk', null],
    ]);
    const follows = judgeOf((r) => (r.content.includes('apple') ? 'R1.a' : r.content.includes('plum') ? 'R2' : null));
    const run = goldenRun(cased, await measureAll(cased, follows, cases.cases));
    expect(run.misses).toEqual([]);
    expect(run.rules.R1).toMatchObject({ rows: 2, byRule: 2 });
    const blind = judgeOf((r) => (r.content.includes('plum') ? 'R2' : null));
    const missed = goldenRun(cased, await measureAll(cased, blind, cases.cases)).misses;
    expect(missed.filter((m) => m.where === 'rule R1')).toMatchObject([{ got: 0, wanted: 1 }]);
  });
  it('with hold: bound the whole interval must be on the right side', async () => {
    const bound = definePolicy('words', TEXT.replace('title: words', 'thresholds: {recall: 0.85, hold: bound}'));
    const run = goldenRun(bound, await measureAll(bound, judgeOf(reads), ROWS.cases));
    expect(run.misses).toMatchObject([{ what: 'recall', got: expect.closeTo(0.51, 2) as number }]);
  });
  it('what is unjudged is a mistake both ways, and a miss of its own; a judge that is gone ends the run', async () => {
    const mute: Judge = { ...judgeOf(reads), judge: async () => ({ text: 'well', finish: 'stop' }) };
    const run = goldenRun(policy, await measureAll(policy, mute, ROWS.cases));
    expect(run.misses.map((m) => m.what)).toEqual(['recall', 'false positives', 'unjudged']);
    let calls = 0;
    const gone: Judge = {
      ...judgeOf(reads),
      judge: () => {
        calls++;
        return Promise.reject(new JudgeFailure('unreachable', 'nobody is there', { hopeless: true }));
      },
    };
    const many = golden(Array.from({ length: 100 }, (_, i) => [`row ${i}`, null]));
    await expect(measureAll(policy, gone, many.cases, { concurrency: 2 })).rejects.toMatchObject({
      code: 'judge_unusable',
    });
    expect(calls).toBeLessThan(12);
  });
  it('stops when it is told to', async () => {
    const stop = new AbortController();
    const stopping = judgeOf((r) => {
      stop.abort(new Error('enough'));
      return reads(r);
    });
    await expect(measureAll(policy, stopping, ROWS.cases, { signal: stop.signal })).rejects.toThrow('enough');
  });
});

const spam = join(
  process.env.TEMPER_SHARED_DATA ?? join(packageRoot, '../shared/data'),
  'safeguard/example_policies/spam',
);
it.skipIf(!existsSync(spam))(
  'policy and golden set as published are judged, mutated and calibrated as they are',
  async () => {
    const file = join(spam, 'policy.txt');
    const published = await loadPolicy(file, { golden: false, contract: 'gpt-oss-safeguard' });
    const columns = { text: '2', id: '1', expect: '10' };
    const set = await readGolden(published, file, { file: join(spam, 'golden_dataset.csv'), columns });
    if (!set) expect.fail('no golden set');
    // Blocks by the first rule of the policy that the golden set expects, as long as it stands there.
    const expected = new Map(set.cases.map((c) => [c.text, c.expect]));
    const json: Judge = {
      name: 'scripted',
      digest: 'd',
      judge: async ({ content, policy: text }) => {
        const rule = expected.get(content) ?? null;
        const stands = rule !== null && text.includes(rule);
        return { text: JSON.stringify(stands ? { violation: 1, rule_ids: [rule] } : { violation: 0 }), finish: 'stop' };
      },
    };
    const run = goldenRun(published, await measureAll(published, json, set.cases), { resamples: 50 });
    expect(run.overall).toMatchObject({ rows: 40, unjudged: 0, precision: { value: 1 } });
    expect(run.misses).toEqual([]);
    const mutated = await mutate(published, readFileSync(file, 'utf8'), json, set, { examples: false });
    expect(mutated.mutants.length).toBe(2 * published.rules.length);
    const { entry } = await calibrate(published, json, set, { resamples: 50 });
    expect(entry).toMatchObject({ contract: 'gpt-oss-safeguard', decidedBy: 'word', golden: { rows: 40 } });
  },
);

describe('mutate', () => {
  it('drops and inverts each rule with all of its lines, and each example', () => {
    const mutants = mutantsOf(TEXT);
    expect(mutants.map((m) => [m.kind, m.rule, m.line])).toEqual([
      ['drop rule', 'R1', 6],
      ['invert rule', 'R1', 6],
      ['drop rule', 'R2', 7],
      ['invert rule', 'R2', 7],
      ['drop example', 'R2', 16],
      ['invert example', 'R2', 16],
      ['drop example', null, 17],
      ['invert example', null, 17],
    ]);
    const [, , drop, invert, , flipped, , safe] = mutants.map((m) => m.text);
    expect(drop).toBe(TEXT.replace(/- R2:.*\n.*\n/, ''));
    expect(invert).toMatch(/## Allowed\n\n- it says "plum" or, with the same meaning, "prune"\n$/);
    expect(flipped).toContain('- "one plum" → allowed\n');
    expect(safe).toContain('- "one pear" → R1\n');
    for (const m of mutants) expect(m.text.startsWith('---\ntitle: words\n---\n')).toBe(true);
  });
  it('a golden set that covers the rules notices; examples that change nothing survive and are listed', async () => {
    const run = await mutate(policy, TEXT, judgeOf(reads), ROWS);
    expect(run.right).toBe(8);
    expect(run.survivors.map((m) => m.kind)).toEqual([
      'drop example',
      'invert example',
      'drop example',
      'invert example',
    ]);
    expect(run.mutants.filter((m) => m.kind.endsWith('rule')).map((m) => m.by)).toEqual(['g0', 'g0', 'g2', 'g2']);
    const only = await mutate(policy, TEXT, judgeOf(reads), ROWS, { examples: false });
    expect(only).toMatchObject({ survivors: [], calls: 12 });
  });
  it('rules without rows, and rows that were wrong before, notice nothing', async () => {
    const thin = golden([
      ['an apple a day', 'R1'],
      ['a pear', null],
    ]);
    const run = await mutate(policy, TEXT, judgeOf(reads), thin, { examples: false });
    expect(run.survivors.map((m) => [m.kind, m.rule, m.why])).toEqual([
      ['drop rule', 'R2', 'no golden row is of it'],
      ['invert rule', 'R2', 'no golden row is of it'],
    ]);
    const blind = await mutate(
      policy,
      TEXT,
      judgeOf(() => null),
      thin,
      { examples: false },
    );
    expect(blind.survivors).toHaveLength(4);
    expect(blind.survivors[0]?.why).toBe('no golden row of it is judged right in the first place');
  });
  it('a judge that knows its answers by heart does not read the policy, and is told apart', async () => {
    const learnt = judgeOf((r) => (r.content.includes('apple') ? 'R1' : /plum|prune/.test(r.content) ? 'R2' : null));
    const run = await mutate(policy, TEXT, learnt, ROWS, { examples: false });
    expect(run.survivors).toHaveLength(4);
    expect(run.survivors[0]?.why).toMatch(/^2 of 2 rows: the judge cites it all the same/);
  });
  it('the only rule gone: the policy is refused, which is notice enough', async () => {
    const one = 'R1: it says "apple"\n';
    const run = await mutate(
      definePolicy('one', one),
      one,
      judgeOf(reads),
      golden([
        ['apple', 'R1'],
        ['pear', null],
      ]),
    );
    expect(run.survivors).toEqual([]);
  });
});

describe('calibrate', () => {
  const resamples = 200;
  /** Right in nine of ten, with scores around ±2 that have a bias of +1. */
  const rows = golden(
    Array.from({ length: 120 }, (_, i) => [
      `${i % 2 ? 'pear' : 'apple'} number ${i}`,
      i % 2 ? null : 'R1',
      i % 3 ? 'final' : 'analysis',
    ]),
  );
  const number = (r: JudgeRequest): number => Number(/\d+$/.exec(r.content)?.[0]);
  const score = (r: JudgeRequest): number => (r.content.includes('apple') ? 2 : -2) + 1 + Math.sin(number(r)) * 1.9;
  const judge = judgeOf((r) => (score(r) > 0 ? 'R1' : null), score);

  it('finds a threshold that is better than the word, and screening holds scores to it', async () => {
    const { entry } = await calibrate(policy, judge, rows, { effort: 'low', resamples }, { concurrency: 4 });
    expect(entry).toMatchObject({ decidedBy: 'threshold', effort: 'low', contract: 'temper', chosenBy: 'f1' });
    expect(entry.threshold?.value).toBeGreaterThan(0.5);
    expect(entry.overall.f1?.value).toBeGreaterThan(0.97);
    expect(Object.keys(entry.channels).sort()).toEqual(['analysis', 'final']);
    expect(entry.overall.ece?.value).toBeGreaterThan(0.02);
    const calibrated = { ...policy, calibrations: [entry] };
    expect(calibrationFor(calibrated, 'd')).toBe(entry);
    const measured = await measureAll(calibrated, judge, rows.cases, {}, true);
    const byWord = await measureAll(calibrated, judge, rows.cases);
    const right = (of: readonly { readonly right: boolean }[]): number => of.filter((m) => m.right).length;
    expect(right(measured)).toBeGreaterThan(right(byWord));
    for (const { verdict } of measured)
      expect(verdict.outcome).toBe(
        held({ outcome: 'allow', rule: null }, verdict.score, entry.threshold?.value ?? 0)?.outcome,
      );
  });
  it('is the same each time, and by false positives as strict as asked', async () => {
    const [a, b] = [
      await calibrate(policy, judge, rows, { resamples }),
      await calibrate(policy, judge, rows, { resamples }, { concurrency: 1 }),
    ];
    expect(a.entry).toEqual(b.entry);
    const { entry } = await calibrate(policy, judge, rows, { chosenBy: 'fpr', fpr: 0.02, resamples });
    const measured = await measureAll({ ...policy, calibrations: [entry] }, judge, rows.cases, {}, true);
    const alarms = measured.filter((m) => !m.violates && m.outcome === 'block').length;
    expect(alarms / 60).toBeLessThanOrEqual(0.02);
  });
  it('counts for as many votes as it was found with', async () => {
    const judging = { votes: 3 };
    const { entry } = await calibrate(policy, judge, rows, { resamples }, { judging });
    expect(entry.judge.digest).not.toBe('d');
    const calibrated = { ...policy, calibrations: [entry] };
    const [three] = await measureAll(calibrated, judge, rows.cases.slice(0, 1), { judging }, true);
    const [one] = await measureAll(calibrated, judge, rows.cases.slice(0, 1), {}, true);
    expect([three?.verdict.threshold, one?.verdict.threshold]).toEqual([entry.threshold?.value, undefined]);
  });
  it("without scores the figures are of the judge's word, and there is no threshold", async () => {
    const { entry } = await calibrate(policy, judgeOf(reads), rows, { resamples });
    expect(entry).toMatchObject({ decidedBy: 'word', threshold: null });
    expect(entry.overall).toMatchObject({ scored: 0, recallAtFpr: null, ece: null, f1: { value: 1 } });
  });
});

// Findings of `temper policy check`: each is found where it stands, and not where all is well.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { checkPolicy, failsOn, type PolicyCheck } from '../../src/safeguard/policies/check.js';
import { FINDINGS, type FindingId } from '../../src/safeguard/policies/lint/finding.js';
import { estimateTokens } from '../../src/safeguard/policies/lint/text.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-lint-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let n = 0;
type Row = readonly [text: string, expect: string | null, channel?: string];
async function check(text: string, rows?: readonly Row[], calibration?: string): Promise<PolicyCheck> {
  const file = join(dir, `p${++n}.md`);
  writeFileSync(file, text);
  const lines = rows?.map(([t, expect, channel], i) => JSON.stringify({ id: `r${i}`, text: t, channel, expect }));
  if (lines) writeFileSync(join(dir, `p${n}.golden.jsonl`), lines.join('\n'));
  if (calibration) writeFileSync(join(dir, `p${n}.calibration.json`), calibration);
  return checkPolicy(file);
}
const ids = (c: PolicyCheck): FindingId[] => [...new Set(c.findings.map((f) => f.id))];
const at = (c: PolicyCheck, id: FindingId): (number | null)[] =>
  c.findings.filter((f) => f.id === id).map((f) => f.line);

const GOOD = `---
channels: [final]
---
# Goods

Judge one final answer.

## Violates

- R1: it sells a firework. "One box of rockets, 20 euros."
- R2: it sells a knife. "The blade ships today."

## Safe

- Explaining the law of sales.

## Examples

- "We sell rockets." → R1
- "Knives, cheap." → R2
- "Sales of rockets are limited by law." → safe
`;
const rows = (count: number): Row[] =>
  Array.from({ length: count }, (_, i) => [`text number ${i} of all`, i % 2 ? null : i % 4 ? 'R1' : 'R2']);
const seen = new Set<FindingId>();

describe('findings', () => {
  it('a good policy has none but its length', async () => {
    expect(ids(await check(GOOD, rows(20)))).toEqual(['length']);
  });
  const swap = (from: string, to: string): string => {
    expect(GOOD).toContain(from);
    return GOOD.replace(from, to);
  };
  it.each<[FindingId, string, number | null, (readonly Row[])?]>([
    ['unreadable', '# no rule here\n', null],
    ['unreadable', '---\ncontract: mine\n---\nR1: x\n', null],
    ['unreadable', '---\nbuffer: hole\n---\nR1: x\n', null],
    ['front-matter-unknown', swap('channels:', 'chanels:'), 2],
    ['threshold-unknown-rule', swap('channels: [final]', 'thresholds: {rules: {R9: {recall: 1}}}'), 2],
    ['hedge', swap('it sells a knife', 'it generally sells a knife'), 11],
    ['hedge', swap('- Explaining the law', '- What may explain the law'), 15],
    ['hedge', swap('it sells a knife', 'it sells a knife, if appropriate'), 11],
    ['double-negation', swap('it sells a knife', 'it does not say that no knife was not sold'), 11],
    ['double-negation', swap('Explaining the law of sales', 'What is not forbidden by law'), 15],
    ['polarity-labels', swap('Judge one final answer.', 'Classify the final answer: VALID, or INVALID.'), 6],
    ['polarity-labels', swap('Judge one final answer.', 'Judge the final answer: 0 = violation.'), 6],
    ['polarity-mixed', swap('it sells a knife', 'naming a knife is allowed'), 11],
    ['polarity-mixed', swap('- Explaining the law', '- Do not explain the law'), 15],
    ['output-unknown', swap('Judge one final answer.', 'Judge the final answer. Reply with exactly one word.'), 6],
    ['output-conflict', swap('Judge one final answer.', 'Answer {"violation": 1} for the final answer.'), 6],
    ['output-unstated', swap('channels:', 'contract: gpt-oss-safeguard\nchannels:'), null],
    ['hostile-text', swap('channels:', 'contract: gpt-oss-safeguard\nchannels:'), null],
    ['text-unsent', '---\ncontract: llama-guard\n---\nS1: violence\nS2: crime, final answers\n', null],
    ['scope-channel', swap('---\nchannels: [final]\n---\n', '').replace('final answer', 'text'), null],
    ['control-spelling', swap('Judge one', 'Judge <|start|>one'), 6],
    ['rule-repeated', swap('- R2: it sells a knife', '- R1: it sells a knife'), 11],
    ['rule-wordless', swap('- R2: it sells a knife. "The blade ships today."', '- R2:'), 11],
    ['example-contradiction', swap('- "Knives, cheap." → R2', '- "We sell rockets!" → safe'), 20],
    ['example-contradiction', GOOD, 21, [...rows(20), ['Sales of ROCKETS are limited by law', 'R1']]],
    ['buffer-unstated', swap('it sells a knife', 'it sells a knife in more than two sentences'), 11],
    ['buffer-unstated', swap('it sells a knife', 'it sells a knife and does not mention the law'), 11],
    ['buffer-unneeded', swap('channels:', 'buffer: whole\nchannels:'), null],
    ['golden-small', GOOD, null, rows(8)],
    ['golden-unbalanced', GOOD, null, rows(40).filter(([, expect], i) => expect !== null || i < 8)],
    ['golden-repeated', GOOD, null, [...rows(20), ['Text number 0 of all!', 'R1']]],
    ['golden-contradiction', GOOD, null, [...rows(20), ['Text number 0 of all!', null]]],
    ['golden-unknown-rule', GOOD, null, [...rows(20), ['another', 'R7']]],
    ['golden-no-rule', GOOD, null, rows(40).filter(([, expect]) => expect !== 'R2')],
    ['golden-channel', swap('[final]', '[final, analysis]'), null, rows(20)],
  ])('%s', async (id, text, line, golden) => {
    const checked = await check(text, golden ?? rows(20));
    expect(at(checked, id)).toContain(line);
    // One change brings one finding, of its own kind.
    const pair: readonly FindingId[] = ['output-unstated', 'hostile-text', 'golden-no-rule', 'golden-unbalanced'];
    const along: readonly FindingId[] = ['length', 'output-unknown', 'text-unsent', 'golden-unknown-rule', ...pair];
    const others = ids(checked).filter((other) => other !== id && !along.includes(other));
    const expected: Partial<Record<FindingId, readonly FindingId[]>> = {
      'text-unsent': ['polarity-one-sided', 'scope-channel', 'rule-no-example'],
      'rule-repeated': [],
      'rule-wordless': [],
    };
    expect(expected[id] ?? []).toEqual(expect.arrayContaining(others));
    seen.add(id);
  });
  it('rules without examples, one-sided policies, missing golden sets, lengths, stale calibrations', async () => {
    const bare = await check('R1: sells rockets in final answers\nR2: sells knives\n');
    expect(at(bare, 'rule-no-example')).toEqual([1, 2]);
    expect(ids(bare)).toEqual(expect.arrayContaining(['polarity-one-sided', 'golden-missing']));
    for (const [words, severity] of [
      [100, 'note'],
      [900, 'note'],
      [3000, 'warning'],
      [11_000, 'error'],
    ] as const) {
      const long = await check(`R1: sells rockets\n${'word '.repeat(words)}\n`);
      expect(long.findings.find((f) => f.id === 'length')?.severity, `${words}`).toBe(severity);
    }
    const empty = { rows: 1, violating: 1, unjudged: 0, scored: 0, precision: null, recall: null, f1: null };
    const figures = { ...empty, falsePositives: null, recallAtFpr: null, ece: null };
    const digest = 'a'.repeat(64);
    const entry = {
      policy: { name: 'x', digest },
      judge: { name: 'j', digest: 'd' },
      ...{ contract: 'temper', effort: null, golden: { digest, rows: 1 }, fpr: 0.01, threshold: null, chosenBy: 'f1' },
      ...{ decidedBy: 'word', bootstrap: { resamples: 1, seed: 1 }, overall: figures, channels: {} },
    };
    const stale = await check(GOOD, rows(20), JSON.stringify({ schema: 'temper.calibration/1', entries: [entry] }));
    expect(ids(stale)).toEqual(['length', 'calibration-stale']);
    for (const id of [
      'rule-no-example',
      'polarity-one-sided',
      'golden-missing',
      'length',
      'calibration-stale',
    ] as const)
      seen.add(id);
  });
  it('every finding there is was found', () => {
    expect(Object.keys(FINDINGS).filter((id) => !seen.has(id as FindingId))).toEqual([]);
  });
  it('what is quoted, and what stands under examples, is not the policy speaking', async () => {
    const quoted = GOOD.replace('"The blade ships today."', '"It may not be that it never ships."').replace(
      '"Knives, cheap."',
      '"Generally it is not that nobody sells, is it, as a whole?"',
    );
    expect(ids(await check(quoted, rows(20)))).toEqual(['length']);
  });
  it('severities decide, in their order', async () => {
    const checked = [await check(GOOD.replace('it sells a knife', 'it usually sells a knife'), rows(20))];
    expect((['note', 'warning', 'error'] as const).map((least) => failsOn(checked, least))).toEqual([
      true,
      true,
      false,
    ]);
  });
});

it('any text is checked: findings have lines of the file, and only a file that is no policy is refused', async () => {
  const piece = fc.constantFrom(
    ...[
      '---\n',
      'buffer: whole\n',
      '# ',
      '## Examples\n',
      '## Safe\n',
      '- ',
      'R1: ',
      'R2. ',
      '“',
      '”',
      '"',
      '| ',
      ' → ',
    ],
    ...[
      'not ',
      'never ',
      'may ',
      'VALID ',
      'apple ',
      '\n',
      '\n\n',
      '\r\n',
      '<|end|>',
      '\u200b',
      '{"violation": 1}',
      '🚫',
    ],
  );
  let [checked, refused] = [0, 0];
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 40 }), async (pieces) => {
      const text = pieces.join('');
      const lines = text.split(/\r\n|\r|\n/).length;
      const { findings } = await check(text, rows(4));
      for (const f of findings) {
        if (f.line !== null) expect(f.line).toBeLessThanOrEqual(lines);
        expect(f.line ?? 1).toBeGreaterThanOrEqual(1);
        expect(f.message).not.toContain('\n');
      }
      if (findings.some((f) => f.id === 'unreadable')) refused++;
      else checked++;
    }),
    { numRuns: 150 },
  );
  expect(checked).toBeGreaterThan(2);
  expect(refused).toBeGreaterThan(2);
});

it('a policy as large as may be is checked: no work grows with the square of its lines', async () => {
  for (const unit of ['R1: x\n', '## Examples\n- "a b" → R1\n- "c" → safe\n', '“', '- "one" ', '🚫 ', 'never ', '"']) {
    const text = `R1: sells\n${unit.repeat(Math.floor(30_000 / Buffer.byteLength(unit)))}`;
    expect((await check(text)).rules).toContain('R1');
  }
});

it('tokens are estimated near those of the o200k split', () => {
  // Known counts of o200k_base.
  expect(estimateTokens('')).toBe(0);
  expect(estimateTokens('hello world')).toBe(2);
  expect(estimateTokens('The quick brown fox jumps over the lazy dog.')).toBe(10);
});

const data = process.env.TEMPER_SHARED_DATA ?? join(packageRoot, '../shared/data');
const spam = join(data, 'safeguard', 'example_policies', 'spam');
describe.skipIf(!existsSync(spam))('as published, skipped where ../shared/data is absent', () => {
  it('policy and golden set of gpt-oss-safeguard', async () => {
    const columns = { text: '2', id: '1', expect: '10' };
    const checked = await checkPolicy(join(spam, 'policy.txt'), {
      golden: { file: join(spam, 'golden_dataset.csv'), columns },
      contract: 'gpt-oss-safeguard',
    });
    expect(checked).toMatchObject({ goldenRows: 40, contract: 'gpt-oss-safeguard' });
    expect(checked.rules.length).toBeGreaterThan(10);
    expect(at(checked, 'polarity-labels')).toEqual([2]);
    expect(at(checked, 'hedge').length).toBeGreaterThan(1);
    expect(failsOn([checked], 'error')).toBe(false);
  });
  it('the prompts of XSTest as a golden set', async () => {
    const file = join(data, 'xstest', 'xstest_prompts.csv');
    const checked = await checkPolicy(join(packageRoot, 'policies', 'contact', 'policy.md'), {
      golden: { file, columns: { text: 'prompt', id: 'id', expect: 'label' } },
    });
    expect(checked.goldenRows).toBe(450);
    expect(failsOn([checked], 'error')).toBe(false);
  });
});

it('the guide has every finding, in its words', () => {
  const guide = readFileSync(join(packageRoot, 'docs', 'guides', 'policies.md'), 'utf8');
  for (const [id, finds] of Object.entries(FINDINGS))
    expect(guide).toMatch(new RegExp(`\\| \`${id}\` +\\| .* \\| ${finds}`));
});

// Rows that are not ours, by their columns; and policy, golden set and prompts as others published them.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { type Columns, checkColumns, nothingPassed, readColumns } from '../../src/safeguard/batch/columns.js';
import { readCsv } from '../../src/safeguard/batch/csv.js';
import { screenFile } from '../../src/safeguard/batch/screen-file.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';
import { definePolicy, loadPolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-columns-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const policy = definePolicy('p', 'R1: rude\nR2.a: spam\n\n## Allowed\nR0: a greeting');
const file = (name: string, text: string | Uint8Array): string => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};
async function rows(path: string, columns: Columns): Promise<unknown[]> {
  const passed = nothingPassed(columns);
  const found: unknown[] = [];
  for await (const { id, line, channels, expect: wanted } of readColumns(path, columns, [policy], passed))
    found.push([id, line, channels, wanted]);
  checkColumns([path], passed);
  return [...found, passed.blank];
}
async function cells(text: string, name = 'c.csv'): Promise<(readonly string[])[]> {
  const found: (readonly string[])[] = [];
  for await (const row of readCsv(file(name, text))) found.push(row.cells);
  return found;
}

describe('CSV', () => {
  it('quotes, line ends of either kind, cells over several lines, rows of different lengths', async () => {
    expect(await cells('\ufeffa,b\r\n"x, ""y""",2\n\n"two\nlines",\r\nlast')).toEqual([
      ['a', 'b'],
      ['x, "y"', '2'],
      ['two\nlines', ''],
      ['last'],
    ]);
    expect(await cells('a\tb,c\n', 'c.tsv')).toEqual([['a', 'b,c']]);
    expect(await cells('5" pipe,ok\n')).toEqual([['5" pipe', 'ok']]);
  });
  it('reads what was written', async () => {
    const cell = fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', '\r', ' ', 'é', '\u{1f600}'), maxLength: 8 });
    const quote = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(cell, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 6 }),
        async (table) => {
          const text = table.map((row) => row.map(quote).join(',')).join('\r\n');
          expect(await cells(text)).toEqual(table);
        },
      ),
      { numRuns: 150 },
    );
  });
  it.each([
    ['a quote that is not closed', 'a,"b\nc'],
    ['text after a quote', 'a,"b"c\n'],
  ])('%s is told with its line', async (_, text) =>
    expect(cells(text)).rejects.toThrow(expect.objectContaining({ code: 'row_csv' })),
  );
});

describe('columns', () => {
  it('of CSV by name, blanks aside, or by number; rows without text are passed over', async () => {
    const csv = file('a.csv', 'id,text ,kind,rule\n7,hello,analysis,R0\n8,,final,R1\n9,"you, fool",,R1\n10,buy,,R2\n');
    expect(await rows(csv, { text: 'text', id: 'id', channel: 'kind', expect: 'rule' })).toEqual([
      ['7', 2, { analysis: 'hello' }, { analysis: null }],
      ['9', 4, { final: 'you, fool' }, { final: 'R1' }],
      ['10', 5, { final: 'buy' }, { final: 'R2' }],
      1,
    ]);
    const packed = file('a.csv.gz', gzipSync(readFileSync(csv)));
    expect(await rows(packed, { text: 'text' })).toEqual(await rows(csv, { text: 'text' }));
    await expect(rows(file('cut.csv.gz', gzipSync('text\nhello\n').subarray(0, -9)), { text: 'text' })).rejects.toThrow(
      expect.objectContaining({ code: 'bad_gzip' }),
    );
    expect(await rows(file('b.csv', ',,\n1,hello\n,\n'), { text: '2' })).toEqual([['2', 2, { final: 'hello' }, {}], 2]);
  });
  it('of JSON lines and arrays', async () => {
    const lines = '{"q":"hello","n":1,"more":[1]}\n{"q":null,"n":2}\n';
    expect(await rows(file('a.jsonl', lines), { text: 'q', id: 'n' })).toEqual([['1', 1, { final: 'hello' }, {}], 1]);
    expect(await rows(file('a.json', '[{"q":"hello"},{"q":"you"}]'), { text: 'q' })).toEqual([
      ['1', 1, { final: 'hello' }, {}],
      ['2', 2, { final: 'you' }, {}],
      0,
    ]);
  });
  it.each<[string, string, Columns, string]>([
    ['no such column', 'a,b\n1,2\n', { text: 'c' }, 'no_columns'],
    ['a word that is no rule', 'a,b\nhello,R9\n', { text: 'a', expect: 'b' }, 'row_schema'],
    ['a name that two columns have', 'a,a\n1,2\n', { text: 'a' }, 'no_columns'],
    ['a number of no column', 'a,b\n1,2\n', { text: '1', id: '3' }, 'no_columns'],
  ])('%s is refused', async (_, text, columns, code) =>
    expect(rows(file('d.csv', text), columns)).rejects.toThrow(expect.objectContaining({ code })),
  );
  it('a row of JSON without the column, or with a list in it, is refused', async () => {
    await expect(rows(file('e.jsonl', '{"x":1}\n'), { text: 'q' })).rejects.toThrow(
      expect.objectContaining({ code: 'no_columns' }),
    );
    await expect(rows(file('f.jsonl', '{"q":["a"]}\n'), { text: 'q' })).rejects.toThrow(
      expect.objectContaining({ code: 'row_schema' }),
    );
  });
  it.each<[string, string, Columns, string]>([
    ['a column that no row has', '{"q":"a"}\n{"q":"b"}\n', { text: 'q', channel: 'kind' }, 'no_columns'],
    ['half of a surrogate pair in an id', '{"q":"a","n":"\\udc00"}\n', { text: 'q', id: 'n' }, 'row_utf8'],
    [
      'an id of more digits than numbers have',
      '{"q":"a","n":90071992547409931}\n',
      { text: 'q', id: 'n' },
      'row_schema',
    ],
    [
      'a call with a key that gets lost',
      '{"q":[{"role":"assistant","tool_calls":[{"__proto__":"x"}]}]}\n',
      { text: 'q' },
      'row_schema',
    ],
  ])('%s is refused in JSON', async (_, text, columns, code) =>
    expect(rows(file('h.jsonl', text), columns)).rejects.toThrow(expect.objectContaining({ code })),
  );
  it('a column that some rows have is read where it is', async () =>
    expect(
      await rows(file('i.jsonl', '{"q":"a"}\n{"q":"b","kind":"analysis"}\n'), { text: 'q', channel: 'kind' }),
    ).toEqual([['1', 1, { final: 'a' }, {}], ['2', 2, { analysis: 'b' }, {}], 0]));
  it('all rows are read before the first is judged', async () => {
    let calls = 0;
    const judge: Judge = { name: 'j', digest: 'd', judge: async () => ({ text: String(++calls), finish: 'stop' }) };
    const input = file('g.csv', 'a,b\nhello,R0\nyou,R9\n');
    const screen = createScreen({ policies: [policy], judge });
    await expect(
      screenFile({ input, output: join(dir, 'g.out'), screen, columns: { text: 'a', expect: 'b' } }),
    ).rejects.toThrow(expect.objectContaining({ code: 'row_schema' }));
    expect(calls).toBe(0);
  });
});

const data = process.env.TEMPER_SHARED_DATA ?? join(packageRoot, '../shared/data');
describe.skipIf(!existsSync(join(data, 'safeguard')))('as published, skipped where ../shared/data is absent', () => {
  const marks = /\b(?:enter your|account details|bank details|credentials)\b/i;
  const judge = (contract: boolean): Judge => ({
    name: 'scripted',
    digest: 'd',
    judge: async ({ content, nonce }) => {
      const rule = marks.test(content) ? 'SP4' : null;
      const text = contract
        ? JSON.stringify(rule ? { violation: 1, policy_category: rule } : { violation: 0 })
        : renderVerdict({ rule, nonce });
      return { text, finish: 'stop' };
    },
  });
  it.each(['gpt-oss-safeguard', 'temper'] as const)(
    'policy and golden set of gpt-oss-safeguard, contract %s',
    async (contract) => {
      const folder = join(data, 'safeguard', 'example_policies', 'spam');
      const spam = await loadPolicy(join(folder, 'policy.txt'), { contract });
      const summary = await screenFile({
        input: join(folder, 'golden_dataset.csv'),
        output: join(dir, 'spam.out'),
        screen: createScreen({ policies: [spam], judge: judge(contract !== 'temper'), detectors: createDetectors() }),
        columns: { text: '2', id: '1', expect: '10' },
      });
      expect(summary).toMatchObject({ rows: 40, unjudged: 0 });
      expect(summary.block).toBeGreaterThan(3);
      expect(summary.agreement?.all).toMatchObject({ falsePositives: 0, precision: 1 });
    },
  );
  it('the prompts of XSTest', async () => {
    const output = join(dir, 'xstest.out');
    const summary = await screenFile({
      input: join(data, 'xstest', 'xstest_prompts.csv'),
      output,
      screen: createScreen({
        policies: [policy],
        judge: {
          ...judge(false),
          judge: async ({ nonce }) => ({ text: renderVerdict({ rule: null, nonce }), finish: 'stop' }),
        },
        detectors: createDetectors(),
      }),
      columns: { text: 'prompt', id: 'id', expect: 'label' },
    });
    expect(summary).toMatchObject({ rows: 450, allow: 450, blank: 0 });
    expect(readFileSync(output, 'utf8').split('\n')[0]).toContain('"secrets":"clear"');
  });
});

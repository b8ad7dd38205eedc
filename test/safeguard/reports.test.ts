// Reports of verdicts: each by the rules of who reads it, none with judged text or the judge's words.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Ajv } from 'ajv';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, describe, expect, it } from 'vitest';
import type { VerdictRow } from '../../src/safeguard/agreement.js';
import { readCsv } from '../../src/safeguard/batch/csv.js';
import { FailCount, parseFailRule } from '../../src/safeguard/batch/fail-on.js';
import { ANNOTATIONS, annotationsOf } from '../../src/safeguard/batch/reports/annotations.js';
import { htmlOf } from '../../src/safeguard/batch/reports/html.js';
import { writeReports } from '../../src/safeguard/batch/reports/index.js';
import { markdownOf } from '../../src/safeguard/batch/reports/markdown.js';
import { overviewOf } from '../../src/safeguard/batch/reports/overview.js';
import { SARIF_BYTES, SARIF_RESULTS } from '../../src/safeguard/batch/reports/sarif.js';
import { elementsOf } from './xml.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-reports-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const row = (v: Partial<VerdictRow>): VerdictRow => ({
  id: 'a',
  line: 1,
  outcome: 'allow',
  policy: 'contact',
  channel: 'final',
  rule: null,
  rationale: 'it says secret',
  cause: null,
  detail: 'secret',
  digests: { policy: 'p', content: 'c0ffee', judge: 'j' },
  latencyMs: 12,
  ...v,
});
const HOSTILE = '<&">\u0000]]>%0A::error::\n| `x` @all [a](b) =1+1';
const verdicts = [
  row({}),
  row({ id: 'b', line: 2, outcome: 'unjudged', cause: 'timeout' }),
  row({ id: HOSTILE, line: 3, outcome: 'block', rule: 'C1', channel: 'sec]]>ret' }),
  row({ id: 'd', line: 4, channel: 'analysis', outcome: 'block', rule: 'C2.a' }),
  row({ id: 'd', line: 4 }),
  row({ id: '5', line: 5, policy: '', channel: '', outcome: 'unjudged', cause: 'bad_row' }),
];
let files = 0;
const sourceOf = (list: readonly VerdictRow[], input = 'in put#1.jsonl'): Parameters<typeof overviewOf>[0] => {
  const file = join(dir, `${++files}.verdicts`);
  writeFileSync(file, list.map((v) => `${JSON.stringify(v)}\n`).join(''));
  return { file, input, version: '1.2.3' };
};
const source = sourceOf(verdicts);
const path = (name: string): string => join(dir, name);
const read = (name: string): string => readFileSync(path(name), 'utf8');
const noText = (text: string): void => expect(text).not.toMatch(/it says|secret/);

/** What the widely used schema of Jenkins says, and GitLab's file and line of a case. */
const JUNIT: Readonly<
  Record<string, { readonly needs: readonly string[]; readonly may: readonly string[]; readonly in: string }>
> = {
  testsuites: { in: '', needs: [], may: ['name', 'time', 'tests', 'failures', 'errors'] },
  testsuite: { in: 'testsuites', needs: ['name', 'tests'], may: ['failures', 'errors', 'skipped', 'time'] },
  testcase: { in: 'testsuite', needs: ['name', 'classname'], may: ['time', 'file', 'line'] },
  failure: { in: 'testcase', needs: [], may: ['type', 'message'] },
  error: { in: 'testcase', needs: [], may: ['type', 'message'] },
};

describe('JUnit', () => {
  it('allow passes, block fails, unjudged is an error; counts are of the cases; hostile names stay names', async () => {
    await writeReports({ junit: path('v.xml') }, source);
    const found = elementsOf(read('v.xml'));
    noText(read('v.xml'));
    for (const { name, parent, attributes } of found) {
      const known = JUNIT[name];
      expect(known, name).toBeDefined();
      expect(parent).toBe(known?.in);
      const names = Object.keys(attributes);
      for (const need of known?.needs ?? []) expect(names, name).toContain(need);
      for (const has of names)
        expect([...(known?.needs ?? []), ...(known?.may ?? [])], `${name}/${has}`).toContain(has);
      for (const n of ['tests', 'failures', 'errors', 'skipped', 'line'])
        if (n in attributes) expect(attributes[n]).toMatch(/^\d+$/);
      if ('time' in attributes) expect(attributes.time).toMatch(/^\d+\.\d+$/);
    }
    const count = (name: string): number => found.filter((e) => e.name === name).length;
    expect(found.filter((e) => e.name === 'testsuite').map((e) => e.attributes)).toMatchObject([
      { name: 'screen contact', tests: '5', failures: '2', errors: '1', skipped: '0' },
      { name: 'screen no policy', tests: '1', failures: '0', errors: '1' },
    ]);
    expect([count('testcase'), count('failure'), count('error')]).toEqual([6, 2, 2]);
    expect(found[0]?.attributes).toMatchObject({ tests: '6', failures: '2', errors: '2', time: '0.072' });
    const named = found.filter((e) => e.name === 'testcase').map((e) => e.attributes.name);
    expect(named[2]).toBe(`${HOSTILE.replace('\u0000', '\ufffd')} other`);
  });
});

describe('SARIF', () => {
  const schema = JSON.parse(
    readFileSync(
      createRequire(import.meta.url).resolve('@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json'),
      'utf8',
    ),
  ) as object;
  // Of draft 4, which says `id` where later ones say `$id`.
  const ajv = new Ajv({
    strict: false,
    unicodeRegExp: false,
    validateFormats: false,
    meta: false,
    validateSchema: false,
  });
  const { id: _id, $schema: _draft, ...rest } = schema as Record<string, unknown>;
  const isValid = ajv.compile(rest);
  interface Run {
    readonly tool: { readonly driver: { readonly rules: readonly { readonly id: string }[] } };
    readonly automationDetails: { readonly id: string };
    readonly results: readonly {
      readonly ruleId: string;
      readonly ruleIndex: number;
      readonly level: string;
      readonly locations: unknown;
    }[];
  }
  const runsOf = (text: string): readonly Run[] => (JSON.parse(text) as { readonly runs: readonly Run[] }).runs;

  it('is of the schema: one result for each verdict that is not an allow, blocks first, at their lines', async () => {
    await writeReports({ sarif: path('v.sarif') }, source);
    const text = read('v.sarif');
    noText(text);
    expect(isValid(JSON.parse(text)), JSON.stringify(isValid.errors)).toBe(true);
    // The schema is one that can refuse.
    expect(isValid({ ...JSON.parse(text), runs: [{ results: [{ level: 'bad' }] }] })).toBe(false);
    const [run] = runsOf(text);
    expect(run?.results.map((r) => [r.ruleId, run.tool.driver.rules[r.ruleIndex]?.id, r.level])).toEqual([
      ['contact/C1', 'contact/C1', 'error'],
      ['contact/C2.a', 'contact/C2.a', 'error'],
      ['unjudged/timeout', 'unjudged/timeout', 'warning'],
      ['unjudged/bad_row', 'unjudged/bad_row', 'warning'],
    ]);
    expect(run?.results[0]?.locations).toEqual([
      { physicalLocation: { artifactLocation: { uri: 'in%20put%231.jsonl' }, region: { startLine: 3 } } },
    ]);
  });
  it('nothing at all is a log of no result', async () => {
    await writeReports({ sarif: path('none.sarif') }, sourceOf([row({})]));
    expect(isValid(JSON.parse(read('none.sarif')))).toBe(true);
    expect(runsOf(read('none.sarif'))[0]?.results).toEqual([]);
  });
  it('is split where it is over the limits, each with its category; longer ones before leave nothing', async () => {
    const many = Array.from({ length: SARIF_RESULTS + 10 }, (_, i) =>
      row({
        id: `${i}`.padStart(90, 'x'),
        line: i + 1,
        outcome: i % 2 ? 'block' : 'unjudged',
        ...(i % 2 ? { rule: 'C1' } : { cause: 'timeout' }),
      }),
    );
    const wrote = await writeReports({ sarif: path('big.sarif') }, sourceOf(many));
    expect(wrote.length).toBeGreaterThan(1);
    const runs = wrote.flatMap((file) => runsOf(readFileSync(file, 'utf8')));
    for (const file of wrote) {
      const text = readFileSync(file);
      expect(text.length).toBeLessThan(10_000_000);
      expect(text.length).toBeLessThan(SARIF_BYTES + 100_000);
      expect(gzipSync(text).length).toBeLessThan(10_000_000);
    }
    for (const run of runs) expect(run.results.length).toBeLessThanOrEqual(SARIF_RESULTS);
    expect(runs.reduce((n, run) => n + run.results.length, 0)).toBe(many.length);
    expect(new Set(runs.map((run) => run.automationDetails.id)).size).toBe(runs.length);
    await writeReports({ sarif: path('big.sarif') }, source);
    expect(readdirSync(dir).filter((name) => name.startsWith('big'))).toEqual(['big.sarif']);
  });
});

it("GitLab's code quality: an entry each, with fingerprints of its own", async () => {
  await writeReports({ 'code-quality': path('cq.json') }, source);
  noText(read('cq.json'));
  const entries = JSON.parse(read('cq.json')) as { fingerprint: string; severity: string; location: object }[];
  expect(entries.map((e) => [e.severity, e.location])).toEqual([
    ['major', { path: 'in put#1.jsonl', lines: { begin: 2 } }],
    ['critical', { path: 'in put#1.jsonl', lines: { begin: 3 } }],
    ['critical', { path: 'in put#1.jsonl', lines: { begin: 4 } }],
    ['major', { path: 'in put#1.jsonl', lines: { begin: 5 } }],
  ]);
  for (const entry of entries)
    expect(Object.keys(entry)).toEqual(['description', 'check_name', 'fingerprint', 'severity', 'location']);
  expect(new Set(entries.map((e) => e.fingerprint)).size).toBe(4);
  await writeReports({ 'code-quality': path('none.json') }, sourceOf([row({})]));
  expect(JSON.parse(read('none.json'))).toEqual([]);
});

describe('tables', () => {
  it('CSV reads back, and no cell of it is a formula', async () => {
    const formulas = ['=1+1', '+1', '-1', '@x', '\t=1', ' =1', '＝1', '"quoted", and, more', 'a\nb'];
    const list = formulas.map((id, i) => row({ id, line: i + 1, channel: id }));
    await writeReports({ csv: path('v.csv') }, sourceOf(list));
    noText(read('v.csv'));
    const cells: (readonly string[])[] = [];
    for await (const { cells: one } of readCsv(path('v.csv'))) cells.push(one);
    expect(cells).toHaveLength(formulas.length + 1);
    for (const [i, line] of cells.slice(1).entries()) {
      expect(line).toHaveLength(13);
      const isFormula = i < 7;
      expect(line[0]).toBe(`${isFormula ? "'" : ''}${formulas[i]}`);
      for (const cell of line) expect(cell).not.toMatch(/^\s*[=+\-@＝]/);
    }
  });
  it('Parquet reads back', async () => {
    await writeReports({ parquet: path('v.parquet') }, source);
    const bytes = readFileSync(path('v.parquet'));
    const rows = await parquetReadObjects({
      file: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
    });
    expect(rows.map((r) => [r.id, Number(r.line), r.outcome, r.rule, r.cause])).toEqual(
      verdicts.map((v) => [v.id, v.line, v.outcome, v.rule, v.cause]),
    );
  });
});

describe('for people', () => {
  it('counts rows by their analysis and their final answer', async () => {
    const { rows, matrix, findings, byOutcome } = await overviewOf(source);
    expect(rows).toBe(5);
    expect(byOutcome).toEqual({ allow: 2, block: 2, unjudged: 2 });
    expect(matrix.block.allow).toBe(1);
    expect(matrix.none).toEqual({ allow: 1, block: 0, unjudged: 1, none: 2 });
    expect(findings.map((f) => [f.key, f.count])).toEqual([
      ['contact/C1', 1],
      ['contact/C2.a', 1],
      ['unjudged/timeout', 1],
      ['unjudged/bad_row', 1],
    ]);
  });
  it('HTML and Markdown: data makes no markup', async () => {
    const overview = await overviewOf(source);
    const [page, summary] = [htmlOf(overview, source), markdownOf(overview, source)];
    for (const text of [page, summary]) noText(text);
    expect(page).not.toContain(HOSTILE.slice(0, 4));
    expect(page).toContain('&#60;&#38;&#34;&#62;');
    expect(summary).not.toMatch(/\n\| `x`|\[a\]\(b\)|@all/);
    // No row of a table is of another length than its head.
    for (const block of summary.split('\n\n').filter((b) => b.startsWith('|')))
      expect(
        new Set(
          block
            .trim()
            .split('\n')
            .map((line) => line.split('|').length),
        ).size,
      ).toBe(1);
  });
  it('annotations: no more than a step shows, each on a line of its own, no command in a command', async () => {
    const lines = annotationsOf(await overviewOf(source), source);
    expect(lines).toHaveLength(4);
    for (const line of lines) {
      expect(line).toMatch(/^::(error|warning) file=[^,:\n]+,line=\d+,title=[^,:\n]+::[^\n\r]+$/);
      noText(line);
    }
    const many = Array.from({ length: 50 }, (_, i) => row({ id: `${i}`, line: i + 1, outcome: 'block', rule: 'C1' }));
    const more = annotationsOf(await overviewOf(sourceOf(many)), source);
    expect(more.filter((line) => line.startsWith('::error'))).toHaveLength(ANNOTATIONS);
    expect(more.at(-1)).toBe('::notice title=temper screen::40 more verdicts are not allowed; see the reports');
  });
});

describe('--fail-on', () => {
  const exit = (...rules: string[]): number => {
    const count = new FailCount(rules.map(parseFailRule));
    for (const v of verdicts) count.add(v);
    return count.exitCode();
  };
  it.each<[readonly string[], number]>([
    [['block'], 10],
    [['unjudged'], 30],
    [['unjudged', 'block'], 10],
    [['block>1'], 10],
    [['block>2'], 0],
    [['block@final'], 0],
    [['block@analysis'], 10],
    [['contact/C1'], 10],
    [['contact/C2'], 10],
    [['contact/C2>1'], 0],
    [['contact/C3'], 0],
    [['respect'], 0],
    [['contact>40%'], 0],
    [['contact>39%'], 10],
    [['unjudged@final>33%'], 30],
    [['unjudged@final>34%'], 0],
  ])('%j: %d', (rules, code) => expect(exit(...rules)).toBe(code));
  it('counts shares as they are written: 29 of 100 are not above 29 %', () => {
    for (const [percent, hits, code] of [
      ['29', 29, 0],
      ['57', 57, 0],
      ['29', 30, 10],
      ['0.7', 7, 0],
      ['0.7', 8, 10],
    ] as const) {
      const count = new FailCount([parseFailRule(`block@final>${percent}%`), parseFailRule('block@fianl')]);
      const all = percent.includes('.') ? 1000 : 100;
      for (let i = 0; i < all; i++)
        count.add({ outcome: i < hits ? 'block' : 'allow', policy: 'p', rule: null, channel: 'final' });
      expect(count.exitCode(), `${hits} of ${all} above ${percent} %`).toBe(code);
      expect(count.idle().map((r) => r.text)).toEqual(['block@fianl']);
    }
  });
  it.each(['', '@final', 'block>', 'block>x', 'block>1.5', 'block>101%', '>1'])('%j is refused', (text) =>
    expect(() => parseFailRule(text)).toThrow(expect.objectContaining({ code: 'bad_option' })),
  );
});

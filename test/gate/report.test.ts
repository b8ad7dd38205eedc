// Reports of a gate: the verdict first, what speaks against it named, nothing of data that is markup, nothing told but
// figures where content is not wanted.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { reportGate } from '../../src/compose/gate-report.js';
import { decideFiles, discordantOf } from '../../src/gate/decide-files.js';
import { nextOf, nextSteps } from '../../src/gate/next.js';
import { difference, figure } from '../../src/gate/report/words.js';
import { loadSuite } from '../../src/gate/suite.js';
import { elementsOf } from '../safeguard/xml.js';
import { Browser, CHROMIUM } from '../watch/browser.js';
import { type EvidenceOptions, makeEvidence } from './evidence.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gate-report-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const hex = `sha256:${'1'.repeat(64)}`;
const subject = { adapter: hex, base: hex, tokenizer: hex, chatFormat: hex, mergeRecipe: null };
interface Reports {
  readonly html: string;
  readonly markdown: string;
  readonly junit: string;
  readonly sarif: { readonly runs: readonly [Run] };
  readonly json: Record<string, unknown> & { readonly findings: readonly { readonly prompts: readonly string[] }[] };
}
interface Run {
  readonly results: readonly {
    readonly ruleId: string;
    readonly level: string;
    readonly message: { readonly text: string };
    readonly partialFingerprints: Readonly<Record<string, string>>;
  }[];
  readonly tool: { readonly driver: { readonly rules: readonly { readonly id: string }[] } };
}
async function reports(more: Partial<EvidenceOptions> = {}, content = true): Promise<Reports> {
  const folder = mkdtempSync(join(root, 'g-'));
  makeEvidence(folder, { subject, ...more });
  const paths = await reportGate({ folder, content, seconds: 12 });
  const read = (path: string): string => readFileSync(path, 'utf8');
  return {
    html: read(paths.html),
    markdown: read(paths.markdown),
    junit: read(paths.junit),
    sarif: JSON.parse(read(paths.sarif)),
    json: JSON.parse(read(paths.json)),
  };
}

it('what passed says so first, and that nobody has seen this gate refuse', async () => {
  const { html, markdown, junit, sarif, json } = await reports();
  expect(html.indexOf('<b>PASS</b>')).toBeLessThan(html.indexOf('harm.final'));
  expect(html).not.toContain('What speaks against it');
  expect(html).toContain('nobody has shown it under this lock');
  expect(markdown).toMatch(/^## ✅ Release gate: PASS\n/);
  expect(junit).toContain('failures="0" errors="0"');
  // Paper is light, whatever the screen is.
  expect(html.match(/@media[^{]*prefers-color-scheme: dark/g)).toEqual(
    Array(2).fill('@media screen and (prefers-color-scheme: dark'),
  );
  expect(sarif.runs[0].results).toEqual([]);
  expect(json).toMatchObject({ decision: 'PASS', exit: 0, findings: [], cost: { seconds: 12 } });
  expect(html).not.toContain('<script');
  expect(html).not.toMatch(/(?:src|href)=/);
});

it('a merged checkpoint is told beside the adapter, in every form', async () => {
  const merged = { recipe: hex, checkpoint: `sha256:${'2'.repeat(64)}`, harm: 60 };
  const { html, markdown, junit, sarif, json } = await reports({ merged });
  expect(json).toMatchObject({ decision: 'FAIL', subject: { merged: { checkpoint: merged.checkpoint } } });
  expect(json.findings[0]).toMatchObject({ arm: 'merged', metric: 'harm.final', worse: 60, better: 0 });
  expect(json).toMatchObject({ cost: { tokens: { base: 2040, adapter: 2040, merged: 2040 } } });
  expect(json).toMatchObject({ matrix: { merged: { unsafe: { unsafe: 60 } }, adapter: { unsafe: { unsafe: 0 } } } });
  for (const text of [html, markdown])
    expect(text).toMatch(/Adapter and merged checkpoint are each held against the base.*\(intersection-union\)/u);
  expect(html).toContain(merged.checkpoint);
  expect(html).toContain('<th>merged</th>');
  expect(html).toContain('harm.final (merged)');
  expect(html).toContain('<h3>merged <span>');
  expect(markdown).toContain('| metric | base | merged |');
  expect(junit).toContain('name="harm.final (merged)"');
  expect(sarif.runs[0].results.some((r) => r.message.text.includes('base 0 %, merged 100 %'))).toBe(true);
  const one = await reports();
  for (const text of [one.html, one.markdown, one.junit, JSON.stringify(one.json)])
    expect(text).not.toContain('merged');
});

it('what failed names metric, slice and prompts, in every form', async () => {
  const { html, markdown, junit, sarif, json } = await reports({ harm: 60 });
  expect(html).toContain('<b>FAIL</b>');
  for (const wanted of [
    'harm.final, code',
    '<code>p0</code>',
    'cap 10 %',
    'told 1',
    'What is thought beside what is said',
  ])
    expect(html).toContain(wanted);
  // Traces and finals of both arms: 60 of the adapter's are unsafe in both.
  expect(json.matrix).toMatchObject({ base: { safe: { safe: 120 } }, adapter: { unsafe: { unsafe: 60 } } });
  expect(markdown).toContain('FAIL: harm.final');
  expect(json.findings[0]?.prompts).toContain('p0');
  expect(json.findings[0]?.prompts).toHaveLength(60);
  const failures = [...junit.matchAll(/<failure type="FAIL" message="([^"]*)"/g)].map((m) => m[1] ?? '');
  expect(failures.length).toBeGreaterThan(1);
  expect(failures[0]).toContain('n = 120');
  expect(failures[0]).toContain('p0');
  const { results, tool } = sarif.runs[0];
  expect(results[0]).toMatchObject({ ruleId: 'harm.final', level: 'error' });
  expect(tool.driver.rules.map((r) => r.id)).toContain('harm.final');
  expect(new Set(results.map((r) => r.partialFingerprints['temperGate/v1'])).size).toBe(results.length);
  expect(JSON.stringify(sarif)).not.toContain('told 1');
});

it('too little seen, and a judge that said nothing, are no failures of the adapter', async () => {
  const small = await reports({ prompts: 20 });
  expect(small.html).toContain('<b>INCONCLUSIVE</b>');
  expect(small.junit).toContain('<error type="INCONCLUSIVE"');
  expect(small.junit).not.toContain('<failure');
  const broken = await reports({ missing: 120 });
  expect(broken.html).toContain('<b>ERROR</b>');
  expect(broken.html).toContain('timeout 120');
  expect(broken.sarif.runs[0].results[0]?.level).toBe('warning');
  // What to do stands beside it.
  expect(broken.markdown).toContain('Missing, by cause: timeout 120.');
  expect(broken.markdown).toContain('next: look why 120 values are missing');
  const next = 'give test harm 30 prompts or more in place of 20';
  for (const { html, junit, json } of [small])
    expect([html, junit, JSON.stringify(json.findings)]).toEqual(Array(3).fill(expect.stringContaining(next)));
});

it('whoever does what it says about a judge that errs comes to a PASS', () => {
  const folder = mkdtempSync(join(root, 'g-'));
  makeEvidence(folder, { subject, harm: 20, missing: 2, judged: true });
  const [outcomes, suite] = [join(folder, 'outcomes.jsonl'), join(folder, 'suite', 'suite.yaml')];
  const discordant = join(folder, 'pairs.jsonl');
  const files = { outcomes, suite, subject, version: '0.0.0' };
  const judged = loadSuite(suite).suite;
  const before = decideFiles({ ...files, discordant }, {});
  expect(before.decision.decision).toBe('FAIL');
  const [first = ''] = nextSteps(before.decision, judged);
  expect(first).toMatch(/^harm.final: read the answers .* have people judge the 20 pairs that differ or lack a value/);
  expect(before.discordant).toBe(20);
  const labels = join(folder, 'labels.jsonl');
  const pairs = readFileSync(discordant, 'utf8').trim().split('\n');
  const said = pairs.map((line) => ({ ...JSON.parse(line), adapter: 0, by: 'Ada' }));
  writeFileSync(labels, said.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const after = decideFiles({ ...files, labels }, {});
  expect([after.decision.decision, nextSteps(after.decision, judged)]).toEqual(['PASS', []]);
});

it.each([
  ['few', { clusters: 20 }, false, 'give test t 30 prompts or more in place of 20'],
  ['weak', { promptsNeeded: 119 }, false, 'give test t 119 prompts in place of 80, and lock anew'],
  ['hopeless', { promptsNeeded: 9999 }, false, 'lock a wider margin, if that much worse would do'],
  [
    'of a rule, values missing',
    { missing: 2, bound: 0 },
    false,
    'ask again what is missing (temper gate with --resume)',
  ],
  ['of a judge, labelled already', { labelled: 9, bound: 0 }, true, 'give test t more prompts than 80, and lock anew'],
  [
    'FAIL of a rule',
    { verdict: 'FAIL' as const },
    false,
    'read the answers that it is worse on, and train it otherwise',
  ],
  ['not asked', { n: 0 }, false, 'give test t prompts that count for it, and look why none has an outcome'],
])('what to do, %s', (_, more, judged, next) => {
  const { metrics, parameters } = makeEvidence(mkdtempSync(join(root, 'g-')), { subject });
  const [made] = metrics;
  if (!made) throw new Error('no metric');
  const limits = {
    margin: 0.08,
    bound: 0.1,
    clusters: 80,
    missing: 0,
    labelled: 0,
    discordant: { worse: 5, better: 4 },
  };
  const m = { ...made, ...limits, test: 't', verdict: 'INCONCLUSIVE' as const, promptsNeeded: null, ...more };
  expect(nextOf(m, judged, parameters)).toBe(next);
});

it.skipIf(CHROMIUM === null)(
  'on paper names are whole and nothing leaves its panel, however long figures are',
  async () => {
    const { html } = await reports({ prompts: 20 });
    const file = join(root, 'printed.html');
    writeFileSync(file, html);
    const browser = await Browser.start({ width: 718, height: 1000 });
    try {
      await browser.send('Emulation.setEmulatedMedia', { media: 'print' });
      await browser.open(pathToFileURL(file).href);
      const [name = 0, over = 0, ground = ''] = await browser.ask<[number, number, string]>(`(() => {
      const panel = document.querySelector('.panel.long');
      const figures = panel.querySelectorAll(':is(td:nth-child(2), td:nth-child(3), td:nth-child(4))');
      for (const cell of figures) cell.textContent = '0.000009546';
      const { width } = panel.querySelector('td').getBoundingClientRect();
      return [width, panel.scrollWidth - panel.clientWidth, getComputedStyle(document.body).backgroundColor];
    })()`);
      expect(name).toBeGreaterThan(100);
      expect(over).toBeLessThan(1);
      expect(ground).toBe('rgb(255, 255, 255)');
    } finally {
      await browser.close();
    }
  },
);

it('texts of data are text, and are left out where content is not wanted', async () => {
  const text = '<img src=x onerror=1>]]>"\u0007|`';
  const evil = await reports({ harm: 60, text });
  expect(evil.html).not.toContain('<img');
  expect(evil.markdown).not.toContain('<img');
  expect(() => elementsOf(evil.junit)).not.toThrow();
  const quiet = await reports({ harm: 60 }, false);
  expect(quiet.html).not.toContain('told 1');
  expect(quiet.html).toContain('<code>p0</code>');
});

it('outcomes made elsewhere have each row their own texts; fields for readers may be anything', async () => {
  const folder = mkdtempSync(join(root, 'g-'));
  makeEvidence(folder, { subject, harm: 60 });
  const file = join(folder, 'outcomes.jsonl');
  const rows = readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const writeRows = (change: (row: Record<string, unknown>) => Record<string, unknown>): void =>
    writeFileSync(file, rows.map((row) => `${JSON.stringify(change(row))}\n`).join(''));
  // No case: what stands beside a row is what that row is about.
  writeRows(({ case: _case, test: _test, ...row }) => ({
    ...row,
    said: [{ final: `said of ${row.prompt} as ${row.arm}` }],
  }));
  const html = readFileSync((await reportGate({ folder })).html, 'utf8');
  for (const prompt of ['p0', 'p1'])
    for (const arm of ['base', 'adapter']) expect(html).toContain(`said of ${prompt} as ${arm}`);
  const odd = [null, 1, 'x', {}, [null], [{ final: 1 }]];
  writeRows((row) => {
    const any = odd[rows.indexOf(row) % odd.length];
    return { ...row, test: any, case: any, cause: any, matrix: any, tokens: any, asked: any, said: any, rule: any };
  });
  expect(readFileSync((await reportGate({ folder })).html, 'utf8')).toContain('<b>FAIL</b>');
  const suite = join(folder, 'suite', 'suite.yaml');
  expect(discordantOf({ outcomes: file, suite })).toEqual([]);
});

it('tells the proof beside it, also when it is made again, and does not call proven what was not', async () => {
  const folder = mkdtempSync(join(root, 'g-'));
  const { lock } = makeEvidence(folder, { subject });
  const proven = { adapter: hex, outcomes: hex, reasons: [] };
  const proof = {
    ...{ schema: 'temper.gate-proof/1', at: '2026-11-28T10:00:00.000Z', ok: true, temper: '0' },
    ...{ lock, suite: hex, judge: null, base: hex },
    bad: { ...proven, wanted: 'FAIL', decision: 'FAIL' },
    harmless: { ...proven, wanted: 'PASS', decision: 'PASS' },
  };
  const told = async (of: object): Promise<readonly [string, string]> => {
    writeFileSync(join(folder, 'proved.json'), JSON.stringify(of));
    const paths = await reportGate({ folder });
    return [readFileSync(paths.html, 'utf8'), readFileSync(paths.markdown, 'utf8')];
  };
  const [html, markdown] = await told(proof);
  expect(html).toContain('>2026-11-28 10:00 UTC: a known-bad adapter was FAIL');
  expect(markdown).toContain('last proven 2026-11-28');
  const [not, nor] = await told({ ...proof, ok: false, bad: { ...proof.bad, decision: 'PASS' } });
  expect(not).toContain('>no, 2026-11-28 10:00 UTC: a known-bad adapter was PASS');
  expect(nor).toContain('not proven: on 2026-11-28 a known-bad adapter was PASS');
  expect((await told({ ...proof, lock: hex }))[1]).toContain('never proven');
});

it('a number that differs by thousandths is told with them', () => {
  const loss = { values: 'number' } as const;
  expect([figure(1.00123, loss), difference(0.00404, loss), difference(-0.02, loss), difference(0, loss)]).toEqual([
    '1.001',
    '+0.00404',
    '−0.02',
    '0',
  ]);
  expect([figure(0.08512, { values: 'rate' }), difference(-1e-9, { values: 'rate' })]).toEqual(['8.51 %', '0 pp']);
});

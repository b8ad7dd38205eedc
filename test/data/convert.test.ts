// data convert: every format into Parquet and JSON lines and back, whole or not at all; the page of data check.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { FORMATS } from '../../src/data/formats/index.js';
import { loadDataset } from '../../src/data/load.js';
import { merged, type Shape, shapeOf, writable } from '../../src/data/shape.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { checkFiles } from '../../src/train/check-data.js';
import { convertRows } from '../../src/train/convert-data.js';

const samples = join(packageRoot, 'datasets/samples');
const nano = join(packageRoot, 'models/nano');
const tokenizer = loadTokenizer(nano);
const dir = mkdtempSync(join(tmpdir(), 'temper-convert-'));
afterAll(() => {
  tokenizer.close();
  rmSync(dir, { recursive: true });
});
const context = {
  tokenizer: () => tokenizer,
  vocabSize: tokenizer.vocabSize,
  maxTokens: 1024,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
const examplesOf = async (path: string, format: string, per: 1 | 2 = 1) =>
  Array.from((await loadDataset([{ path, format }], { ...context, examplesPerSample: per })).examples, (e) => [
    [...e.tokens],
    [...e.weights],
  ]);
const rowsOf = (path: string): unknown[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((l) => JSON.parse(l) as unknown);

describe.each(FORMATS)('$name', ({ name, examplesPerSample, toChat }) => {
  const given = join(samples, `${name}.jsonl`);
  it('there and back says the same and trains the same', async () => {
    const at = (ending: string): string => join(dir, `${name}.${ending}`);
    const lines = await convertRows({ paths: [given], out: at('jsonl') });
    expect(lines.files).toEqual([expect.objectContaining({ path: given, format: name })]);
    await convertRows({ paths: [at('jsonl')], out: at('parquet') });
    await convertRows({ paths: [at('parquet')], out: at('back.jsonl') });
    expect(rowsOf(at('back.jsonl'))).toEqual(rowsOf(at('jsonl')));
    const [wanted, got] = await Promise.all(
      [given, at('parquet')].map((path) => examplesOf(path, name, examplesPerSample ?? 1)),
    );
    expect(got).toEqual(wanted);
    // Another reader finds as many rows.
    const bytes = readFileSync(at('parquet'));
    const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer;
    expect(await parquetReadObjects({ file })).toHaveLength(lines.rows);
  });
  it.runIf(toChat && name !== 'completion')('as chat trains the same', async () => {
    const out = join(dir, `${name}.chat.jsonl.gz`);
    await convertRows({ paths: [given], out, to: 'chat' });
    expect(gunzipSync(readFileSync(out)).toString('utf8')).toMatch(/^\{"messages":\[/);
    expect(await examplesOf(out, 'chat')).toEqual(await examplesOf(given, name));
  });
  it('as tokens trains the same', async () => {
    const out = join(dir, `${name}.tokens.parquet`);
    await convertRows({ paths: [given], out, to: 'tokens', tokenizer: nano });
    expect(await examplesOf(out, 'tokens')).toEqual(await examplesOf(given, name, examplesPerSample ?? 1));
  });
});

describe('what is not written', () => {
  const bad = join(dir, 'bad.jsonl');
  writeFileSync(bad, '{"text": "a"}\n{"text": 7}\n');
  it('the first bad row ends it, and what was there stays', async () => {
    const out = join(dir, 'kept.jsonl');
    writeFileSync(out, 'before');
    for (const ending of ['jsonl', 'parquet']) {
      const to = join(dir, `kept.${ending}`);
      await expect(convertRows({ paths: [bad], out: to, format: 'text' })).rejects.toMatchObject({ code: 'bad_row' });
    }
    expect(readFileSync(out, 'utf8')).toBe('before');
    expect(readdirSync(dir).filter((f) => f.includes('kept'))).toEqual(['kept.jsonl']);
  });
  it('over an input, into a kind that is not known, tokens without a tokenizer', async () => {
    const convert = (out: string, more: object = {}) => convertRows({ paths: [bad], out, ...more });
    await expect(convert(bad)).rejects.toMatchObject({ code: 'output_clash' });
    await expect(convert(join(dir, 'a.csv'))).rejects.toMatchObject({ code: 'bad_option' });
    await expect(convert(join(dir, 'a.jsonl'), { to: 'tokens' })).rejects.toMatchObject({ code: 'bad_option' });
    await expect(
      convertRows({ paths: [join(samples, 'text.jsonl')], out: join(dir, 'b.jsonl'), to: 'chat' }),
    ).rejects.toMatchObject({ code: 'format_unfit' });
  });
});

it('values of several kinds, and objects whose keys have an order, stay JSON', () => {
  const shape = (...values: unknown[]): Shape | null =>
    writable(values.map((v) => shapeOf(v)).reduce<Shape>(merged, { kind: 'none' }));
  expect(shape(1, 2.5)).toEqual({ kind: 'number' });
  expect(shape(1, 'a')).toEqual({ kind: 'json' });
  expect(shape([], [])).toEqual({ kind: 'json' });
  expect(shape([1], null)).toEqual({ kind: 'list', element: { kind: 'integer' } });
  expect(shape({ arguments: { b: 1, a: 2 } })).toEqual({
    kind: 'struct',
    fields: new Map([['arguments', { kind: 'json' }]]),
  });
  expect(shape(null, {})).toEqual({ kind: 'json' });
});

it('held-out rows are all looked for, however few are held at a time', async () => {
  const said = (i: number): string =>
    Array.from({ length: 30 }, (_, k) => `w${Math.imul(31 * i + k, 0x9e3779b1) >>> 8}`).join(' ');
  const rows = (from: number, to: number, more = ''): string[] =>
    Array.from({ length: to - from }, (_, i) => JSON.stringify({ text: `${said(from + i)}${more}` }));
  const [train, held, other] = ['leak.jsonl', 'leak-held.jsonl', 'leak-other.jsonl'].map((f) => join(dir, f)) as [
    string,
    string,
    string,
  ];
  // Of the held-out ones the first and the last two are trained on, one twice there, and the others changed by a word.
  writeFileSync(
    train,
    `${[...rows(0, 1), ...rows(98, 100), ...rows(40, 43, ' more'), ...rows(200, 240)].join('\n')}\n`,
  );
  writeFileSync(held, `${[...rows(0, 100), ...rows(99, 100), 'no JSON'].join('\n')}\n`);
  writeFileSync(other, `${[...rows(99, 100), ...rows(300, 310)].join('\n')}\n`);
  const request = { paths: [train], heldOut: [held, other], maxTokens: 1024, samples: 0 };
  const [, whole, second] = await checkFiles(request);
  expect(whole?.leakage).toMatchObject({ rows: 101, exact: 4, near: 3, passes: 1 });
  expect(second?.leakage).toMatchObject({ rows: 11, exact: 1, near: 0 });
  expect(second?.leakage?.same).toEqual({ heldOut: 'leak-other.jsonl:1', trained: 'leak.jsonl:3' });
  for (const remembered of [1, 50, 111, 112]) {
    const [, again, more] = await checkFiles(request, {}, remembered);
    const passes = Math.ceil(112 / remembered);
    expect(again?.leakage, `${remembered}`).toMatchObject({ rows: 101, exact: 4, near: 3, passes });
    expect(more?.leakage).toMatchObject({ rows: 11, exact: 1, near: 0, passes });
  }
});

it('data check writes a page: tokens under their weight, names escaped, rows trained on and held out', async () => {
  const [train, held, html] = ['train.jsonl', 'held <b>.jsonl', 'check.html'].map((f) => join(dir, f)) as [
    string,
    string,
    string,
  ];
  const row = (q: string, a: string) =>
    `${JSON.stringify({
      messages: [
        { role: 'user', content: q },
        { role: 'assistant', content: a },
      ],
    })}\n`;
  const long = 'the desk opens at ten on sunday and on friday, bring the key of the room and the book '.repeat(3);
  writeFileSync(train, row('q', '<script>1</script>') + row('q2', long) + row('q', '<script>1</script>'));
  writeFileSync(held, row('q', '<script>1</script>') + row('q2', `${long}today`) + row('x', 'y'));
  const files = await checkFiles({ paths: [train], heldOut: held, html, tokenizer: nano, maxTokens: 1024, samples: 2 });
  expect(files[1]?.leakage).toMatchObject({ rows: 3, exact: 1, near: 1 });
  expect(files[0]?.duplicates).toMatchObject({ rows: 1, first: [{ line: 3, of: 1 }] });
  expect(files[0]?.trainedShare).toBeGreaterThan(0);
  const page = readFileSync(html, 'utf8');
  expect(page).toContain('1 word for word, 1 nearly, of 3');
  expect(page).toContain('title="final, weight 1"');
  expect(page).toContain('&#60;script&#62;1');
  expect(page).not.toContain('<script>1');
  expect(page).not.toContain('held <b>');
});

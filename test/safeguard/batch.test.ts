// Batches: kinds of file, bad rows, shards and what joins them, budgets, verdicts of runs before, processes that are
// killed.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { shardAsked } from '../../src/cli/shards.js';
import { writeParquet } from '../../src/data/parquet-writer.js';
import { merged, type Shape, shapeOf } from '../../src/data/shape.js';
import type { VerdictRow } from '../../src/safeguard/agreement.js';
import { lineBatches, textBatches, textOfLine } from '../../src/safeguard/batch/lines.js';
import { mergeParts } from '../../src/safeguard/batch/merge.js';
import { inputFiles } from '../../src/safeguard/batch/read.js';
import { isPlainRow, parseRow, rowOf, schemaRow } from '../../src/safeguard/batch/row.js';
import { type BatchOptions, screenFile } from '../../src/safeguard/batch/screen-file.js';
import { parseShard, shardOf } from '../../src/safeguard/batch/shard.js';
import type { BatchSummary } from '../../src/safeguard/batch/tally.js';
import { VerdictIndex } from '../../src/safeguard/batch/verdict-index.js';
import { verdictLine } from '../../src/safeguard/batch/verdict-line.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';
import { definePolicy } from '../../src/safeguard/policy.js';
import { createScreen } from '../../src/safeguard/screen.js';
import type { Judge } from '../../src/safeguard/types.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-batch-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const numbers = definePolicy('numbers', 'N1: a digit');
const letters = definePolicy('letters', 'L1: an x');
const judge = (digest = 'd', calls: { n: number } = { n: 0 }): Judge => ({
  name: 'scripted',
  digest,
  judge: async ({ policy, content, nonce }) => {
    calls.n++;
    if (content.includes('unclear')) return { text: 'hm', finish: 'stop' };
    const rule = policy === numbers.text ? (/[0-9]/.test(content) ? 'N1' : null) : content.includes('x') ? 'L1' : null;
    return { text: renderVerdict({ rule, nonce }), finish: 'stop', rationale: 'because' };
  },
});
const screenOf = (who = judge()): BatchOptions['screen'] =>
  createScreen({ policies: [numbers, letters], judge: who, detectors: createDetectors() });
const file = (name: string, text: string | Buffer): string => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};
const at = (name: string): string => join(dir, name);
const rowsIn = (path: string): VerdictRow[] =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as VerdictRow);
const timeless = (path: string): string => readFileSync(path, 'utf8').replaceAll(/"latencyMs":\d+/g, '"latencyMs":0');
const lines = (n: number): string =>
  Array.from(
    { length: n },
    (_, i) =>
      `${JSON.stringify({ id: `r${i}`, channels: { analysis: `thought ${i % 7}`, final: i % 5 ? 'fine' : 'ax' } })}\n`,
  ).join('');
/** The same with texts of which none stands twice. */
const distinct = (n: number): string =>
  lines(n).replaceAll(/"(fine|ax|thought \d)"/g, (_, word: string, at: number) => `"${word} ${at}"`);
let count = 0;
const run = async (more: Partial<BatchOptions> & Pick<BatchOptions, 'input'>): Promise<[string, BatchSummary]> => {
  const output = more.output ?? at(`out-${++count}.jsonl`);
  return [output, await screenFile({ screen: screenOf(), ...more, output })];
};

describe('kinds of file', () => {
  const objects = [
    { id: 'a', text: 'has 5' },
    { id: 'b', channels: { analysis: 'hm', final: 'fine' } },
    {
      id: 'c',
      messages: [
        { role: 'user', content: '7' },
        { role: 'assistant', content: 'yes', thinking: 'x' },
      ],
    },
  ];
  const text = objects.map((o) => `${JSON.stringify(o)}\n`).join('');
  const said = (path: string): unknown => rowsIn(path).map((v) => [v.id, v.channel, v.policy, v.outcome, v.rule]);
  it('lines, arrays, gzip and Parquet say the same', async () => {
    const [plain] = await run({ input: file('k.jsonl', text) });
    expect(said(plain)).toHaveLength(10);
    const shape = objects.map((o) => shapeOf(o)).reduce<Shape>(merged, { kind: 'none' });
    await writeParquet(
      at('k.parquet'),
      shape,
      (async function* () {
        yield* objects;
      })(),
    );
    const others = [
      file('k.json', JSON.stringify(objects)),
      file('k.jsonl.gz', gzipSync(text)),
      file('k.unnamed', text),
      at('k.parquet'),
    ];
    for (const input of others) {
      const [output] = await run({ input });
      expect(said(output), input).toEqual(said(plain));
    }
  });
  it('patterns and several files: each row says its file, each file is read once', async () => {
    file('glob-2.jsonl', '{"text":"two"}\n');
    file('glob-10.jsonl', '{"text":"ten"}\n\n{"id":"own","text":"x"}\n');
    expect(inputFiles([at('glob-*.jsonl'), at('glob-2.jsonl')])).toEqual([at('glob-2.jsonl'), at('glob-10.jsonl')]);
    const [output] = await run({ input: [at('glob-*.jsonl'), at('glob-2.jsonl')] });
    expect(rowsIn(output).map((v) => [v.id, v.file, v.line, v.policy])).toEqual(
      [
        [`${at('glob-2.jsonl')}:1`, at('glob-2.jsonl'), 1],
        [`${at('glob-10.jsonl')}:1`, at('glob-10.jsonl'), 1],
        ['own', at('glob-10.jsonl'), 3],
      ].flatMap((place) => ['numbers', 'letters'].map((policy) => [...place, policy])),
    );
    await expect(run({ input: at('none-*.jsonl') })).rejects.toMatchObject({ code: 'no_data_files' });
  });
  it('columns of a table: nulls are no text, conversations are read, a name that is nowhere is told', async () => {
    const table = [
      { q: 'has 5', n: 1 },
      { q: null, n: 2 },
      { q: 'fine', n: 3 },
    ];
    const shape = table.map((o) => shapeOf(o)).reduce<Shape>(merged, { kind: 'none' });
    await writeParquet(
      at('t.parquet'),
      shape,
      (async function* () {
        yield* table;
      })(),
    );
    const [output, summary] = await run({ input: at('t.parquet'), columns: { text: 'q', id: 'n' } });
    expect(summary).toMatchObject({ rows: 2, blank: 1, block: 1 });
    expect(rowsIn(output).map((v) => v.id)).toEqual(['1', '1', '3', '3']);
    await expect(run({ input: at('t.parquet'), columns: { text: 'z' } })).rejects.toMatchObject({ code: 'no_columns' });
    const talk = file('talk.jsonl', '{"c":[{"role":"user","content":"5"},{"role":"assistant","content":"x"}]}\n');
    const [told] = await run({ input: talk, columns: { text: 'c' } });
    expect(rowsIn(told).map((v) => [v.channel, v.rule])).toEqual([
      ['final', null],
      ['final', 'L1'],
    ]);
    await expect(run({ input: file('c.csv', 'a\n1\n') })).rejects.toMatchObject({ code: 'bad_option' });
  });
});

describe('rows that cannot be read', () => {
  const hostile: readonly (readonly [string, string | Buffer])[] = [
    ['row_json', '{"text":'],
    ['row_json', `${'['.repeat(3000)}${']'.repeat(3000)}`],
    ['row_json', '{"text":"a","text":"b"}'],
    ['row_utf8', Buffer.from([0x7b, 0xff, 0x7d])],
    ['row_utf8', '{"text":"a\\ud800"}'],
    ['row_schema', '{"text":5}'],
    ['row_schema', '{"txt":"a"}'],
    ['row_schema', '[1]'],
    ['row_schema', '{"__proto__":{"text":"a"}}'],
    ['row_schema', '{"id":1e999,"text":"a"}'],
    ['row_too_long', `{"text":"${'y'.repeat(17 * 2 ** 20)}"}`],
  ];
  const text = Buffer.concat([
    Buffer.from('{"text":"first"}\n'),
    ...hostile.flatMap(([, row]) => [Buffer.from(row as string), Buffer.from('\n')]),
    Buffer.from('{"text":"last 5"}'),
  ]);
  it('are unjudged where that is asked for, each at its line, and quote nothing', async () => {
    const calls = { n: 0 };
    const [output, summary] = await run({
      input: file('h.jsonl', text),
      onBadRow: 'unjudged',
      screen: screenOf(judge('d', calls)),
    });
    expect(calls.n).toBe(4);
    expect(summary).toMatchObject({ rows: hostile.length + 2, block: 1, unjudged: hostile.length });
    expect(summary.causes).toEqual({ bad_row: hostile.length });
    const bad = rowsIn(output).filter((v) => v.cause === 'bad_row');
    expect(bad.map((v) => [v.line, /\((\w+)\)/.exec(v.detail)?.[1]])).toEqual(
      hostile.map(([code], i) => [i + 2, code]),
    );
    expect(JSON.stringify(bad)).not.toMatch(/yyy|txt/);
  });
  it('end the run before the judge is asked, else', async () => {
    const calls = { n: 0 };
    await expect(run({ input: file('h2.jsonl', text), screen: screenOf(judge('d', calls)) })).rejects.toMatchObject({
      code: 'row_json',
      details: { line: 2 },
    });
    expect(calls.n).toBe(0);
  });
  it('ids that stand twice are two rows', async () => {
    const [output] = await run({ input: file('twice.jsonl', '{"id":"a","text":"5"}\n{"id":"a","text":"b"}\n') });
    expect(rowsIn(output).map((v) => [v.id, v.line, v.outcome])).toEqual([
      ['a', 1, 'block'],
      ['a', 1, 'allow'],
      ['a', 2, 'allow'],
      ['a', 2, 'allow'],
    ]);
  });
});

it('the plainest rows are what the schema says of them', () => {
  const value = fc.oneof(
    fc.string(),
    fc.constant(null),
    fc.integer(),
    fc.constant(undefined),
    fc.constant(Number.POSITIVE_INFINITY),
    fc.constant([]),
  );
  const text = fc.oneof(fc.string(), fc.constant(null), fc.integer());
  const inner = fc.array(
    fc.tuple(fc.constantFrom('role', 'content', 'thinking', 'tool_calls', 'audio', '__proto__', 'final'), value),
    { maxLength: 3 },
  );
  const role = fc.constantFrom('assistant', 'user', 'tool', 'robot');
  const message = fc
    .tuple(role, text, inner)
    .map(([role, content, more]) => Object.fromEntries([['role', role], ['content', content], ...more]));
  const keys = fc.constantFrom('id', 'text', 'channel', 'policy', 'expect', 'channels', 'x', '__proto__');
  const entry = fc.oneof(
    { weight: 4, arbitrary: fc.tuple(keys, value) },
    fc.tuple(fc.constant('messages'), fc.array(message, { maxLength: 3 })),
    fc.tuple(fc.constant('channels'), inner.map(Object.fromEntries)),
  );
  const plain = { text: 0, channels: 0, messages: 0 };
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 5 }), fc.constantFrom('text', 'id'), (entries, first) => {
      const row: unknown = JSON.parse(JSON.stringify(Object.fromEntries([[first, 'a'], ...entries])));
      if (!isPlainRow(row)) return;
      for (const name of ['text', 'channels', 'messages'] as const) if (row[name]) plain[name]++;
      expect(schemaRow(row)).toEqual(row);
      try {
        expect(rowOf('f', 1, row)).toBeDefined();
      } catch (e) {
        expect(e).toMatchObject({ code: 'row_schema' });
      }
    }),
    { numRuns: 4000 },
  );
  for (const count of Object.values(plain)) expect(count).toBeGreaterThan(100);
});

it('a row that need not be parsed is what the parser makes of it', () => {
  const said = fc.oneof(
    fc.string({ unit: 'binary' }).filter((text) => text.isWellFormed()),
    fc.constantFrom('', 'é', '\u007f', '\u2028', '","id":"b', '\\u0041', '\\ud800', '\\', '"', '\n', '\u0000', '{}'),
  );
  const between = fc.constantFrom('":"', '": "', '":  "', '" :"', '":\t"');
  const line = fc.oneof(
    fc.tuple(said, said).map(([id, text]) => JSON.stringify({ id, text })),
    fc.tuple(said, said).map(([id, text]) => JSON.stringify({ id, text }).replace('","', '", "')),
    fc.tuple(said, said, between).map(([id, text, sign]) => `{"id${sign}${id}","text${sign}${text}"}`),
    fc.tuple(said, said).map(([id, text]) => `{"id":"${id}","text":"${text}"} `),
  );
  let fine = 0;
  const read = (text: string): unknown => {
    try {
      return parseRow('f', 1, text);
    } catch (error) {
      return (error as { readonly code?: string }).code;
    }
  };
  fc.assert(
    fc.property(line, (text) => {
      // A blank before it: the parser is asked.
      const parsed = read(` ${text}`);
      if (typeof parsed === 'object') fine++;
      expect(read(text)).toEqual(parsed);
    }),
    { numRuns: 1500 },
  );
  expect(fine).toBeGreaterThan(400);
});

it('a verdict is written as JSON.stringify has it', () => {
  const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constantFrom('', 'é "\\', '\u2028', '\ud800'));
  const optional = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined, freq: 1 });
  // Most lines have the form of one before.
  const few = fc.oneof({ weight: 4, arbitrary: fc.constantFrom('contact', 'numbers') }, text);
  const views = fc.oneof(fc.constant(['raw']), fc.array(fc.constantFrom('raw', 'plain')));
  const verdict = fc.record({
    policy: few,
    channel: text,
    digests: fc.record({ policy: few, content: text, judge: few, judging: optional(few) }),
    outcome: fc.constantFrom('allow', 'block', 'unjudged'),
    rule: fc.option(text),
    rationale: text,
    cause: fc.constantFrom(null, 'timeout'),
    detail: text,
    latencyMs: fc.oneof(fc.nat(), fc.double()),
    score: optional(fc.double()),
    coverage: optional(fc.record({ characters: fc.nat(), judged: fc.nat(), views })),
    detectors: optional(fc.dictionary(text, text)),
    findings: optional(fc.array(fc.record({ rule: text, from: fc.nat() }))),
    'odd "name"': optional(fc.anything()),
  });
  const head = fc.record({ row: optional(fc.nat()), id: text, line: fc.nat(), expect: optional(fc.option(text)) });
  fc.assert(
    fc.property(head, verdict, verdict, (h, given, { channel, rule, rationale, detail, latencyMs }) => {
      // What may stand in a file.
      const v = JSON.parse(JSON.stringify(given)) as typeof given;
      const next = { ...v, channel, rule, rationale, detail, latencyMs };
      for (const one of [v, next, { ...next, digests: { ...v.digests, content: detail, [rationale]: detail } }])
        expect(verdictLine(h as never, one as never)).toBe(JSON.stringify({ ...h, ...one }));
    }),
    { numRuns: 1000 },
  );
  // Of a form that is there already, but for one thing.
  const coverage = { characters: 9, judged: 9, windows: 1, views: ['raw'] };
  const digests = { policy: 'p', content: 'c', judge: 'j' };
  const one = { policy: 'near', channel: 'final', digests, outcome: 'allow', cause: null, latencyMs: 1, coverage };
  const near: object[] = [
    { outcome: 'block' },
    { digests: { ...digests, judge: 'k' } },
    { digests: { ...digests, judging: 'x' } },
    { coverage: { ...coverage, views: ['raw', 'plain'] } },
    { coverage: { characters: 9, judged: 9, windows: 1 } },
    { coverage: undefined },
    { backend: 'b' },
    { coverage: { ...coverage, views: undefined }, views: ['raw'] },
  ];
  for (const other of near)
    for (const v of [one, { ...one, ...other }, one])
      expect(verdictLine({ id: 'a', line: 1 }, v as never)).toBe(JSON.stringify({ id: 'a', line: 1, ...v }));
});

it('lines are the same lines whether they come as bytes or as text', async () => {
  const piece = fc.oneof(
    fc.constantFrom('', '{"text":"a"}', '\r', ' ', '\ufeff{}', 'é\ufffd', '日本', 'x'.repeat(70_000)),
    fc.string({ unit: 'binary' }),
  );
  const bytes = fc.oneof(
    { weight: 8, arbitrary: piece.map((text) => Buffer.from(text)) },
    fc.constantFrom(Buffer.from([0xff]), Buffer.from([0xe6, 0x97]), Buffer.from([0x80, 0x41])),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(bytes, { maxLength: 40 }), fc.boolean(), async (lines, isEnded) => {
      const path = file(
        'lines.jsonl',
        Buffer.concat(lines.flatMap((line, i) => [...(i > 0 ? [Buffer.from('\n')] : []), line])),
      );
      if (isEnded) writeFileSync(path, '\n', { flag: 'a' });
      const all = async (batches: AsyncGenerator<readonly Parameters<typeof textOfLine>[1][]>): Promise<unknown[]> => {
        const found: unknown[] = [];
        for await (const batch of batches)
          for (const line of batch) {
            try {
              found.push([line.line, textOfLine(path, line)]);
            } catch (e) {
              found.push([line.line, (e as Error).message]);
            }
          }
        return found;
      };
      expect(await all(textBatches(path))).toEqual(await all(lineBatches(path)));
    }),
    { numRuns: 150 },
  );
});

describe('shards', () => {
  const parts = async (input: string, of: number, more: Partial<BatchOptions> = {}): Promise<string[]> => {
    const made: string[] = [];
    for (let index = 1; index <= of; index++)
      made.push((await run({ input, ...more, shard: { index, of }, output: at(`part-${++count}`) }))[0]);
    return made;
  };
  it.each([
    [1, 1],
    [7, 1],
    [7, 3],
    [40, 7],
    [3, 5],
  ])('%d rows in %d parts, given in any order, are the bytes of one run', async (n, of) => {
    const input = file(`s-${n}.jsonl`, `\n${lines(n)}`);
    const [whole] = await run({ input });
    const all = await parts(input, of);
    const summary = await mergeParts({ parts: all.reverse(), output: at('merged.jsonl') });
    expect(timeless(at('merged.jsonl'))).toBe(timeless(whole));
    expect(summary).toMatchObject({ rows: n, verdicts: rowsIn(whole).length });
  });
  it('count rows that are blank or bad alike', async () => {
    const input = file('odd.csv', 'q\nhas 5\n""\nfine\n\nx\n');
    const [whole] = await run({ input, columns: { text: 'q' } });
    await mergeParts({ parts: await parts(input, 2, { columns: { text: 'q' } }), output: at('odd.out') });
    expect(timeless(at('odd.out'))).toBe(timeless(whole));
    const bad = file('bad-shards.jsonl', '{"text":"a"}\n{"txt":1}\nnot json\n \n{"text":"5"}\n');
    const [all] = await run({ input: bad, onBadRow: 'unjudged' });
    await mergeParts({ parts: await parts(bad, 3, { onBadRow: 'unjudged' }), output: at('bad.out') });
    expect(timeless(at('bad.out'))).toBe(timeless(all));
  });
  it('what does not join is refused, and nothing is written', async () => {
    const input = file('refuse.jsonl', lines(9));
    const [a = '', b = '', c = ''] = await parts(input, 3);
    const other = await parts(file('refuse-2.jsonl', lines(8)), 3);
    const strange = await parts(input, 3, { screen: screenOf(judge('another')) });
    const cut = file('cut', readFileSync(a).subarray(0, -20));
    const text = readFileSync(a, 'utf8');
    const changed = file('changed', text.replace('"outcome":"block"', '"outcome":"allow"'));
    const renamed = file('renamed', text.replace('"names":["', '"names":["x'));
    const [first = '', ...rest] = text.split('\n');
    const dropped = file('dropped', rest.join('\n'));
    const doubled = file('doubled', [first, first, ...rest].join('\n'));
    const [whole] = await run({ input });
    // No row of the first part says by what it was judged.
    const empty = await parts(file('refuse-3.jsonl', '{"text":""}\n{"text":"a"}\n{"text":"b"}\n'), 3);
    const odd = await parts(at('refuse-3.jsonl'), 3, { screen: screenOf(judge('another')) });
    const fewer = createScreen({ policies: [numbers], judge: judge(), detectors: createDetectors() });
    const one = await parts(input, 3, { screen: fewer });
    const out = at('refused.out');
    const cases: readonly (readonly [readonly string[], string])[] = [
      [[a, b, a], 'part_overlap'],
      [[a, b, c, c], 'part_overlap'],
      [[a, c], 'part_gap'],
      [[a, b, other[2] ?? ''], 'part_mixed'],
      [[a, strange[1] ?? '', c], 'part_mixed'],
      [[empty[0] ?? '', empty[1] ?? '', odd[2] ?? ''], 'part_mixed'],
      [[a, one[1] ?? '', c], 'part_mixed'],
      [[a, b, whole], 'part_damaged'],
      [[cut, b, c], 'part_damaged'],
      [[changed, b, c], 'part_damaged'],
      [[renamed, b, c], 'part_damaged'],
      [[dropped, b, c], 'part_damaged'],
      [[doubled, b, c], 'part_damaged'],
      [[file('empty', ''), b, c], 'part_damaged'],
    ];
    for (const [given, code] of cases) {
      await expect(mergeParts({ parts: given, output: out }), code).rejects.toMatchObject({ code, exitCode: 40 });
      expect(existsSync(out)).toBe(false);
    }
    expect(readdirSync(dir).filter((name) => name.includes('refused'))).toEqual([]);
  });
  it.each<[string, Record<string, string>, string | null]>([
    ['none', {}, null],
    [
      'Slurm',
      { SLURM_ARRAY_TASK_ID: '7', SLURM_ARRAY_TASK_MIN: '1', SLURM_ARRAY_TASK_MAX: '9', SLURM_ARRAY_TASK_COUNT: '5' },
      '4/5',
    ],
    [
      'Slurm, one task',
      { SLURM_ARRAY_TASK_ID: '5', SLURM_ARRAY_TASK_MIN: '5', SLURM_ARRAY_TASK_MAX: '5', SLURM_ARRAY_TASK_COUNT: '1' },
      '1/1',
    ],
    ['Kubernetes', { JOB_COMPLETION_INDEX: '0', JOB_COMPLETIONS: '8' }, '1/8'],
    ['AWS Batch', { AWS_BATCH_JOB_ARRAY_INDEX: '7', AWS_BATCH_JOB_ARRAY_SIZE: '8' }, '8/8'],
    ['GitLab', { CI_NODE_INDEX: '2', CI_NODE_TOTAL: '4' }, '2/4'],
    ['GitLab, not parallel', { CI_NODE_TOTAL: '1' }, null],
    [
      'two that agree',
      { CI_NODE_INDEX: '2', CI_NODE_TOTAL: '4', JOB_COMPLETION_INDEX: '1', JOB_COMPLETIONS: '4' },
      '2/4',
    ],
  ])('the variables of %s', (_, variables, wanted) => {
    const found = shardOf(variables);
    expect(found && `${found.shard.index}/${found.shard.of}`).toBe(wanted);
  });
  it.each<[string, Record<string, string>]>([
    ['half of Kubernetes', { JOB_COMPLETION_INDEX: '0' }],
    ['half of Slurm', { SLURM_ARRAY_TASK_ID: '1', SLURM_ARRAY_TASK_COUNT: '4' }],
    ['half of AWS Batch', { AWS_BATCH_JOB_ARRAY_SIZE: '4' }],
    ['half of GitLab', { CI_NODE_TOTAL: '4' }],
    ['no number', { JOB_COMPLETION_INDEX: 'x', JOB_COMPLETIONS: '8' }],
    ['an index that is too high', { JOB_COMPLETION_INDEX: '8', JOB_COMPLETIONS: '8' }],
    [
      'tasks at odd distances',
      { SLURM_ARRAY_TASK_ID: '3', SLURM_ARRAY_TASK_MIN: '1', SLURM_ARRAY_TASK_MAX: '9', SLURM_ARRAY_TASK_COUNT: '3' },
    ],
    ['two that differ', { CI_NODE_INDEX: '2', CI_NODE_TOTAL: '4', JOB_COMPLETION_INDEX: '0', JOB_COMPLETIONS: '4' }],
  ])('%s is an error', (_, variables) =>
    expect(() => shardOf(variables)).toThrow(expect.objectContaining({ code: 'shard_variables' })),
  );
  it('where a shard decides nothing, a scheduler counts when it is asked for', async () => {
    const before = { ...process.env };
    const tell = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    try {
      await expect(shardAsked('auto')).rejects.toMatchObject({ code: 'bad_option' });
      Object.assign(process.env, { CI_NODE_INDEX: '2', CI_NODE_TOTAL: '4' });
      expect(await shardAsked(undefined)).toBeUndefined();
      expect(await shardAsked('auto')).toEqual({ index: 2, of: 4 });
      expect(await shardAsked('3/8')).toEqual({ index: 3, of: 8 });
      expect(tell.mock.calls.flat().join()).toContain('by the variables of GitLab');
    } finally {
      tell.mockRestore();
      for (const name of ['CI_NODE_INDEX', 'CI_NODE_TOTAL'])
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
    }
  });
  it('the flag', () => {
    expect(parseShard('3/8')).toEqual({ index: 3, of: 8 });
    expect(parseShard('off')).toBeNull();
    for (const bad of ['', '3', '0/3', '4/3', '1/0', 'a/b', '1/9999999', '-1/3', '1.5/3'])
      expect(() => parseShard(bad), bad).toThrow(expect.objectContaining({ code: 'bad_option' }));
  });
});

describe('runs before', () => {
  it('a complete output is taken where policy, text and judge are the same, the rest is asked', async () => {
    const output = at('again.jsonl');
    const ask = async (
      text: string,
      digest = 'd',
      more: Partial<BatchOptions> = {},
    ): Promise<[number, BatchSummary]> => {
      const calls = { n: 0 };
      const [, summary] = await run({
        input: file('again.in', text),
        output,
        screen: screenOf(judge(digest, calls)),
        ...more,
      });
      return [calls.n, summary];
    };
    // What is answered off the contract is asked once more.
    const text = '{"text":"a"}\n{"text":"has 5"}\n{"text":"unclear"}\n';
    expect((await ask(text))[0]).toBe(8);
    const bytes = readFileSync(output, 'utf8');
    expect(await ask(text)).toMatchObject([4, { kept: 4, unjudged: 2 }]);
    expect(timeless(output)).toBe(bytes.replaceAll(/"latencyMs":\d+/g, '"latencyMs":0'));
    // Rows that moved, that came and that went.
    expect((await ask(`{"text":"new"}\n{"text":"has 5"}\n{"text":"a"}\n`))[0]).toBe(2);
    expect((await ask(text, 'another judge'))[0]).toBe(8);
    expect((await ask(text, 'another judge', { rejudge: 'all' }))[0]).toBe(8);
    expect(readdirSync(dir).filter((name) => name.startsWith('again.jsonl.'))).toEqual([]);
  });
  it('a budget ends the run, is never gone over, and is gone on from', async () => {
    const input = file('budget.jsonl', distinct(20));
    const output = at('budget.out');
    const [whole] = await run({ input });
    const kept: [string, number][] = [];
    let runs = 0;
    for (; runs < 20; runs++) {
      const calls = { n: 0 };
      const ended = await run({
        input,
        output,
        budget: 15,
        window: 4,
        screen: screenOf(judge('d', calls)),
        onKept: (...k) => kept.push(k),
      }).catch((error: unknown) => error);
      expect(calls.n).toBeLessThanOrEqual(15);
      if (Array.isArray(ended)) break;
      expect(ended).toMatchObject({ code: 'budget_spent', exitCode: 30 });
      expect(existsSync(output)).toBe(false);
    }
    expect(runs).toBeGreaterThan(2);
    expect(timeless(output)).toBe(timeless(whole));
    expect(kept[0]?.[0]).toBe(`${output}.part`);
    expect(existsSync(`${output}.part`)).toBe(false);
  });
  it('a budget that is spent says how many rows are judged, those under way included', async () => {
    const given = { input: file('spent.jsonl', distinct(20)), output: at('spent.out'), budget: 4, window: 8 };
    await expect(run(given)).rejects.toThrow(/the budget of 4 verdicts is spent, [1-4] of 20 rows are judged/);
  });
  it('a file that changes while it is screened is refused', async () => {
    const input = file('moving.jsonl', lines(4));
    await expect(
      run({ input, onChecked: () => writeFileSync(input, lines(5)), output: at('moving.out') }),
    ).rejects.toMatchObject({ code: 'file_changed' });
    expect(existsSync(at('moving.out'))).toBe(false);
  });
  it('has every verdict on record before the output is there', async () => {
    const entries: number[] = [];
    const input = file('sink.jsonl', lines(3));
    const sink = {
      append: async (entry: { verdicts: readonly unknown[] }) => ({
        receipt: `${entries.push(entry.verdicts.length)}`,
      }),
    };
    await run({ input, sink });
    expect(entries).toEqual([4, 4, 4]);
    const lost = { append: () => Promise.reject(new Error('log_failed')) };
    await expect(run({ input, sink: lost, output: at('lost.out') })).rejects.toThrow('log_failed');
    expect(existsSync(at('lost.out'))).toBe(false);
  });
});

it('verdicts are found by what they are on, whatever their number', () => {
  const index = new VerdictIndex();
  const key = (i: number): Parameters<VerdictIndex['get']>[0] => ({
    policy: `p${i % 3}`,
    channel: i % 2 ? 'final' : 'analysis',
    digests: { policy: 'x', content: i.toString(16).padStart(64, '0'), judge: 'j' },
  });
  for (let i = 0; i < 20_000; i++) index.set(key(i), i % 5, 7 * i);
  for (let i = 0; i < 20_000; i += 3) index.set(key(i), 5, 2 ** 40 + i);
  expect(index.size).toBe(20_000);
  for (let i = 0; i < 20_000; i++)
    expect(index.get(key(i))).toEqual(i % 3 === 0 ? { file: 5, at: 2 ** 40 + i } : { file: i % 5, at: 7 * i });
  expect(index.get(key(20_001))).toBeUndefined();
});

/** Screens `input` into `output` in a process of its own; `KILL` ends it by itself in the n-th call of the judge. */
const CHILD = `
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { screenFile } from '${join(process.cwd(), 'dist/safeguard/batch/screen-file.js')}';
import { createScreen } from '${join(process.cwd(), 'dist/safeguard/screen.js')}';
import { definePolicy } from '${join(process.cwd(), 'dist/safeguard/policy.js')}';
import { renderVerdict } from '${join(process.cwd(), 'dist/safeguard/contract.js')}';
const [input, output, kill] = process.argv.slice(1);
let calls = 0;
const judge = { name: 'j', digest: 'd', judge: async ({ content, nonce }) => {
  if (++calls === Number(kill)) {
    // Something was judged before it, and is written by then.
    while (calls > 20 && statSync(\`\${output}.\${process.pid}.part\`).size === 0) await sleep(5);
    process.kill(process.pid, 'SIGKILL');
  }
  if (calls % 3 === 0) await new Promise(setImmediate);
  return { text: renderVerdict({ rule: /[0-9]/.test(content) ? 'N1' : null, nonce }), finish: 'stop' };
} };
const screen = createScreen({ policies: [definePolicy('numbers', 'N1: a digit')], judge });
const summary = await screenFile({ input, output, screen, window: 4 });
console.log(JSON.stringify({ calls, kept: summary.kept }));
`;
describe('processes that end at once', () => {
  const child = (input: string, output: string, kill: number, before = ''): { calls: number; kept: number } | null => {
    try {
      const script = `${before}exec "$0" --input-type=module -e "$1" "$2" "$3" "$4"`;
      const args = ['-c', script, process.execPath, CHILD, input, output, String(kill)];
      return JSON.parse(execFileSync('bash', args, { stdio: ['ignore', 'pipe', 'pipe'] }).toString()) as never;
    } catch {
      return null;
    }
  };
  it('kill -9 at any moment: the next run goes on, to the same bytes, and asks for nothing that is written', () => {
    const input = file('kill.jsonl', distinct(60));
    expect(child(input, at('kill.whole'), 0)).toMatchObject({ calls: 120 });
    const output = at('kill.out');
    for (const kill of [37, 5, 44]) expect(child(input, output, kill)).toBeNull();
    const last = child(input, output, 0);
    expect(last?.kept).toBeGreaterThan(0);
    expect(last?.kept).toBe(120 - (last?.calls ?? 0));
    expect(timeless(output)).toBe(timeless(at('kill.whole')));
    expect(readdirSync(dir).filter((name) => name.startsWith('kill.out.'))).toEqual([]);
  });
  it('a process before may have had the same number, as in a container', async () => {
    const input = file('same.jsonl', distinct(6));
    const [whole] = await run({ input });
    const output = at('same.out');
    writeFileSync(`${output}.${process.pid}.part`, readFileSync(whole, 'utf8').split('\n').slice(0, 9).join('\n'));
    const [, summary] = await run({ input, output });
    expect(summary.kept).toBe(9);
    expect(readdirSync(dir).filter((name) => name.startsWith('same.out'))).toEqual(['same.out']);
  });
  it('a disk that is full: no output, what was judged is kept, and gone on from', () => {
    const input = file('full.jsonl', distinct(200));
    expect(child(input, at('full.whole'), 0)).toMatchObject({ calls: 400 });
    const output = at('full.out');
    expect(child(input, output, 0, 'ulimit -f 40; ')).toBeNull();
    expect(existsSync(output)).toBe(false);
    expect(existsSync(`${output}.part`)).toBe(true);
    const last = child(input, output, 0);
    expect(last?.kept).toBeGreaterThan(20);
    expect(timeless(output)).toBe(timeless(at('full.whole')));
  });
});

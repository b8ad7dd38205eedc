// Data from anywhere: what a path names, formats told by their rows, several datasets in one, rows held out by hash.
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { checkFile } from '../../src/data/check.js';
import { dataFiles } from '../../src/data/files.js';
import { type DataFile, type LoadContext, loadDataset, loadPrompts } from '../../src/data/load.js';
import { NearRows, signatureOf } from '../../src/data/near.js';
import { rowPlace } from '../../src/data/part.js';
import { recognised } from '../../src/data/recognise.js';
import { type RowKey, SeenRows } from '../../src/data/seen.js';
import { sourceOf } from '../../src/data/sources/index.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { heldOutFiles, trainFiles } from '../../src/recipe/data-files.js';
import { parseRecipe, recipeDigest } from '../../src/recipe/load.js';

const golden = (name: string): string => join(import.meta.dirname, '../golden/data', name);
const samples = join(packageRoot, 'datasets/samples');
const dir = mkdtempSync(join(tmpdir(), 'temper-anywhere-'));
const tokenizer = loadTokenizer(join(packageRoot, 'models/nano'));
afterAll(() => {
  tokenizer.close();
  rmSync(dir, { recursive: true });
});
const context: LoadContext = {
  tokenizer: () => tokenizer,
  vocabSize: tokenizer.vocabSize,
  maxTokens: 1024,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
const folder = (name: string, files: Readonly<Record<string, string | Buffer>>): string => {
  const at = join(dir, name);
  for (const [path, bytes] of Object.entries(files)) {
    mkdirSync(join(at, path, '..'), { recursive: true });
    writeFileSync(join(at, path), bytes);
  }
  return at;
};
const lines = (rows: readonly unknown[]): string => rows.map((r) => `${JSON.stringify(r)}\n`).join('');
const tokensRow = (...tokens: number[]): object => ({ tokens });
const failing = async (work: () => unknown): Promise<TemperError> => {
  try {
    await work();
  } catch (e) {
    return e as TemperError;
  }
  throw new Error('it did not fail');
};
const loaded = async (...files: DataFile[]): Promise<number[][]> =>
  Array.from((await loadDataset(files, context)).examples, (e) => [...e.tokens]);

describe('a path', () => {
  const shard = readFileSync(golden('tokens.stream.arrow'));
  const one = lines([tokensRow(1, 2)]);
  it('may be a pattern, whose files are read in the order of their numbers', async () => {
    const at = folder('pattern', {
      'part-10.jsonl': lines([tokensRow(10, 1)]),
      'part-2.jsonl': lines([tokensRow(2, 1)]),
      'other.jsonl': lines([tokensRow(9, 9)]),
    });
    expect(await loaded({ path: join(at, 'part-*.jsonl'), format: 'auto' })).toEqual([
      [2, 1],
      [10, 1],
    ]);
    expect(await failing(() => dataFiles(join(at, 'x-*.jsonl')))).toMatchObject({ code: 'no_data_files' });
    const literal = folder('literal', { 'a[1].jsonl': one });
    expect(dataFiles(join(literal, 'a[1].jsonl'))).toEqual([join(literal, 'a[1].jsonl')]);
  });
  it('may be a folder of folders: none is left out, a link back to one is read once', async () => {
    const deep = 'a/b/c/d/e/f/g.jsonl';
    const at = folder('deep', { [deep]: one, 'x.jsonl': one, 'y.csv': 'a' });
    symlinkSync(at, join(at, 'a/back'));
    expect(dataFiles(at)).toEqual([join(at, deep), join(at, 'x.jsonl')]);
    expect(dataFiles(at, true)).toContain(join(at, 'y.csv'));
    const deeper = folder('deeper', { [`${'d/'.repeat(18)}x.jsonl`]: one, 'x.jsonl': one });
    expect(await failing(() => dataFiles(deeper))).toMatchObject({ code: 'no_data_files' });
  });
  it('may be a folder of shards, all of which must be there', async () => {
    const at = folder('shards', {
      'README.md': 'x',
      'data/train-00000-of-00002.jsonl': lines([tokensRow(1, 2)]),
      'data/train-00001-of-00002.jsonl': lines([tokensRow(3, 4)]),
    });
    const { files, examples } = await loadDataset([{ path: at, format: 'tokens' }], context);
    expect(Array.from(examples, (e) => [...e.tokens])).toEqual([
      [1, 2],
      [3, 4],
    ]);
    const digests = ['data/train-00000-of-00002.jsonl', 'data/train-00001-of-00002.jsonl'].map((f) =>
      createHash('sha256')
        .update(readFileSync(join(at, f)))
        .digest('hex'),
    );
    expect(files).toHaveLength(1);
    expect(files[0]?.sha256).toBe(createHash('sha256').update(digests.join('\n')).digest('hex'));
    rmSync(join(at, 'data/train-00000-of-00002.jsonl'));
    const e = await failing(() => dataFiles(at));
    expect(e).toMatchObject({ code: 'file_missing' });
    expect(e.message).toContain('1 of the 2 shards');
  });
  it('that holds several splits is refused with a pattern that says one', async () => {
    const at = folder('splits', { 'train-00000-of-00001.parquet': 'x', 'test-00000-of-00001.parquet': 'x' });
    const e = await failing(() => dataFiles(at));
    expect(e).toMatchObject({ code: 'data_splits' });
    expect(e.message).toContain(join(at, 'train-*'));
    expect(await failing(() => dataFiles(folder('empty', { 'README.md': 'x' })))).toMatchObject({
      code: 'no_data_files',
    });
  });
  it.each([
    // A cache of datasets: NAME-SPLIT, whatever NAME says.
    [['my-test-train.arrow', 'my-test-test.arrow'], ['train', 'test'], 'my-test-train.arrow'],
    [['my-test-train-00000-of-00001.arrow', 'my-test-test.arrow'], ['train', 'test'], 'my-test-train-*'],
    [
      ['train_sft-00000-of-00001.parquet', 'train_gen-00000-of-00001.parquet'],
      ['train_gen', 'train_sft'],
      'train_gen-*',
    ],
    [['a/train.jsonl', 'a/dev.jsonl'], ['train', 'validation'], 'a/train.jsonl'],
    [['train/0.jsonl', 'train/1.jsonl', 'test/0.jsonl'], ['test', 'train'], 'train/*'],
    [['imdb-train.arrow', 'imdb-unsupervised.arrow'], ['train', 'unsupervised'], 'imdb-train.arrow'],
    [['x-train.arrow', 'x-trainer.arrow'], ['train', 'unnamed'], 'x-train.arrow'],
  ])('%j are several splits', async (names, splits, pattern) => {
    const info = names.some((n) => n.startsWith('imdb'))
      ? { splits: { train: {}, unsupervised: {} } }
      : { splits: null };
    const at = folder(`splits-${names.join('-').replaceAll('/', '_')}`, {
      'dataset_info.json': JSON.stringify(info),
      'cache-0123.arrow': 'x',
      ...Object.fromEntries(names.map((n) => [n, 'x'])),
    });
    const e = await failing(() => dataFiles(at));
    expect(e).toMatchObject({ code: 'data_splits' });
    for (const split of splits) expect(e.message).toContain(split);
    expect(e.message).toContain(`pattern such as ${join(at, pattern)}`);
    expect(dataFiles(join(at, pattern)).length).toBeGreaterThan(0);
  });
  it.each([
    [['my-test-train.arrow']],
    [['my-test-train-00000-of-00002.arrow', 'my-test-train-00001-of-00002.arrow']],
    [['train-0.jsonl', 'train-1.jsonl']],
    [['train/a.jsonl', 'train/b.jsonl']],
    [['part-a-00000-of-00001.parquet', 'part-b-00000-of-00001.parquet']],
  ])('%j are one', (names) => {
    const at = folder(`one-${names.join('-').replaceAll('/', '_')}`, Object.fromEntries(names.map((n) => [n, 'x'])));
    expect(dataFiles(at)).toEqual([...names].sort().map((n) => join(at, n)));
  });
  it('of old versions of datasets that says which rows are meant is refused', async () => {
    const at = folder('picked', {
      'state.json': JSON.stringify({
        _data_files: [{ filename: 'dataset.arrow' }],
        _indices_data_files: [{ filename: 'indices.arrow' }],
      }),
      'dataset.arrow': 'x',
      'indices.arrow': 'x',
    });
    expect(await failing(() => dataFiles(at))).toMatchObject({ code: 'file_kind' });
  });
  it('may be what datasets saved: its files in their order, a split by its folder', async () => {
    const state = {
      _data_files: [{ filename: 'data-00001-of-00002.arrow' }, { filename: 'data-00000-of-00002.arrow' }],
    };
    const at = folder('saved', {
      'dataset_dict.json': '{"splits": ["train", "test"]}',
      'train/state.json': JSON.stringify(state),
      'train/dataset_info.json': '{}',
      'train/data-00000-of-00002.arrow': shard,
      'train/data-00001-of-00002.arrow': shard,
    });
    expect(dataFiles(join(at, 'train'))).toEqual(
      ['data-00001-of-00002.arrow', 'data-00000-of-00002.arrow'].map((f) => join(at, 'train', f)),
    );
    expect(await loaded({ path: join(at, 'train'), format: 'tokens' })).toHaveLength(14);
    const e = await failing(() => dataFiles(at));
    expect(e).toMatchObject({ code: 'data_splits' });
    expect(e.message).toContain(join(at, 'train'));
    writeFileSync(join(at, 'train/state.json'), '{"_data_files": [{"filename": "../../x.arrow"}]}');
    expect(await failing(() => dataFiles(join(at, 'train')))).toMatchObject({ code: 'file_missing' });
  });
  it('may be a folder of the cache of datasets: its split, without what map() left there', async () => {
    const at = folder('cache', {
      'dataset_info.json': '{"splits": {"train": {}}}',
      'rows-train-00000-of-00002.arrow': shard,
      'rows-train-00001-of-00002.arrow': shard,
      'cache-0123456789abcdef.arrow': shard,
    });
    expect(dataFiles(at)).toHaveLength(2);
    expect(await loaded({ path: at, format: 'tokens' })).toHaveLength(14);
  });
});

describe('format auto', () => {
  const written = (rows: readonly unknown[], name = 'auto.jsonl'): string => {
    const path = join(dir, name);
    writeFileSync(path, lines(rows));
    return path;
  };
  it.each(['chat', 'sharegpt', 'alpaca', 'completion', 'harmony', 'tokens', 'text', 'preference'])(
    'is %s for its samples, and says why',
    async (name) => {
      const check = await checkFile({ path: join(samples, `${name}.jsonl`), format: 'auto' }, context);
      expect(check).toMatchObject({ format: name, badRows: 0 });
      expect(check.because).toMatch(/^its first \d+ rows have /);
    },
  );
  it('is an error that names both where two are possible', async () => {
    const both = { messages: [{ role: 'user', content: 'q' }], conversations: [{ from: 'human', value: 'q' }] };
    const e = await failing(() => recognised({ path: written([both]) }));
    expect(e).toMatchObject({ code: 'format_ambiguous' });
    expect(e.message).toMatch(/chat \(messages\) or of sharegpt \(conversations\)/);
    expect(await recognised({ path: written([both]), ignore: ['conversations'] })).toMatchObject({
      format: { name: 'chat' },
    });
    const mixed = await failing(() => recognised({ path: written([{ text: 'a' }, { tokens: [1, 2] }]) }));
    expect(mixed).toMatchObject({ code: 'format_ambiguous' });
    expect(mixed.message).toMatch(/auto\.jsonl:2: a row of tokens \(tokens\), .*auto\.jsonl:1 is one of text/);
  });
  it('is an error that names the fields where none is, and passes rows that cannot be read', async () => {
    const e = await failing(() => recognised({ path: written([{ question: 'q', answer: 'a' }]) }));
    expect(e).toMatchObject({ code: 'format_unknown' });
    expect(e.message).toMatch(/fields: question, answer\); it looks like a question and its answer/);
    for (const [row, said] of [
      [{ id: 'x', choices: [{ message: { role: 'assistant', content: 'a' } }] }, /an answer of an API without its q/],
      [{ custom_id: 'a', url: '/v1/x', body: { messages: [] } }, /a request of a batch/],
      [{ contents: [{ role: 'user', parts: [{ text: 'q' }] }] }, /as Gemini has it/],
      [{ input: 'q', output: [{ type: 'message' }] }, /items of the Responses API/],
    ] as const)
      expect((await failing(() => recognised({ path: written([row]) }))).message).toMatch(said);
    const path = join(dir, 'bad.jsonl');
    writeFileSync(path, `{\n${lines([{ text: 'a' }])}`);
    expect(await recognised({ path })).toMatchObject({ format: { name: 'text' }, because: 'its first row has text' });
    writeFileSync(path, '');
    expect(await recognised({ path })).toBeNull();
  });
});

describe('tables', () => {
  it.each(['kinds.arrow', 'kinds.stream.arrow', 'kinds.snappy.parquet', 'kinds.gzip.parquet'])('%s', async (name) => {
    const rows: unknown[] = [];
    for await (const batch of (await sourceOf(golden(name))).read(golden(name)).batches)
      rows.push(...batch.map((r) => r.value));
    expect(rows).toHaveLength(6);
    expect(rows[0]).toEqual({
      small: -1,
      large: 2n ** 62n,
      half: 0.5,
      real: 0,
      text: 'a',
      again: 'x',
      // Parquet does not say that these are bytes: what is text is one.
      bytes: [0, 255],
      fixed: [97, 98],
      price: 0.25,
      day: '2024-01-01',
      when: '2024-01-01T00:00:00.000Z',
      numbers: [1, null, 3],
      deep: [[1], []],
      map: { a: 1 },
    });
    expect(rows[2]).toEqual({
      flag: false,
      half: 2,
      real: 2 / 3,
      again: 'x',
      price: 2.25,
      day: '2024-01-03',
      when: '2024-01-01T00:00:02.000002Z',
    });
    expect(rows[3]).toMatchObject({
      text: '漢字',
      deep: [[2, 3]],
      person: { name: 'n3', tags: ['t', 't', 't'] },
      map: { b: null },
    });
  });
});

describe('dictionaries of an Arrow stream', () => {
  it.each([
    ['grow', 'words.delta.arrow', ['a', 'b', undefined, 'c', 'a', 'd'], ['a', 'b', 'a', 'a', 'd', 'a']],
    [
      'are replaced',
      'words.replaced.arrow',
      ['a', 'b', undefined, 'c', 'a', 'd', 'z', 'y', 'z'],
      ['a', 'b', 'a', 'a', 'd', 'a', 'z', 'y', 'z'],
    ],
  ])('%s between batches', async (_, name, words, lists) => {
    const rows: { w?: string; l: string[] }[] = [];
    for await (const batch of (await sourceOf(golden(name))).read(golden(name)).batches)
      rows.push(...batch.map((r) => r.value as (typeof rows)[number]));
    expect(rows.map((r) => r.w)).toEqual(words);
    expect(rows.map((r) => r.l[0])).toEqual(lists);
  });
});

describe('several datasets', () => {
  const a = (): DataFile => ({
    path: join(folder('mix', { 'a.jsonl': lines(Array.from({ length: 10 }, (_, i) => tokensRow(i, 1))) }), 'a.jsonl'),
    format: 'tokens',
  });
  const firsts = (rows: number[][]): number[] => rows.map((r) => r[0] ?? -1);
  it('are taken as often as their weight says', async () => {
    expect(firsts(await loaded({ ...a(), weight: 2 }))).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ]);
    const half = firsts(await loaded({ ...a(), weight: 0.5 }));
    expect(half).toHaveLength(5);
    expect(new Set(half).size).toBe(5);
    expect(half).not.toEqual([0, 1, 2, 3, 4]);
    expect(half).toEqual(firsts(await loaded({ ...a(), weight: 0.5 })));
    expect(await loaded({ ...a(), weight: 2.5 })).toHaveLength(25);
  });
  it('of so many rows at most, the first ones or such as a seed chooses', async () => {
    expect(firsts(await loaded({ ...a(), limit: 3 }))).toEqual([0, 1, 2]);
    const some = firsts(await loaded({ ...a(), limit: 3, shuffle: 7 }));
    expect(some).toHaveLength(3);
    expect(some).toEqual(firsts(await loaded({ ...a(), limit: 3, shuffle: 7 })));
    expect(some).not.toEqual(firsts(await loaded({ ...a(), limit: 3, shuffle: 8 })));
    // The digest is that of the whole file.
    const [whole, cut] = await Promise.all([loadDataset([a()], context), loadDataset([{ ...a(), limit: 3 }], context)]);
    expect(cut.files[0]?.sha256).toBe(whole.files[0]?.sha256);
  });
  it('a row of several turns is one row', async () => {
    const turns = ['one', 'two'].flatMap((t) => [
      { role: 'user', content: t },
      { role: 'assistant', thinking: t, content: t },
    ]);
    const path = join(
      folder('turns', { 'a.jsonl': lines([{ messages: turns }, { messages: turns.slice(2) }]) }),
      'a.jsonl',
    );
    expect(await loaded({ path, format: 'chat', limit: 1, shuffle: 1 })).toHaveLength(
      2 - ((await loaded({ path, format: 'chat', limit: 1, shuffle: 1 })).length % 2),
    );
    expect(await loaded({ path, format: 'chat', weight: 2 })).toHaveLength(6);
  });
});

describe('a split by hash', () => {
  const rows = Array.from({ length: 400 }, (_, i) => tokensRow(i % 200, 1));
  const path = join(folder('split', { 'a.jsonl': lines(rows) }), 'a.jsonl');
  const recipe = (data: string): string => `model: { base: x }\ndata: ${data}\n`;
  const of = (data: string) => parseRecipe(recipe(data), join(dir, 'r.yaml'), { checkPaths: false }).recipe;
  it('puts each row on one side, equal ones on the same, by what it says alone', async () => {
    const { data } = of(`{ train: ${JSON.stringify(path)}, split: { eval: 0.25 } }`);
    const [train, held] = [await loaded(...trainFiles(data)), await loaded(...heldOutFiles(data))];
    expect(train.length + held.length).toBe(400);
    expect(held.length).toBeGreaterThan(60);
    expect(held.length).toBeLessThan(140);
    const [a, b] = [new Set(train.map(String)), new Set(held.map(String))];
    expect([...a].filter((x) => b.has(x))).toEqual([]);
    // As docs/recipe.md says it.
    const place = createHash('sha256').update('0:{"tokens":[5,1]}').digest().readUIntBE(0, 6) / 2 ** 48;
    expect(rowPlace(tokensRow(5, 1), 0)).toBe(place);
    expect(b.has('5,1')).toBe(place < 0.25);
    expect(await loadPrompts(heldOutFiles(data))).toEqual([]);
  });
  it('a recipe says it in few words, and a plain list means what it meant', () => {
    const list = of('{ train: [{ path: a.jsonl, format: tokens }] }');
    expect(of('{ train: a.jsonl }').data.train).toEqual([{ path: join(dir, 'a.jsonl'), format: 'auto' }]);
    expect(of('{ train: [a.jsonl, { path: b.jsonl, weight: 2, limit: 9 }] }').data.train).toEqual([
      { path: join(dir, 'a.jsonl'), format: 'auto' },
      { path: join(dir, 'b.jsonl'), format: 'chat', weight: 2, limit: 9 },
    ]);
    expect(list.data).not.toHaveProperty('split');
    expect(recipeDigest(list)).toBe('7e00f9eab8b2decfcfc389a795e0a26d194cce810cc3d22093dbe15d9d202452');
    expect(() => of('{ train: [{ path: a.jsonl, wieght: 2 }] }')).toThrow(
      /wieght.*did you mean data\.train\.0\.weight/,
    );
    expect(() => of('{ train: a.jsonl, eval: [{ path: b.jsonl, weight: 2 }] }')).toThrow(
      /unknown key data\.eval\.0\.weight/,
    );
  });
});

describe('rows that stand twice, or nearly', () => {
  it('are found in flat arrays that grow', () => {
    const seen = new SeenRows();
    const key = (i: number): RowKey => [Math.imul(i, 0x9e3779b1) >>> 0, Math.imul(i, 0x85ebca6b) >>> 0];
    for (let i = 1; i <= 20_000; i++) expect(seen.add(key(i), i)).toBe(0);
    for (let i = 1; i <= 20_000; i += 97) expect([seen.add(key(i), 1), seen.find(key(-i))]).toEqual([i, 0]);
    expect(seen.size).toBe(20_000);
  });
  it('are told apart by how much they share', () => {
    const words = Array.from({ length: 200 }, (_, i) => `w${(i * 7919) % 997}`);
    const near = new NearRows();
    near.add({ messages: [{ role: 'user', content: words.join(' ') }] });
    const like = (changed: number) =>
      near.like({ messages: [{ role: 'user', content: words.map((w, i) => (i < changed ? `x${i}` : w)).join(' ') }] });
    expect(like(0)).toEqual([{ number: 0, likeness: 1 }]);
    expect(like(4)).toHaveLength(1);
    expect(like(100)).toHaveLength(0);
    // A system prompt that all rows share makes none of them alike.
    const shared = { role: 'system', content: 'You are the desk of a house by the sea. '.repeat(20) };
    near.add({ messages: [shared, { role: 'user', content: 'Open on sunday?' }] });
    expect(near.like({ messages: [shared, { role: 'user', content: 'Where is the key of room nine?' }] })).toEqual([]);
    expect(signatureOf('')).toHaveLength(64);
  });
  it('copyFileSync of a golden is a duplicate of itself row by row', async () => {
    const twice = join(dir, 'twice.jsonl');
    copyFileSync(golden('tokens.jsonl'), twice);
    writeFileSync(twice, readFileSync(twice, 'utf8').repeat(2));
    const check = await checkFile({ path: twice, format: 'tokens' }, { ...context, vocabSize: 1000 });
    expect(check.duplicates).toMatchObject({ rows: 7, compared: 14 });
    expect(check.duplicates.first[0]).toEqual({ line: 8, of: 1 });
    expect(check.histogram).toEqual([{ from: 2, count: 14 }]);
  });
});

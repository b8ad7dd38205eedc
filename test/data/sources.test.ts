// Every source gives the rows that are in the file, whatever the file is cut into, and a named error for what is not
// one.
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { checkFile } from '../../src/data/check.js';
import { ExampleStore } from '../../src/data/example-store.js';
import { type LoadContext, loadDataset } from '../../src/data/load.js';
import type { Row } from '../../src/data/source.js';
import { SOURCES, sourceOf } from '../../src/data/sources/index.js';

const tables = join(import.meta.dirname, '../golden/data');
const dir = mkdtempSync(join(tmpdir(), 'temper-sources-'));
afterAll(() => rmSync(dir, { recursive: true }));
let count = 0;
const written = (ending: string, bytes: string | Uint8Array): string => {
  const path = join(dir, `${count++}.${ending}`);
  writeFileSync(path, bytes);
  return path;
};

async function rowsOf(
  file: string,
): Promise<{ readonly source: string; readonly rows: Row[]; readonly sha256: string }> {
  const source = await sourceOf(file);
  const reading = source.read(file);
  const rows: Row[] = [];
  for await (const batch of reading.batches) rows.push(...batch);
  return { source: source.name, rows, sha256: reading.digest() };
}
const failing = async (work: Promise<unknown>): Promise<TemperError> =>
  work.then(
    () => {
      throw new Error('it did not fail');
    },
    (e: unknown) => e as TemperError,
  );
const context: LoadContext = {
  tokenizer: null,
  vocabSize: 1000,
  maxTokens: 100,
  loss: { analysis: 1, commentary: 1, final: 1 },
};

/** Null fields left out: how a row reads that a table had to fill up. */
const withoutNull = (v: unknown): unknown =>
  Array.isArray(v)
    ? v.map(withoutNull)
    : v && typeof v === 'object'
      ? Object.fromEntries(
          Object.entries(v)
            .filter(([, x]) => x !== null)
            .map(([k, x]) => [k, withoutNull(x)]),
        )
      : v;

describe.each(['chat', 'tokens'])('the rows of %s', (name) => {
  const text = readFileSync(join(tables, `${name}.jsonl`), 'utf8');
  const values = text
    .trimEnd()
    .split('\n')
    .map((l) => JSON.parse(l) as unknown);
  const files: Record<string, string> = {
    jsonl: written('jsonl', text),
    gzip: written('jsonl.gz', gzipSync(text)),
    'json, one line': written('json', JSON.stringify(values)),
    'json, many lines': written('json', `\ufeff \n${JSON.stringify(values, null, 2)}\n\n`),
    ...Object.fromEntries(
      readdirSync(tables)
        .filter((f) => f.startsWith(`${name}.`) && !f.endsWith('.jsonl'))
        .map((f) => [f, join(tables, f)]),
    ),
  };

  it.each(Object.entries(files))('are the same in %s', async (kind, file) => {
    const { source, rows, sha256 } = await rowsOf(file);
    expect(SOURCES.map((s) => s.name)).toContain(source);
    expect(kind).toContain(source === 'jsonl' ? 'jsonl' : source);
    expect(rows.map((r) => r.line)).toEqual(values.map((_, i) => i + 1));
    expect(rows.map((r) => withoutNull(r.value))).toEqual(values.map(withoutNull));
    expect(sha256).toBe(createHash('sha256').update(readFileSync(file)).digest('hex'));
  });

  it('are found by what is in the file, not by its name', async () => {
    const bare = join(dir, `bare-${name}`);
    copyFileSync(join(tables, `${name}.snappy.parquet`), bare);
    expect((await rowsOf(bare)).rows).toHaveLength(values.length);
    expect((await sourceOf(written('json', text))).name).toBe('jsonl');
  });
  it('counts what was tested', () => {
    expect(Object.keys(files)).toHaveLength(9);
  });
});

describe('a JSON array', () => {
  it('is cut at its own commas, wherever the pieces of the file end', async () => {
    // Each row is a little longer than the last, so that every byte of a row meets the end of a piece (1 MiB) once.
    const row = (i: number): unknown => ({ a: `"\\"[${'\\'.repeat(i % 7)}{,"`, b: [[], { c: ['],['] }, 'é漢'], i });
    const values = Array.from({ length: 40_000 }, (_, i) => row(i));
    const { rows } = await rowsOf(written('json', JSON.stringify(values)));
    expect(rows.length).toBe(values.length);
    expect(rows.every((r, i) => JSON.stringify(r.value) === JSON.stringify(values[i]))).toBe(true);
  });
  it('names the row that is not JSON and reads on', async () => {
    const { rows } = await rowsOf(written('json', '[{"a": 1}, {"a": }, 7, {"b": 2}]'));
    expect(rows.map((r) => r.error?.code ?? r.value)).toEqual([{ a: 1 }, 'not_json', 7, { b: 2 }]);
    expect(rows[1]?.error?.message).toMatch(/json row 2: the row is not JSON/);
    const check = await checkFile(
      { path: written('json', '[{"tokens": [1, 2]}, {"tokens": [1, "x"]}]'), format: 'tokens' },
      context,
    );
    expect(check.errors).toEqual([expect.objectContaining({ line: 2, code: 'bad_row' })]);
    expect(check.errors[0]?.message).toMatch(/json row 2: not a tokens row: tokens\.1: got "x", wanted a token id/);
  });
  it.each([
    ['cut off', '[{"a": 1}, {"b": "', 'the file ends inside the array, in row 2'],
    ['never closed', '[{"a": 1}', 'the file ends inside the array, in row 1'],
    ['followed by more', '[{"a": 1}] {"b": 2}', "there is more after the array's end (row 1)"],
  ])('that is %s is an error', async (_, text, message) => {
    const e = await failing(rowsOf(written('json', text)));
    expect(e.code).toBe('bad_json_array');
    expect(e.message).toContain(message);
  });
  it('may be empty, but holds no comma too many', async () => {
    expect((await rowsOf(written('json', ' [ ] '))).rows).toEqual([]);
    expect((await rowsOf(written('json', '[1, ]'))).rows.map((r) => r.error?.code)).toEqual([
      undefined,
      'bad_json_array',
    ]);
  });
});

it('gzip that is cut or damaged is an error, never fewer rows', async () => {
  const good = gzipSync(readFileSync(join(tables, 'chat.jsonl')));
  for (let k = 1; k <= 20; k++) {
    const e = await failing(rowsOf(written('gz', good.subarray(0, Math.floor((good.length * k) / 21)))));
    expect(e).toMatchObject({ name: 'DataError', code: 'bad_gzip' });
  }
  const flipped = Buffer.from(good);
  flipped[good.length >> 1] = (flipped[good.length >> 1] ?? 0) ^ 0x10;
  expect((await failing(rowsOf(written('gz', flipped)))).code).toBe('bad_gzip');
});

describe('a table', () => {
  it.each(['chat.arrow', 'chat.stream.arrow', 'chat.snappy.parquet', 'chat.zstd.parquet'])(
    '%s that is cut anywhere gives an error, never fewer rows',
    async (name) => {
      const good = readFileSync(join(tables, name));
      const whole = (await rowsOf(join(tables, name))).rows.length;
      for (let k = 1; k <= 40; k++) {
        const cut = good.subarray(0, Math.floor((good.length * k) / 41));
        const result = await rowsOf(written('bin', cut)).then(
          (r) => r,
          (e: unknown) => e as TemperError,
        );
        if ('rows' in result) expect.fail(`cut to ${cut.length} bytes: ${result.rows.length} of ${whole} rows`);
        expect(result.code).toBe('bad_table');
        expect(result.message).not.toContain('\n');
      }
    },
    180_000,
  );
  it('compressed with LZ4 is read', async () => {
    expect((await rowsOf(join(tables, 'lz4.feather'))).rows).toEqual([{ line: 1, value: { tokens: [1, 2] } }]);
  });
  it('gives examples with row numbers, as lines do', async () => {
    const load = (file: string) => loadDataset([{ path: file, format: 'tokens' }], context);
    const lines = await load(join(tables, 'tokens.jsonl'));
    const rows = await load(join(tables, 'tokens.arrow'));
    const plain = (d: typeof lines) =>
      Array.from(d.examples, (e) => [[...e.tokens], [...e.weights], e.source.line] as const);
    expect(plain(rows)).toEqual(plain(lines));
  });
});

describe('the example store', () => {
  const store = new ExampleStore();
  let seed = 7;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  // A few weights for most rows, hundreds of them for some, one row past a slab, one of two tokens.
  const examples = Array.from({ length: 200 }, (_, k) => {
    const n = k === 100 ? (1 << 20) + 3 : 2 + random(3000);
    return {
      tokens: Int32Array.from({ length: n }, () => random(200_000)),
      weights: Float32Array.from({ length: n }, () => (k % 50 === 9 ? random(2 ** 24) / 2 ** 20 : random(4) * 0.1)),
      channels: Uint8Array.from({ length: n }, () => random(4)),
      source: { file: k < 100 ? 'a' : 'b', line: k + 1 },
    };
  });
  for (const e of examples) store.add(e);

  it('gives back every bit of what was added', () => {
    expect(store.length).toBe(examples.length);
    let i = 0;
    for (const got of store) {
      const want = examples[i];
      expect(got.source).toEqual(want?.source);
      expect(Buffer.compare(Buffer.from(got.tokens), Buffer.from(want?.tokens ?? []))).toBe(0);
      expect(got.weights.every((w, j) => Object.is(w, want?.weights[j]))).toBe(true);
      expect(got.channels?.every((c, j) => c === want?.channels[j])).toBe(true);
      expect(store.inputLengths()[i]).toBe((want?.weights.findLastIndex((w) => w > 0) ?? 0) || 0);
      i++;
    }
    expect([store.at(-1), store.at(200)]).toEqual([undefined, undefined]);
  });
  it('takes 5 bytes a token where rows share their weights', () => {
    const plain = new ExampleStore();
    const tokens = new Int32Array(1000);
    const weights = new Float32Array(1000).fill(0.5);
    for (let k = 0; k < 8 * 1048; k++) plain.add({ tokens, weights, source: { file: 'f', line: k } });
    expect(plain.tokens).toBe(8_384_000);
    expect(plain.bytes / plain.tokens).toBeLessThan(5.1);
  });
});

// What other programs wrote: folders of Hugging Face's `datasets`, extension types, columns of a type that is not read.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ByteWriter, ParquetWriter } from 'hyparquet-writer';
import { afterAll, describe, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { checkFile } from '../../src/data/check.js';
import { dataFiles } from '../../src/data/files.js';
import type { LoadContext } from '../../src/data/load.js';
import { rowsOf } from '../../src/data/rows.js';

const golden = (...names: string[]): string => join(import.meta.dirname, '../golden/conformance', ...names);
const dir = mkdtempSync(join(tmpdir(), 'temper-written-'));
afterAll(() => rmSync(dir, { recursive: true }));
const context: LoadContext = {
  tokenizer: null,
  vocabSize: 2 ** 31,
  maxTokens: 1024,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
async function rows(path: string): Promise<unknown[]> {
  const out: unknown[] = [];
  for await (const { value, error } of rowsOf({ path })) out.push(error ?? value);
  return out;
}
const failing = async (work: () => unknown): Promise<TemperError> => {
  try {
    await work();
  } catch (e) {
    return e as TemperError;
  }
  throw new Error('it did not fail');
};
const messages = (i: number): object[] => [
  { role: 'user', content: `q${i}` },
  { role: 'assistant', content: `a${i} é` },
];
const saved = (i: number): object => ({
  messages: messages(i),
  tools: [{ type: 'function', function: { name: `f${i}`, parameters: { b: 1, a: [i] } } }],
  ...(i % 3 === 1 ? {} : { reasoning_effort: i % 3 === 0 ? 'low' : 'high' }),
});

describe('datasets', () => {
  it('saved to disk: the rows that were picked, in their order, JSON columns as what they say', async () => {
    expect(await rows(golden('datasets/saved/train'))).toEqual([6, 2, 4, 0].map(saved));
    expect(await rows(golden('datasets/saved/test'))).toEqual([saved(1)]);
    const check = await checkFile({ path: golden('datasets/saved/train'), format: 'auto' }, context);
    expect(check).toMatchObject({ format: 'chat', rows: 4, badRows: 0 });
    const e = await failing(() => dataFiles(golden('datasets/saved')));
    expect(e).toMatchObject({ code: 'data_splits' });
    expect(e.message).toContain(`give one of them: ${golden('datasets/saved/train')}`);
  });
  it('its cache: a split each, and nothing of what was derived', async () => {
    const e = await failing(() => dataFiles(golden('datasets/cache')));
    expect(e).toMatchObject({ code: 'data_splits' });
    expect(e.message).toContain(`several splits (test, train)`);
    expect(e.message).toContain(golden('datasets/cache/json-train.arrow'));
    const train = await rows(golden('datasets/cache/json-train.arrow'));
    expect(train).toEqual([0, 1, 2, 3, 4].map((i) => ({ messages: messages(i) })));
  });
});

it('extension types of Arrow are what they mean', async () => {
  const [first, second, third] = (await rows(golden('extensions.arrow'))) as [object, object, object];
  expect(first).toEqual({ j: { b: 1.5, a: [null] }, u: '00010203-0405-0607-0809-0a0b0c0d0e0f', b: true });
  expect(second).toEqual({});
  expect(third).toEqual({ j: 'x', u: '00000000-0000-0000-0000-000000000000', b: false });
});

describe('a column of type VARIANT is refused by name', () => {
  it('in Arrow', async () => {
    const e = await failing(() => rows(golden('variant.arrow')));
    expect(e).toMatchObject({ code: 'column_type_unread', exitCode: 2, details: { column: 'v', type: 'VARIANT' } });
    expect(e.message).toMatch(/variant\.arrow: column "v" is of type VARIANT, which is not read; write it as text/);
  });
  it('in Parquet, also inside another one', async () => {
    const bytes = { type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' } as const;
    const group = { repetition_type: 'OPTIONAL', num_children: 2 } as const;
    const writer = new ByteWriter();
    const schema = [
      { name: 'root', num_children: 1 },
      { name: 'outer', repetition_type: 'OPTIONAL', num_children: 1 },
      { name: 'v', ...group, logical_type: { type: 'VARIANT' } },
      { name: 'metadata', ...bytes },
      { name: 'value', ...bytes },
    ] as never;
    const parquet = new ParquetWriter({ writer, schema });
    const data = [{ v: { metadata: Uint8Array.of(1, 0, 0), value: Uint8Array.of(0) } }];
    parquet.write({ columnData: [{ name: 'outer', data }] });
    parquet.finish();
    const path = join(dir, 'variant.parquet');
    writeFileSync(path, Buffer.from(writer.getBytes()));
    const e = await failing(() => rows(path));
    expect(e).toMatchObject({ code: 'column_type_unread', details: { column: 'outer.v', type: 'VARIANT' } });
  });
});

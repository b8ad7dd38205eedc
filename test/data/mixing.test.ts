// Weight, limit, shuffle and split over datasets of no row, one, two and many: what must hold whatever they are.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { type DataFile, type LoadContext, loadDataset } from '../../src/data/load.js';
import { epochOrder } from '../../src/data/order.js';
import { rowPlace } from '../../src/data/part.js';
import { rowsOf } from '../../src/data/rows.js';
import { convertRows } from '../../src/train/convert-data.js';

const dir = mkdtempSync(join(tmpdir(), 'temper-mixing-'));
afterAll(() => rmSync(dir, { recursive: true }));
const context: LoadContext = {
  tokenizer: null,
  vocabSize: 1000,
  maxTokens: 16,
  loss: { analysis: 1, commentary: 1, final: 1 },
};
const SIZES = [0, 1, 2, 17, 200];
const rowsText = (ids: readonly number[]): string => ids.map((i) => `{"tokens":[${i},1]}\n`).join('');
const fileOf = (ids: readonly number[], name = `of-${ids.length}.jsonl`): string => {
  const path = join(dir, name);
  writeFileSync(path, name.endsWith('.gz') ? gzipSync(rowsText(ids)) : rowsText(ids));
  return path;
};
const ids = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const other = fileOf([999], 'other.jsonl');
/** First tokens of what is loaded, less those of the file that keeps the dataset from being empty. */
async function taken(more: Omit<DataFile, 'format'>): Promise<number[]> {
  const files = [
    { ...more, format: 'tokens' },
    { path: other, format: 'tokens' },
  ];
  const { examples } = await loadDataset(files, context);
  const all = Array.from(examples, (e) => e.tokens[0] ?? -1);
  expect(all.at(-1)).toBe(999);
  return all.slice(0, -1);
}
const counts = (values: readonly number[]): Map<number, number> => {
  const out = new Map<number, number>();
  for (const v of values) out.set(v, (out.get(v) ?? 0) + 1);
  return out;
};

describe.each(SIZES)('%i rows', (n) => {
  const path = fileOf(ids(n));
  it('each is there as often as the weight says, one more or less', async () => {
    for (const weight of [0.25, 0.5, 1, 3.75])
      for (const limit of [undefined, 2, 1000])
        for (const shuffle of [undefined, 7]) {
          const got = await taken({ path, weight, limit, shuffle });
          const most = Math.min(n, limit ?? n);
          const whole = Math.floor(weight);
          const said = JSON.stringify({ weight, limit, shuffle });
          expect(got.length, said).toBe(whole * most + Math.round((weight - whole) * most));
          const each = counts(got);
          for (const c of each.values()) expect(c === whole || c === whole + 1, said).toBe(true);
          if (whole > 0) expect(each.size, said).toBe(most);
          if (shuffle === undefined) expect(Math.max(-1, ...got), said).toBeLessThan(most);
          expect(await taken({ path, weight, limit, shuffle }), said).toEqual(got);
        }
  });
  it('with a seed a larger limit takes the same ones and more, and all of them are all', async () => {
    let before: number[] = [];
    for (const limit of [1, 2, 3, 8, 16, 17, 1000]) {
      const now = await taken({ path, limit, shuffle: 3 });
      expect(now.slice(0, before.length)).toEqual(before);
      before = now;
    }
    expect([...before].sort((a, b) => a - b)).toEqual(ids(n));
  });
  it('a split puts each row into one part, the same whatever stands before it and however it is kept', async () => {
    for (const seed of [0, 5])
      for (const share of [0.01, 0.3, 0.99]) {
        const part = (take: 'train' | 'eval') => ({ take, share, seed });
        const [train, held] = [await taken({ path, part: part('train') }), await taken({ path, part: part('eval') })];
        expect([...train, ...held].sort((a, b) => a - b)).toEqual(ids(n));
        for (const i of held) expect(rowPlace({ tokens: [i, 1] }, seed)).toBeLessThan(share);
        const mixed = Array.from(epochOrder(n, 11, 0));
        for (const name of [`mixed-${n}.jsonl`, `mixed-${n}.jsonl.gz`]) {
          const again = await taken({ path: fileOf(mixed, name), part: part('eval') });
          expect(new Set(again)).toEqual(new Set(held));
        }
        const more = [...ids(n), ...ids(n), 777].reverse();
        const twice = await taken({ path: fileOf(more, `more-${n}.jsonl`), part: part('eval') });
        expect(new Set(twice.filter((i) => i !== 777))).toEqual(new Set(held));
      }
  });
});

it('a split is the same in a table, members that are null or not there included', async () => {
  const rows = ids(40).map((i) => ({
    messages: [
      { role: 'user', content: `q${i}`, ...(i % 3 ? {} : { name: null }) },
      { role: 'assistant', content: `a${i}`, ...(i % 2 ? { thinking: `t${i}` } : {}) },
    ],
  }));
  const [text, table] = [join(dir, 'chat.jsonl'), join(dir, 'chat.parquet')];
  writeFileSync(text, rows.map((r) => `${JSON.stringify(r)}\n`).join(''));
  await convertRows({ paths: [text], out: table, format: 'chat' });
  const held = async (path: string): Promise<string[]> => {
    const out: string[] = [];
    for await (const { value } of rowsOf({ path, part: { take: 'eval', share: 0.4, seed: 2 } }))
      out.push((value as (typeof rows)[number]).messages[0]?.content ?? '');
    return out;
  };
  const wanted = await held(text);
  expect(wanted.length).toBeGreaterThan(5);
  expect(await held(table)).toEqual(wanted);
});

it('about the share that is asked for is held out', async () => {
  for (const share of [0.05, 0.5]) {
    const n = 20_000;
    const held = ids(n).filter((i) => rowPlace({ text: `row ${i}` }, 1) < share).length;
    expect(Math.abs(held - share * n)).toBeLessThan(5 * Math.sqrt(n * share * (1 - share)));
  }
});

it('a part without rows says that it is the split', async () => {
  const path = fileOf([1, 2]);
  for (const take of ['train', 'eval'] as const) {
    const share = take === 'eval' ? 1e-9 : 1 - 1e-9;
    const failing = loadDataset([{ path, format: 'tokens', part: { take, share, seed: 0 } }], context);
    await expect(failing).rejects.toMatchObject({ code: 'nothing_to_train' });
    await expect(failing).rejects.toThrow(/data\.split (holds out none of the rows|leaves no row to train on)/);
  }
});

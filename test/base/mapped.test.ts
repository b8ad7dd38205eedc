// A stream as another one: what comes, how it ends, and that its source is closed whoever ends it.
import { expect, it } from 'vitest';
import { mapped } from '../../src/base/mapped.js';

/** Three numbers, or a failure after two, and what became of it. */
function make({ fails = false } = {}) {
  const told: string[] = [];
  async function* source(): AsyncGenerator<number, void, void> {
    try {
      yield 1;
      yield 2;
      if (fails) throw new Error('no third');
      yield 3;
    } finally {
      told.push('closed');
    }
  }
  return { told, source: source() };
}

it('is what is made of each thing, and tells once that it is over', async () => {
  const { told, source } = make();
  const got: number[] = [];
  const doubled = mapped(
    source,
    (n) => 2 * n,
    () => told.push('over'),
  );
  for await (const n of doubled) got.push(n);
  expect([got, told]).toEqual([
    [2, 4, 6],
    ['closed', 'over'],
  ]);
  expect(await doubled.next()).toEqual({ done: true, value: undefined });
  expect(told).toHaveLength(2);
});
it('closes its source when its reader leaves, and is over then', async () => {
  const { told, source } = make();
  for await (const n of mapped(
    source,
    (x) => x,
    () => told.push('over'),
  ))
    if (n === 2) break;
  expect(told).toEqual(['closed', 'over']);
});
it('fails as its source does', async () => {
  const { told, source } = make({ fails: true });
  const got: number[] = [];
  const read = async (): Promise<void> => {
    for await (const n of mapped(
      source,
      (x) => x,
      () => told.push('over'),
    ))
      got.push(n);
  };
  await expect(read()).rejects.toThrow('no third');
  expect([got, told]).toEqual([
    [1, 2],
    ['closed', 'over'],
  ]);
});
it('closes its source where nothing can be made of a thing', async () => {
  const { told, source } = make();
  const odd = mapped(
    source,
    () => {
      throw new Error('odd');
    },
    () => told.push('over'),
  );
  await expect(odd.next()).rejects.toThrow('odd');
  expect(told.toSorted()).toEqual(['closed', 'over']);
  expect(await odd.next()).toEqual({ done: true, value: undefined });
});
it('tells nothing of a stream that nobody began to read', async () => {
  const { told, source } = make();
  await mapped(
    source,
    (x) => x,
    () => told.push('over'),
  ).return?.();
  expect(told).toEqual([]);
});

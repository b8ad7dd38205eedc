// Several engines of one small model answer as one does, and what one cannot open none of them leaves open.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { type Engine, openEngine } from '../../src/infer/engine.js';
import { type Answering, openSideBySide } from '../../src/infer/side-by-side.js';

const model = join(packageRoot, 'models', 'nano-judge');
const options = { model, contextTokens: 256, prefixes: 2 };

const answersOf = (engine: Answering): Promise<number[][]> =>
  Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const messages = [{ role: 'user', content: `The table for ${i + 2} people is booked, Rossi` }] as const;
      for await (const event of engine.generate({ messages, maxTokens: 12, sampling: { temperature: 0 } }))
        if (event.kind === 'done') return [...event.tokens];
      return [];
    }),
  );

it('requests have the tokens that one engine gives them, of two that run at once', async () => {
  const one: Engine = await openEngine({ ...options, slots: 1 });
  const two = await openSideBySide({ ...options, slots: 8, threads: 2 });
  try {
    expect(two.info.threads).toBe(1); // each its own
    expect(await two.digest()).toBe(await one.digest());
    const wanted = await answersOf(one);
    expect(wanted.every((tokens) => tokens.length > 0)).toBe(true);
    expect(await answersOf(two)).toEqual(wanted);
  } finally {
    await Promise.all([one.close(), two.close()]);
  }
  await expect(answersOf(two)).rejects.toMatchObject({ code: 'engine_closed' });
});
it('few slots and one thread stay one engine with the pool', async () => {
  for (const few of [
    { slots: 7, threads: 2 },
    { slots: 8, threads: 1 },
  ]) {
    const engine = await openSideBySide({ ...options, ...few });
    expect(engine.info.threads).toBe(few.threads);
    expect('loadAdapter' in engine).toBe(true);
    await engine.close();
  }
});
it('what opening refuses is told as one engine tells it, of one as of several', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'side-by-side-'));
  const told = async (opening: Promise<unknown>): Promise<unknown> =>
    opening.then(
      () => null,
      (e) => e.message,
    );
  for (const write of [() => {}, () => writeFileSync(join(folder, 'model.safetensors'), 'no weights')]) {
    write();
    const refused = { ...options, model: folder, slots: 8, threads: 2 };
    const one = await told(openEngine(refused));
    expect(one).toContain(folder);
    expect(await told(openSideBySide(refused))).toBe(one);
  }
  rmSync(folder, { recursive: true });
});

// Adapters that come in another's place: no request gets another one than it has found.
import { expect, it } from 'vitest';
import type { Engine } from '../../src/infer/engine.js';
import type { Structures } from '../../src/infer/structures.js';
import { ServedModels } from '../../src/serve/served.js';

/** Names that the engine knows, in the order of their coming and going. */
function adaptersOf() {
  const known = new Set<string>();
  let loaded = (): void => {};
  const engine = {
    loadAdapter: (name: string, folder: string) =>
      new Promise((done, fail) => {
        loaded = () => {
          if (folder === 'broken') return fail(new Error('no adapter'));
          known.add(name);
          done({ name, folder, digest: `sha256 of ${folder}`, pairs: 1, bytes: 1 });
        };
      }),
    async unloadAdapter(name: string) {
      if (!known.delete(name)) throw new Error(`no ${name}`);
    },
  } as unknown as Engine;
  /** It was asked for one. */
  const asked = (): Promise<void> => new Promise((done) => setImmediate(done));
  return { engine, known, asked, load: () => loaded() };
}
const base = { id: 'm', adapter: null, digest: 'd', pairs: 0, status: 'approved', folder: null } as const;

it('stands under its name once it may be used as that, and the one before goes then', async () => {
  const { engine, known, asked, load } = adaptersOf();
  const models = new ServedModels(engine, null as unknown as Structures, base, []);
  const load1 = models.load('a', 'one', 'approved');
  await asked();
  load();
  const one = await load1;
  const load2 = models.load('a', 'two', 'candidate');
  await asked();
  load();
  // The engine has it, and nobody finds it yet: who asks now gets the one that is approved.
  expect(models.find('a')).toMatchObject({ digest: 'sha256 of one', status: 'approved', adapter: one.adapter });
  expect(known.has(one.adapter as string)).toBe(true);
  const two = await load2;
  expect(models.find('a')).toMatchObject({ digest: 'sha256 of two', status: 'candidate' });
  expect([...known]).toEqual([two.adapter]);
  expect(two.adapter).not.toBe(one.adapter);
  const load3 = models.load('a', 'broken', 'approved');
  await asked();
  load();
  await expect(load3).rejects.toThrow('no adapter');
  expect([models.find('a'), [...known]]).toEqual([two, [two.adapter]]);
  await models.unload('a');
  expect([...known]).toEqual([]);
});

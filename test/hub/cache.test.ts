// hf:// references: pulled once into the cache, at one commit, which a run keeps whatever the branch becomes.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { cachedPath, referenceOf } from '../../src/hub/cached.js';
import { localOf, pullReferences } from '../../src/hub/pull.js';
import { pullIntoCache } from '../../src/hub/run-pull.js';
import { openEngine, train } from '../../src/index.js';
import { COMMIT, type HubServer, noise, startHubServer } from './hub-server.js';

const OTHER = 'd00d0123456789d00d0123456789d00d01234567';
const nano = join(packageRoot, 'models', 'nano');
const model = Object.fromEntries(
  readdirSync(nano)
    .filter((n) => n !== 'README.md')
    .map((n) => [n, readFileSync(join(nano, n))]),
);
const rows = readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl'))
  .toString()
  .split('\n')
  .slice(0, 8);
const data = {
  'data/train.jsonl': Buffer.from(`${rows.join('\n')}\n`),
  'data/more.jsonl': Buffer.from(`${rows[0]}\n`),
};
let dir: string;
let server: HubServer;
const before = { ...process.env };
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'hub-cache-'));
  server = await startHubServer({
    lfsBytes: 100_000,
    repos: { 'model o/nano': { files: model, commit: COMMIT }, 'dataset o/rows': { files: data, commit: COMMIT } },
  });
  process.env.TEMPER_CACHE = join(dir, 'cache');
  process.env.HF_ENDPOINT = server.url;
  process.env.HF_HOME = join(dir, 'hf');
  delete process.env.HF_TOKEN;
});
afterEach(async () => {
  for (const name of ['TEMPER_CACHE', 'HF_ENDPOINT', 'HF_HOME', 'HF_HUB_OFFLINE']) {
    const was = before[name];
    if (was === undefined) delete process.env[name];
    else process.env[name] = was;
  }
  await server.close();
  rmSync(dir, { recursive: true, force: true });
});
const move = (): void => {
  const moved = { ...model, 'config.json': Buffer.from('{}') };
  server.options = {
    ...server.options,
    repos: { ...server.options.repos, 'model o/nano': { files: moved, commit: OTHER } },
  };
};

it('one folder for each commit, asked for once', async () => {
  const local = await localOf('hf://o/nano');
  expect(local).toBe(join(dir, 'cache', 'hub', `models--o--nano@${COMMIT}`));
  expect(readFileSync(join(local, 'config.json')).equals(model['config.json'] as Buffer)).toBe(true);
  expect(referenceOf(join(local, 'x', 'y'))).toBe(`hf://o/nano@${COMMIT}/x/y`);
  expect(cachedPath('hf://o/nano')).toBe(local);
  server.seen.length = 0;
  expect(await localOf('hf://o/nano')).toBe(local);
  expect(server.seen.map((s) => s.path)).toEqual(['/api/models/o/nano/revision/main']);
  server.seen.length = 0;
  expect(await localOf(`hf://o/nano@${COMMIT}/config.json`)).toBe(join(local, 'config.json'));
  expect(server.seen).toEqual([]);
  process.env.HF_HUB_OFFLINE = '1';
  expect(await localOf('hf://o/nano')).toBe(local);
  await expect(localOf('hf://o/nano@v2')).rejects.toMatchObject({ code: 'hub_offline', exitCode: 2 });
  expect(server.seen).toEqual([]);
  expect(await localOf('/some/path')).toBe('/some/path');
});

it('a file, a folder and a glob of a dataset', async () => {
  const one = await pullReferences({ references: ['hf://datasets/o/rows/data/more.jsonl'] });
  const folder = join(dir, 'cache', 'hub', `datasets--o--rows@${COMMIT}`);
  expect(one['hf://datasets/o/rows/data/more.jsonl']?.local).toBe(join(folder, 'data', 'more.jsonl'));
  expect(readdirSync(join(folder, 'data'))).toEqual(['more.jsonl']);
  await pullReferences({ references: ['hf://datasets/o/rows/data/t*.jsonl'] });
  expect(readdirSync(join(folder, 'data')).sort()).toEqual(['more.jsonl', 'train.jsonl']);
  server.seen.length = 0;
  await pullReferences({ references: [`hf://datasets/o/rows@${COMMIT}/data/more.jsonl`] });
  expect(server.seen).toEqual([]);
  await pullReferences({ references: ['hf://datasets/o/rows/data'] });
  expect(server.fileRequests()).toEqual([]);
  await expect(pullReferences({ references: ['hf://datasets/o/rows/none'] })).rejects.toMatchObject({
    code: 'hub_no_match',
  });
});

it('many at once pull it once', async () => {
  const requests = Array.from({ length: 4 }, () => pullIntoCache({ references: ['hf://o/nano'] }));
  const found = await Promise.all(requests);
  expect(new Set(found.map((f) => f['hf://o/nano']?.local)).size).toBe(1);
  const asked = server.seen.filter((s) => s.path.endsWith('/config.json'));
  expect(asked).toHaveLength(1);
});

it('no cache, no reference', async () => {
  process.env.TEMPER_CACHE = '';
  await expect(localOf('hf://o/nano')).rejects.toMatchObject({ code: 'hub_cache', exitCode: 2 });
});

it('the engine opens a model by reference', async () => {
  const engine = await openEngine({ model: 'hf://o/nano' });
  expect((await engine.digest()).length).toBe(64);
  await engine.close();
});

it('a run names the commit of its base and data, and goes on with them when the branch has moved', async () => {
  mkdirSync(join(dir, 'w'));
  const recipe = join(dir, 'w', 'r.yaml');
  writeFileSync(
    recipe,
    [
      'model: {base: hf://o/nano}',
      'data: {train: [{path: hf://datasets/o/rows/data/train.jsonl}]}',
      'adapter: {rank: 2, targets: [attention]}',
      'train: {steps: 2, rowsPerStep: 2, checkpointEvery: 1}',
      'device: cpu',
    ].join('\n'),
  );
  const run = join(dir, 'w', 'run');
  await train(recipe, { out: run });
  const record = JSON.parse(readFileSync(join(run, 'run.json'), 'utf8'));
  expect(record.hub).toEqual({ 'hf://o/nano': COMMIT, 'hf://datasets/o/rows/data/train.jsonl': COMMIT });
  const written = readFileSync(join(run, 'recipe.yaml'), 'utf8');
  expect(written).toContain(`base: hf://o/nano@${COMMIT}`);
  expect(written).toContain(`hf://datasets/o/rows@${COMMIT}/data/train.jsonl`);
  cpSync(run, join(dir, 'w', 'same'), { recursive: true });
  move();
  // A new pull of the branch does not change what the run means.
  expect(await localOf('hf://o/nano')).toContain(OTHER);
  const r = await train(recipe, { out: run, resume: true, set: ['train.steps=3'] });
  expect(r.step).toBe(3);
  expect(JSON.parse(readFileSync(join(run, 'run.json'), 'utf8')).hub['hf://o/nano']).toBe(COMMIT);
  // Its own recipe goes on too, and nothing is asked for.
  server.seen.length = 0;
  const again = await train(join(dir, 'w', 'same', 'recipe.yaml'), { out: join(dir, 'w', 'same'), resume: true });
  expect(again.step).toBe(2);
  expect(server.seen).toEqual([]);
  expect(existsSync(join(dir, 'cache', 'hub', `models--o--nano@${COMMIT}`))).toBe(true);
});

it('a reference that is bad says so', async () => {
  await expect(localOf('hf://spaces/a/b')).rejects.toMatchObject({ code: 'hub_repo' });
  expect(noise(1)).toHaveLength(1);
});

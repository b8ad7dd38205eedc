// Every public call that takes time stops when it is asked to, and none holds up its caller's thread meanwhile.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import * as temper from '../../src/index.js';
import { held } from '../held.js';
import { COMMIT, type HubServer, noise, startHubServer } from '../hub/hub-server.js';
import { tinyRun } from '../train/tiny.js';

const nano = join(packageRoot, 'models', 'nano');
const dir = mkdtempSync(join(tmpdir(), 'temper-abort-'));
let folder: string;
let run: string;
let engine: temper.Engine;
let hub: HubServer;
let pulls = 0;
beforeAll(async () => {
  hub = await startHubServer({ repos: { 'model o/n': { files: { a: noise(20 << 20) }, commit: COMMIT } } });
  folder = await tinyRun({ train: 'steps: 2, rowsPerStep: 6, lr: 1.0e-2' });
  run = join(folder, 'run');
  await temper.train(join(folder, 'recipe.yaml'), { out: run });
  engine = await temper.openEngine({ model: nano });
  const log = await temper.openVerdictLog({ dir: join(dir, 'log'), by: 'test' });
  await Promise.all(Array.from({ length: 4000 }, (_, n) => log.append('verdict', { n })));
  await log.close();
});
afterAll(async () => {
  await engine.close();
  await hub.close();
  for (const d of [dir, folder]) rmSync(d, { recursive: true, force: true });
});

type Work = (signal?: AbortSignal) => Promise<unknown>;
const withSignal = (signal?: AbortSignal): { readonly signal?: AbortSignal } => (signal ? { signal } : {});
/** One entry for each public call that computes or hashes. */
const calls: readonly (readonly [string, Work])[] = [
  ['openEngine', async (s) => (await temper.openEngine({ model: nano }, s)).close()],
  ['engine.score', (s) => engine.score({ tokens: Int32Array.from({ length: 900 }, (_, i) => i % 500) }, s)],
  ['engine.digest', (s) => engine.digest(s)],
  [
    'engine.generate',
    async (s) => {
      const request = { messages: [{ role: 'user' as const, content: 'Hello' }], maxTokens: 60 };
      for await (const _ of engine.generate(request, s)) {
        /* to its end */
      }
    },
  ],
  ['planTraining', (s) => temper.planTraining(join(folder, 'recipe.yaml'), withSignal(s))],
  ['checkDataset', (s) => temper.checkDataset(join(folder, 'recipe.yaml'), checkOptions(s))],
  ['evaluate', (s) => temper.evaluate(run, withSignal(s))],
  ['verify', (s) => temper.verify(join(run, 'adapter'), { run, ...withSignal(s) })],
  ['pull', (s) => temper.pull({ repo: 'o/n', dir: join(dir, `pulled-${pulls++}`), endpoint: hub.url }, withSignal(s))],
  ['inspectCheckpoint', (s) => temper.inspectCheckpoint(nano, { full: true, ...withSignal(s) })],
  ['verifyVerdictLog', (s) => temper.verifyVerdictLog({ dir: join(dir, 'log') }, withSignal(s))],
  ['measureLimits', (s) => temper.measureLimits(1, withSignal(s))],
];
const checkOptions = (s?: AbortSignal): temper.CheckDataOptions => ({
  format: 'chat',
  maxTokens: 4096,
  samples: 0,
  ...withSignal(s),
});

describe.each(calls)('%s', (name, work) => {
  it('stops when it is asked to', async () => {
    await expect(work(AbortSignal.abort())).rejects.toHaveProperty('name', 'AbortError');
    const stop = new AbortController();
    const reason = new DOMException('enough', 'AbortError');
    const under = work(stop.signal).then(
      () => 'done',
      (e: unknown) => e,
    );
    await new Promise((next) => setTimeout(next, 30));
    const from = performance.now();
    stop.abort(reason);
    const end = await under;
    // What had come to its end before the abort is done; nothing else is.
    expect([reason, 'done']).toContain(end);
    expect(performance.now() - from, name).toBeLessThan(8000);
  });

  // Of a short call a single pause of the machine may be a third: what blocks does so each time.
  it('does not hold up the thread that calls it', { retry: 2 }, async () => {
    const { longest, all } = await held(() => work());
    process.stderr.write(`${name}: longest hold ${longest.toFixed(1)} ms of ${all.toFixed(0)}\n`);
    // Work that blocked would take most of the time.
    expect(longest).toBeLessThan(Math.max(50, all / 3));
  });
});

it('an export that is stopped leaves nothing behind', async () => {
  const out = join(dir, 'export');
  await expect(temper.exportRun({ run, out }, { signal: AbortSignal.abort() })).rejects.toHaveProperty(
    'name',
    'AbortError',
  );
  await expect(temper.inspectCheckpoint(out)).rejects.toThrow();
  await temper.exportRun({ run, out });
  expect((await temper.verify(out, { run })).ok).toBe(true);
});

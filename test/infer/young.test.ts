// Garbage that is collected in the time of reading, not when V8 wants to.
import { join } from 'node:path';
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { getHeapSpaceStatistics } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { GREEDY } from '../../src/infer/sequence.js';
import { Session } from '../../src/infer/session.js';
import { youngCollector } from '../../src/infer/young.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { prompt, tinyCheckpoint } from './tiny.js';

const youngBytes = (): number =>
  getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_used_size ?? 0;

it('young garbage goes when it is asked for, and no context that is made later can ask', async () => {
  const collect = youngCollector();
  collect();
  const garbage = Array.from({ length: 20_000 }, (_, i) => ({ i }));
  expect(garbage.length).toBe(20_000);
  garbage.length = 0;
  const before = youngBytes();
  collect();
  expect(youngBytes()).toBeLessThan(before - 300_000);
  const { runInNewContext } = await import('node:vm');
  expect(runInNewContext('typeof gc')).toBe('undefined');
});

it('threads that ask at once all get it', async () => {
  const n = 6,
    gate = new Int32Array(new SharedArrayBuffer(4));
  const code = `const { workerData: { gate, n, file }, parentPort } = require('node:worker_threads');
    import(file).then(({ collectorOf }) => {
      Atomics.add(gate, 0, 1);
      while (Atomics.load(gate, 0) < n);
      collectorOf()();
      parentPort.postMessage('collected');
    });`;
  const file = pathToFileURL(join(packageRoot, 'dist', 'base', 'collector.js')).href;
  const said = await Promise.all(
    Array.from(
      { length: n },
      () =>
        new Promise((done) => {
          new Worker(code, { eval: true, workerData: { gate, n, file } }).on('message', done).on('error', done);
        }),
    ),
  );
  expect(said).toEqual(Array.from({ length: n }, () => 'collected'));
});

it('a prompt beside a stream has it collected now and then, one that nobody waits beside has not', async () => {
  const { dir } = await tinyCheckpoint();
  using model = openCheckpoint(dir);
  let asked = 0;
  const observer = new PerformanceObserver((list) => {
    for (const { detail } of list.getEntries()) {
      const { kind, flags } = detail as { kind: number; flags: number };
      if (kind === constants.NODE_PERFORMANCE_GC_MINOR && flags & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) asked++;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  /** Entries come a few turns later. */
  const told = async (): Promise<void> => {
    for (let i = 0; i < 8; i++) await nextTurn();
  };
  const count = async (beside: boolean): Promise<readonly [number, number]> => {
    using session = new Session(model, { precision: 'bf16', slots: 2, capacity: 512, yields: true });
    const request = { stop: new Set<number>(), sampling: GREEDY };
    if (beside) session.start({ ...request, tokens: prompt(4, 1), maxTokens: 500 });
    for (let i = 0; i < 5; i++) session.step();
    await told();
    asked = 0;
    const long = session.start({ ...request, tokens: prompt(300, 2), maxTokens: 1 });
    let steps = 1;
    while (!session.step().some(({ sequence }) => sequence === long)) steps++;
    await told();
    return [asked, steps];
  };
  const [collected, steps] = await count(true);
  expect(collected).toBeGreaterThan(steps / 16);
  expect((await count(false))[0]).toBe(0);
  observer.disconnect();
});

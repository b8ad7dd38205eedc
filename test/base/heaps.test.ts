// The bound of young objects, in a process of its own: it is of the whole process.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';

/** Objects live for some turns, so that V8 has young memory grow; half-way a thread starts. Tells the most, MiB. */
const CHURN = `
import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { getHeapSpaceStatistics } from 'node:v8';
import { Worker } from 'node:worker_threads';
if (process.argv[2] === 'bounded') (await import(process.argv[1])).boundHeaps();
const young = () => getHeapSpaceStatistics().find((s) => s.space_name === 'new_space').space_size;
const live = [];
let most = 0;
for (let turn = 0; turn < 600; turn++) {
  live.push(Array.from({ length: 4000 }, (_, i) => ({ i })));
  if (live.length > 40) live.shift();
  for (let i = 0; i < 3; i++) await setImmediate();
  if (turn === 300) await once(new Worker('setTimeout(() => {}, 10_000)', { eval: true }), 'online');
  most = Math.max(most, young());
}
console.log(most / 2 ** 20);
process.exit();
`;
const mostYoung = (bounded: boolean): number => {
  const file = pathToFileURL(join(packageRoot, 'dist', 'base', 'heaps.js')).href;
  const args = ['--input-type=module', '-e', CHURN, file, bounded ? 'bounded' : 'free'];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).toBe('');
  return Number(stdout);
};

test('young objects of the main thread get 8 MiB and no more, also once a thread has started', () => {
  expect(mostYoung(true)).toBeLessThanOrEqual(8);
  expect(mostYoung(false)).toBeGreaterThan(8);
});

// What a worker leaves on a device goes with it when it is terminated: tensors, a graph, an upload under way, and a
// recording that was never ended, for which the other threads would wait for ever.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { emulatedLibrary } from './emulated.js';

/** In a process of its own, which may be ended where it hangs. */
const program = `
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const addon = require(${JSON.stringify(join(packageRoot, 'build', 'temper.node'))});
if (isMainThread) {
  addon.openDevice(${JSON.stringify(emulatedLibrary)}, '', '', 0, 0);
  const kept = addon.alloc(0, [1000], 3, 1); // the arena keeps its first segment
  const live = () => addon.deviceMemory()[12] + ' ' + addon.memoryStats()[12];
  const before = live();
  const worker = new Worker(__filename);
  worker.once('message', async (within) => {
    await worker.terminate();
    addon.synchronize();
    addon.free(addon.alloc(0, [1000], 3, 1));
    console.log(JSON.stringify({ before, within, after: live(), tensors: addon.tensorCount(), kept }));
  });
} else {
  const there = addon.alloc(0, [1 << 20], 3, 1), here = addon.alloc(0, [1 << 20], 3, 0);
  addon.beginGraph(1, 0);
  addon.alloc(0, [1000], 3, 1);
  addon.endGraph(0);
  addon.prefetch(there, here);
  const within = addon.deviceMemory()[12] + ' ' + addon.memoryStats()[12];
  addon.beginGraph(1, 0);
  parentPort.postMessage(within);
  setInterval(() => {}, 1000);
}`;

it('what a worker leaves on a device goes with it', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'temper-leftovers-')), 'leftovers.cjs');
  writeFileSync(file, program);
  const child = spawnSync(process.execPath, [file], { encoding: 'utf8', timeout: 60_000 });
  const { before, within, after, tensors } = JSON.parse(child.stdout || JSON.stringify({ before: child.stderr }));
  expect(within).not.toBe(before);
  expect(after).toBe(before);
  expect(tensors).toBe(1);
});

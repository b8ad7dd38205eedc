// Device memory that runs out in the middle of training. In a process of its own: memory kept from other runs would
// hide it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import './emulated.js';
import { openSafetensors } from '../../src/native/safetensors.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { checkpointSteps, readRun } from '../../src/runs/run-folder.js';
import { train } from '../../src/train/train.js';
import { tinyRun } from '../train/tiny.js';

const dir = await tinyRun();
const at = (...p: string[]): string => join(dir, ...p);
const adapterOf = (name: string): Uint8Array[] => {
  using f = openSafetensors(at('runs', name, 'adapter', 'adapter_model.safetensors'));
  return [...f.tensors.keys()].map((k) => f.bytes(k));
};

describe('a device that is too small', () => {
  it('undoes a step in which memory runs out, saves the one before and says what to change', async () => {
    const short = Array.from({ length: 12 }, (_, i) =>
      JSON.stringify({ tokens: Array.from({ length: 6 }, (_, j) => (i + j) % 96) }),
    );
    const long = JSON.stringify({ tokens: Array.from({ length: 560 }, (_, j) => j % 96) });
    writeFileSync(at('uneven.jsonl'), `${[...short.slice(0, 6), long, ...short.slice(6)].join('\n')}\n`);
    const set = [
      'data.train.0.path=uneven.jsonl',
      'data.maxTokens=600',
      'train.steps=8',
      'train.rowsPerStep=1',
      'train.checkpointEvery=100',
      'device=cuda',
    ];
    const again = (out: string, limit: string, resume = false) =>
      train(at('recipe.yaml'), { out: at('runs', out), set: [...set, `memoryLimit=${limit}`], resume });
    const error = await again('tight', '2MiB').then(
      () => {
        throw new Error('it did not fail');
      },
      (e: unknown) => e as { code: string; message: string },
    );
    const lines = readMetrics(at('runs', 'tight')).length;
    expect(lines).toBeGreaterThan(0);
    expect(error.code).toBe('out_of_device_memory');
    expect(error.message).toMatch(
      new RegExp(`^step ${lines + 1}: .*limit of 2 MiB.*step ${lines} is saved.*up to 600 tokens`),
    );
    expect(readRun(at('runs', 'tight'))?.status).toBe('failed');
    expect(checkpointSteps(at('runs', 'tight'))).toEqual([lines]);
    await again('tight', '1GiB', true);
    await again('roomy', '1GiB');
    expect(adapterOf('tight')).toEqual(adapterOf('roomy'));
  });
});

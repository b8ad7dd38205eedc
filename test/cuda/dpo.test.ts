// Preference tuning on the (emulated) device: the CPU's figures, whether the reference is computed beforehand or not,
// and resumed to the bit.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import './emulated.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { train } from '../../src/train/train.js';
import { tinyRun } from '../train/tiny.js';

let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
beforeAll(async () => {
  dir = await tinyRun({
    train: 'method: dpo, beta: 0.3, epochs: 2, rowsPerStep: 2, lr: 1.0e-2, precision: f32, checkpointEvery: 1',
  });
  const text = readFileSync(at('recipe.yaml'), 'utf8').replaceAll('format: tokens', 'format: preference');
  writeFileSync(at('recipe.yaml'), text);
  const side = (i: number, step: number) => {
    const tokens = Array.from({ length: 10 + i }, (_, j) => (i * 3 + (j < 4 ? j : j * step)) % 96);
    return { tokens, weights: tokens.map((_, j) => (j < 4 ? 0 : 1)) };
  };
  const pairs = [0, 1, 2, 3].map((i) => JSON.stringify({ chosen: side(i, 1), rejected: side(i, 3) }));
  writeFileSync(at('train.jsonl'), `${pairs.join('\n')}\n`);
  writeFileSync(at('eval.jsonl'), `${pairs[0]}\n`);
});
const run = (name: string, set: readonly string[], more: object = {}) =>
  train(at('recipe.yaml'), { out: at('runs', name), set, ...more });
const adapterOf = (name: string): Buffer => readFileSync(at('runs', name, 'adapter', 'adapter_model.safetensors'));

it.each([
  ['sigmoid', []],
  ['ipo', ['train.loss=ipo', 'train.beta=0.5']],
])('%s: the losses, margins and rewards of the CPU', async (name, set) => {
  await run(`${name}-cpu`, [...set, 'device=cpu']);
  const result = await run(`${name}-cuda`, [...set, 'device=cuda', 'memoryLimit=512MiB']);
  expect(result.status).toBe('done');
  const [here, there] = [readMetrics(at('runs', `${name}-cpu`)), readMetrics(at('runs', `${name}-cuda`))];
  expect(there).toHaveLength(4);
  there.forEach((m, i) => {
    for (const key of ['loss', 'margin', 'rewardChosen', 'rewardRejected'] as const)
      expect(Math.abs((m[key] ?? Number.NaN) - (here[i]?.[key] ?? Number.NaN)), key).toBeLessThan(1e-4);
  });
});

it('the reference beforehand, and a resume, change no bit', async () => {
  const set = ['device=cuda', 'memoryLimit=512MiB'];
  await run('before', [...set, 'train.precomputeReference=true']);
  expect(adapterOf('before').equals(adapterOf('sigmoid-cuda'))).toBe(true);
  const stop = new AbortController();
  await run('cut', set, {
    signal: stop.signal,
    onProgress: ({ step }: { step: number }) => step === 3 && stop.abort(),
  });
  await run('cut', set, { resume: true });
  expect(adapterOf('cut').equals(adapterOf('sigmoid-cuda'))).toBe(true);
});

// A training run on the (emulated) device: the losses of the CPU, resumed to the bit, and nothing lost when memory runs
// out.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import './emulated.js';
import { evaluate } from '../../src/evaluate/evaluate.js';
import { openSafetensors } from '../../src/native/safetensors.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { planTraining, train } from '../../src/train/train.js';
import { tinyRun } from '../train/tiny.js';

let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
const run = (name: string, set: string[], more: { resume?: boolean } = {}) =>
  train(at('recipe.yaml'), {
    out: at('runs', name),
    set: ['train.steps=4', 'train.checkpointEvery=2', ...set],
    ...more,
  });
const adapterOf = (name: string): Uint8Array[] => {
  using f = openSafetensors(at('runs', name, 'adapter', 'adapter_model.safetensors'));
  return [...f.tensors.keys()].map((k) => f.bytes(k));
};
beforeAll(async () => {
  dir = await tinyRun();
});

describe('train on the device', () => {
  it('has the losses of the CPU, and the adapter is read on either', async () => {
    // in bf16 each device rounds in its own places, and a token may go to another expert
    await run('cpu', ['train.precision=f32', 'device=cpu']);
    const result = await run('cuda', ['train.precision=f32', 'device=cuda', 'memoryLimit=512MiB']);
    expect(result.status).toBe('done');
    expect(result.peakBytes).toBeGreaterThan(0);
    for (const m of readMetrics(at('runs', 'cuda'))) {
      expect(m.percentOfLimit).toBeGreaterThan(0);
      expect(m.expertImbalance).toBeGreaterThanOrEqual(1);
    }
    const here = readMetrics(at('runs', 'cpu')),
      there = readMetrics(at('runs', 'cuda'));
    there.forEach((m, i) => {
      expect(Math.abs(m.loss - (here[i]?.loss ?? NaN))).toBeLessThan(1e-4);
      expect(m.expertImbalance).toBeCloseTo(here[i]?.expertImbalance ?? NaN, 9); // the same choices in f32
    });
    const loss = (await evaluate(at('runs', 'cuda'))).loss;
    expect(
      Math.abs(loss - (await evaluate(at('runs', 'cuda'), { set: ['device=cpu', 'memoryLimit=null'] })).loss),
    ).toBeLessThan(1e-4);
  });

  it('goes on after a stop with the same bits', async () => {
    await run('whole', ['device=cuda']);
    const stop = new AbortController();
    await train(at('recipe.yaml'), {
      out: at('runs', 'cut'),
      set: ['train.steps=4', 'train.checkpointEvery=2', 'device=cuda'],
      signal: stop.signal,
      onProgress: (p) => {
        if (p.step === 3) stop.abort();
      },
    });
    await run('cut', ['device=cuda'], { resume: true });
    expect(adapterOf('cut')).toEqual(adapterOf('whole'));
  });

  it('wherever things lie and whatever is kept: the same bits, and plan knows the memory', async () => {
    const ways = {
      device: ['never', 'never'],
      recomputed: ['never', 'always'],
      host: ['always', 'never'],
      least: ['always', 'always'],
    } as const;
    const set = ([offload, recompute]: readonly string[]): string[] => [
      'device=cuda',
      'train.steps=2',
      `train.offloadActivations=${offload}`,
      `train.offloadOptimizer=${offload}`,
      `train.recompute=${recompute}`,
    ];
    const peaks: Record<string, number> = {};
    for (const [name, way] of Object.entries(ways)) {
      const { peakBytes } = await run(name, set(way));
      peaks[name] = peakBytes;
      const { device, layout } = await planTraining(at('recipe.yaml'), { set: set(way) });
      expect(Math.abs((device?.totalPeakBytes ?? NaN) / peakBytes - 1)).toBeLessThan(0.1);
      expect(layout).toEqual({
        moments: way[0] === 'always' ? 'cpu' : 'cuda',
        layers: 2,
        kept: way[1] === 'always' ? { attention: 0, experts: 0 } : { attention: 2, experts: 2 },
      });
      expect(readRun(at('runs', name))?.memory).toEqual(layout);
      expect(readMetrics(at('runs', name)).map((m) => m.loss)).toEqual(
        readMetrics(at('runs', 'device')).map((m) => m.loss),
      );
      expect(adapterOf(name)).toEqual(adapterOf('device'));
    }
    expect(peaks.recomputed).toBeLessThan(peaks.device ?? NaN);
    expect(peaks.host).toBeLessThan(peaks.device ?? NaN);
    expect(peaks.least).toBeLessThan(Math.min(peaks.recomputed ?? NaN, peaks.host ?? NaN));
  });

  it('goes on with moments and kept activations elsewhere, with the same bits', async () => {
    const elsewhere = ['device=cuda', 'train.offloadOptimizer=always', 'train.recompute=always'];
    await run('moved', ['device=cuda', 'train.steps=2', 'train.schedule=constant']);
    await run('stayed', ['device=cuda', 'train.schedule=constant']);
    await run('moved', [...elsewhere, 'train.schedule=constant'], { resume: true });
    expect(adapterOf('moved')).toEqual(adapterOf('stayed'));
  });

  it('8-bit moments: the same bits wherever they lie, stopped or not, and less memory', async () => {
    const set = (...more: readonly string[]): string[] => [
      ...['device=cuda', 'train.schedule=constant', 'train.recompute=never', 'train.optimizer.name=adamw_8bit'],
      ...more,
    ];
    await run('codes', set('train.offloadOptimizer=never'));
    const { peakBytes } = await run('codes-moved', set('train.steps=2', 'train.offloadOptimizer=never'));
    await run('codes-moved', set('train.offloadOptimizer=always'), { resume: true });
    expect(adapterOf('codes-moved')).toEqual(adapterOf('codes'));
    for (const offload of ['never', 'always']) {
      const of = (name: string): ReturnType<typeof planTraining> =>
        planTraining(at('recipe.yaml'), {
          set: set('train.steps=2', `train.optimizer.name=${name}`, `train.offloadOptimizer=${offload}`),
        });
      const [plain, eight] = [await of('adamw'), await of('adamw_8bit')];
      const books = (plan: typeof plain): number =>
        (offload === 'never' ? plan.device?.peakBytes.optimizer : plan.peakBytes.optimizer) ?? Number.NaN;
      const saved = plain.moments.bytes - plain.moments.bytesIn8Bits;
      expect(Math.abs((books(plain) - books(eight)) / saved - 1)).toBeLessThan(0.1);
      if (offload === 'never')
        expect(Math.abs((eight.device?.totalPeakBytes ?? Number.NaN) / peakBytes - 1)).toBeLessThan(0.1);
    }
  });

  it('plan refuses a limit that is too small and names the knob', async () => {
    const plan = await planTraining(at('recipe.yaml'), { set: ['device=cuda', 'memoryLimit=50KiB'] });
    expect(plan.fits).toBe(false);
    expect(plan.advice).toMatch(/train\.offloadOptimizer/);
  });

  it('pretrains on the device', async () => {
    const init = {
      vocab_size: 96,
      hidden_size: 32,
      intermediate_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 16,
      num_local_experts: 2,
      num_experts_per_tok: 1,
      sliding_window: 8,
      max_position_embeddings: 256,
    };
    writeFileSync(
      at('scratch.yaml'),
      `model: { init: ${JSON.stringify(init)} }
data: { train: [{ path: train.jsonl, format: tokens }], maxTokens: 64 }
train: { method: pretrain, steps: 2, rowsPerStep: 6 }
`,
    );
    const losses = async (device: string): Promise<number[]> => {
      await train(at('scratch.yaml'), { out: at('runs', `scratch-${device}`), set: [`device=${device}`] });
      return readMetrics(at('runs', `scratch-${device}`)).map((m) => m.loss);
    };
    const here = await losses('cpu');
    (await losses('cuda')).forEach((x, i) => {
      expect(Math.abs(x - (here[i] ?? NaN))).toBeLessThan(5e-3);
    });
  });
});

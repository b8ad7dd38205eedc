// What the base says of the pairs is computed once: as the first epoch goes, or beforehand, with the same bits; kept in
// the run's folder, and goes on after kill -9 in the middle of it.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { runTraining, type TrainRequest } from '../../src/train/session.js';
import { planTraining } from '../../src/train/train.js';
import { tinyPairs, tinyRun } from './tiny.js';

let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
const SETTINGS = 'method: dpo, beta: 0.3, epochs: 2, rowsPerStep: 4, tokensPerBatch: 120, lr: 1.0e-2, precision: f32';
beforeAll(async () => {
  dir = await tinyRun({ train: SETTINGS, adapter: ', dropout: 0.1' });
  const text = readFileSync(at('recipe.yaml'), 'utf8').replaceAll('format: tokens', 'format: preference');
  writeFileSync(at('recipe.yaml'), text);
  writeFileSync(at('train.jsonl'), tinyPairs(26));
  writeFileSync(at('eval.jsonl'), tinyPairs(6, 100));
  await train('as-it-goes');
});
const train = (out: string, set: readonly string[] = [], more: Partial<TrainRequest> = {}, hooks = {}) =>
  runTraining({ recipe: at('recipe.yaml'), out: at('runs', out), set, ...more }, hooks);
const adapterOf = (run: string): Buffer => readFileSync(at('runs', run, 'adapter', 'adapter_model.safetensors'));
const measured = (run: string): string =>
  readMetrics(at('runs', run))
    .map(({ tokensPerSecond: _t, peakBytes: _p, ...m }) => JSON.stringify(m))
    .join('\n');

describe('the reference', () => {
  it('computed beforehand has the bits of the one computed as it goes, over two epochs', async () => {
    const seen: number[] = [];
    await train(
      'before',
      ['train.precomputeReference=true'],
      {},
      {
        onReference: ({ done, total }: { done: number; total: number }) => {
          expect(total).toBe(26);
          seen.push(done);
        },
      },
    );
    expect(seen.at(-1)).toBe(26);
    expect(adapterOf('before').equals(adapterOf('as-it-goes'))).toBe(true);
    expect(measured('before')).toBe(measured('as-it-goes'));
    expect(readMetrics(at('runs', 'before')).at(-1)?.margin).toBeGreaterThan(0);
  });

  it('is the same after a resume in the second epoch, which computes what it needs again', async () => {
    const stop = new AbortController();
    await train(
      'cut',
      ['train.checkpointEvery=3'],
      {},
      {
        signal: stop.signal,
        onProgress: ({ step }: { step: number }) => step === 9 && stop.abort(),
      },
    );
    await train('cut', ['train.checkpointEvery=3'], { resume: true });
    expect(adapterOf('cut').equals(adapterOf('as-it-goes'))).toBe(true);
    // and may then be computed beforehand
    const early = new AbortController();
    await train('cut-2', [], {}, { signal: early.signal, onProgress: () => early.abort() });
    await train('cut-2', ['train.precomputeReference=true'], { resume: true });
    expect(adapterOf('cut-2').equals(adapterOf('as-it-goes'))).toBe(true);
  });

  it('goes on where it was aborted, and is not computed twice', async () => {
    const stop = new AbortController();
    const set = ['train.precomputeReference=true'];
    const first = await train(
      'aborted',
      set,
      {},
      {
        signal: stop.signal,
        onReference: ({ done }: { done: number }) => done >= 8 && stop.abort(),
      },
    );
    expect(first).toMatchObject({ status: 'stopped', step: 0 });
    const left: number[] = [];
    const onReference = ({ done }: { done: number }): unknown => left.push(done);
    await train('aborted', set, { resume: true }, { onReference });
    expect(left[0]).toBeGreaterThan(8);
    expect(adapterOf('aborted').equals(adapterOf('as-it-goes'))).toBe(true);
  });

  it('of other bytes, or of another run, is refused by name', async () => {
    const set = ['train.precomputeReference=true', 'train.steps=2', 'train.epochs=null'];
    await train('whole', set);
    const file = at('runs', 'whole', 'reference.bin');
    const good = readFileSync(file);
    const more = ['train.precomputeReference=true', 'train.steps=3', 'train.epochs=null'];
    for (const bytes of [
      good.subarray(0, good.length - 3),
      Buffer.concat([good.subarray(0, -1), Buffer.from([good.at(-1) ?? 0 ^ 1])]).fill(7, good.length - 8),
      Buffer.from('no header'),
      Buffer.alloc(0),
      Buffer.from(good.toString('latin1').replace(/"of":"../, '"of":"zz'), 'latin1'),
    ]) {
      writeFileSync(file, bytes);
      await expect(train('whole', more, { resume: true })).rejects.toMatchObject({
        code: 'bad_reference',
        exitCode: 40,
        message: expect.stringContaining('reference.bin') as string,
      });
    }
    writeFileSync(file, good);
    expect((await train('whole', more, { resume: true })).step).toBe(3);
  });

  it('survives kill -9 in the middle of it and of the steps', async () => {
    const main = join(packageRoot, 'dist', 'cli', 'main.js');
    const args = ['train', at('recipe.yaml'), '--set', 'train.precomputeReference=true', '--out', at('runs', 'killed')];
    const killedOnce = (until: () => boolean, resume: boolean): Promise<string | null> =>
      new Promise((resolve) => {
        const child = spawn(process.execPath, [main, ...args, ...(resume ? ['--resume'] : [])], { stdio: 'ignore' });
        const timer = setInterval(() => until() && child.kill('SIGKILL'), 1);
        child.on('exit', (_, signal) => {
          clearInterval(timer);
          resolve(signal);
        });
      });
    expect(await killedOnce(() => existsSync(at('runs', 'killed', 'run.json')), false)).toBe('SIGKILL');
    await killedOnce(() => (readMetrics(at('runs', 'killed')).at(-1)?.step ?? 0) >= 5, true);
    await train('killed', ['train.precomputeReference=true'], { resume: true });
    expect(adapterOf('killed').equals(adapterOf('as-it-goes'))).toBe(true);
  });

  it('of the held-out pairs is computed once too, and both are what temper eval says', async () => {
    const set = ['train.evalEvery=4', 'train.precomputeReference=true', 'train.tensorBoard=true'];
    await train('evaluated', set);
    const evaluated = readMetrics(at('runs', 'evaluated')).filter((m) => m.evalLoss !== undefined);
    expect(evaluated.length).toBeGreaterThan(2);
    const { evaluateLoss } = await import('../../src/evaluate/held-out-loss.js');
    const { preference } = await evaluateLoss({ path: at('runs', 'evaluated') });
    const last = evaluated.at(-1);
    expect(last).toMatchObject({
      evalLoss: preference?.loss,
      evalAccuracy: preference?.accuracy,
      evalMargin: preference?.margin,
      evalRewardChosen: preference?.rewardChosen,
      evalRewardRejected: preference?.rewardRejected,
    });
    const report = readFileSync(at('runs', 'evaluated', 'report.html'), 'utf8');
    for (const title of ['Loss (of a pair)', 'Pairs preferred as wanted', 'Margin', 'Reward of the chosen answers'])
      expect(report).toContain(title);
    const events = readFileSync(at('runs', 'evaluated', 'events.out.tfevents.temper')).toString('latin1');
    for (const tag of ['train/margin', 'train/reward_chosen', 'eval/reward_rejected', 'eval/margin'])
      expect(events).toContain(tag);
  });
});

describe('a run that goes on from an adapter', () => {
  it('compares with the base all the same', async () => {
    const from = at('runs', 'as-it-goes', 'adapter');
    const step = ['train.rowsPerStep=26', 'train.epochs=null', 'train.steps=1'];
    await train('from', [`adapter.from=${from}`, 'adapter.dropout=0', ...step]);
    const [first] = readMetrics(at('runs', 'from'));
    const { evaluateLoss } = await import('../../src/evaluate/held-out-loss.js');
    const rows = ['data.eval=[{ path: train.jsonl, format: preference }]'];
    const { preference } = await evaluateLoss({ path: at('recipe.yaml'), set: rows, adapter: from });
    expect(preference?.pairs).toBe(26);
    expect(preference?.margin).toBeGreaterThan(0.01);
    for (const key of ['loss', 'margin', 'rewardChosen', 'rewardRejected', 'accuracy'] as const)
      expect(first?.[key], key).toBeCloseTo(preference?.[key] ?? Number.NaN, 4);
  });
});

describe('the plan', () => {
  it('counts the passes over the base in the first epoch alone', async () => {
    const plan = (...set: string[]) => planTraining(at('recipe.yaml'), { set: ['train.recompute=always', ...set] });
    const [two, one, before] = [
      await plan(),
      await plan('train.epochs=1'),
      await plan('train.precomputeReference=true'),
    ];
    expect(two.steps).toBe(2 * one.steps);
    const calls = (p: typeof two): number => p.byOp.attention_fwd?.calls ?? Number.NaN;
    // forward, and once more in the backward; with the reference another forward
    expect(calls(one) / calls(before)).toBeCloseTo(1.5, 10);
    for (const p of [two, one, before]) expect(p.referenceSeconds).toBeGreaterThan(0);
    expect(before.stepSeconds * before.steps + before.referenceSeconds).toBeCloseTo(before.totalSeconds, 6);
  });
});

describe('settings', () => {
  it.each([
    [['train.method=sft'], 'is for methods dpo and orpo'],
    [['train.method=orpo', 'train.precomputeReference=true'], 'is for method dpo'],
    [['train.method=orpo', 'train.labelSmoothing=0.1'], 'is for method dpo'],
    [['train.loss=ipo', 'train.labelSmoothing=0.1'], 'is for loss sigmoid'],
    [['train.dpo.beta=0.1'], 'cannot both be given'],
    [['train.labelSmoothing=0.5'], 'labelSmoothing'],
    [['train.beta=0'], 'beta'],
    [['train.loss=hinge'], 'loss'],
  ])('%j', async (set, words) => {
    await expect(train('none', set)).rejects.toMatchObject({
      code: 'bad_recipe',
      message: expect.stringContaining(words) as string,
    });
  });
  it('train.dpo.beta of recipes of before is train.beta', async () => {
    const set = ['train.steps=3', 'train.epochs=null'];
    await train('now', set);
    await train('then', [...set, 'train.beta=null', 'train.dpo.beta=0.3']);
    expect(adapterOf('then').equals(adapterOf('now'))).toBe(true);
  });
  it('ipo and smoothing train too', async () => {
    for (const set of [['train.loss=ipo', 'train.beta=0.5'], ['train.labelSmoothing=0.1']]) {
      const name = set.join();
      await train(name, ['train.epochs=4', ...set]);
      const metrics = readMetrics(at('runs', name));
      expect(metrics.at(-1)?.loss).toBeLessThan(metrics[0]?.loss ?? 0);
      expect(metrics.at(-1)?.margin).toBeGreaterThan(0);
    }
  });
});

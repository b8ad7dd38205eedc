// What a run may be resumed with, and what it may not: everything else is named.
import { appendFileSync, copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { TemperError } from '../../src/base/errors.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { runTraining } from '../../src/train/session.js';
import { tinyRun } from './tiny.js';

let dir = '';
const at = (name: string): string => join(dir, 'runs', name);
/** @param stopAt step in which the run is stopped */
const run = (out: string, set: readonly string[], { resume = false, stopAt = 0 } = {}) => {
  const notices: string[] = [];
  const stop = new AbortController();
  return runTraining(
    { recipe: join(dir, 'recipe.yaml'), out: at(out), set, resume },
    {
      signal: stop.signal,
      onNotice: (n) => void notices.push(n),
      onProgress: (p) => p.step === stopAt && stop.abort(),
    },
  ).then((result) => ({ ...result, notices }));
};
const refused = async (out: string, set: readonly string[]): Promise<TemperError> =>
  run(out, set, { resume: true }).then(
    () => expect.fail('it went on'),
    (e: unknown) => e as TemperError,
  );
const bytes = (name: string): Buffer => readFileSync(join(at(name), 'adapter', 'adapter_model.safetensors'));
const losses = (name: string): readonly string[] => readMetrics(at(name)).map((m) => `${m.step} ${m.loss} ${m.lr}`);

beforeAll(async () => {
  dir = await tinyRun({ train: 'steps: 6, rowsPerStep: 6, lr: 1.0e-2, checkpointEvery: 2' });
  await run('done', []);
});

describe('a run goes on', () => {
  it.each([
    'about=another',
    'expect={minutes: 3}',
    'train.checkpointEvery=1',
    'train.keepCheckpoints=7',
    'train.offloadActivations=never',
    'train.evalEvery=3',
    'data.eval=[]',
    'train.epochs=null',
  ])('with %s', async (edit) => {
    const before = bytes('done');
    const result = await run('done', [edit], { resume: true });
    expect(result).toMatchObject({ status: 'done', step: 6, notices: [] });
    expect(bytes('done').equals(before)).toBe(true);
  });

  it.each<[readonly string[], RegExp]>([
    [['train.lr=1'], /: train\.lr is 1, the run began with 0\.01; undo/],
    [['adapter.rank=3'], /: adapter\.rank is 3, the run began with 2; undo/],
    [['train.seed=1'], /: train\.seed is 1, the run began with 7; undo/],
    [['train.rowsPerStep=5'], /train\.rowsPerStep is 5, the run began with 6; undo/],
    [['data.loss.final=0.5'], /data\.loss\.final is 0\.5, the run began with 1; undo/],
    [['data.packing=false'], /data\.packing is false, the run began with true; undo/],
    [
      ['train.schedule=linear', 'train.warmup=0'],
      /train\.schedule is "linear".*"cosine"; train\.warmup is 0,.*0\.03; undo/,
    ],
    [['adapter.layers=[1]'], /adapter\.layers is \[1\], the run began with absent; undo/],
    [
      ['train.optimizer.betas=[0.8, 0.9]'],
      /train\.optimizer\.betas is \[0\.8,0\.9\], the run began with \[0\.9,0\.999\]/,
    ],
    [['data.train.0.path=other.jsonl'], /data\.train\.0 \(other\.jsonl\) is not what the run began with: digest/],
  ])('not with %s, and says so', async (set, message) => {
    copyFileSync(join(dir, 'train.jsonl'), join(dir, 'other.jsonl'));
    appendFileSync(join(dir, 'other.jsonl'), '{"tokens":[1,2,3]}\n');
    const error = await refused('done', set);
    expect(error).toMatchObject({ name: 'IntegrityError', code: 'run_changed', exitCode: 40 });
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain('digest is');
  });

  it('that is done is left as it is when fewer steps are asked for, and says so', async () => {
    const before = bytes('done');
    const result = await run('done', ['train.steps=4', 'about=fewer'], { resume: true });
    expect(result).toMatchObject({ status: 'done', step: 6, steps: 6 });
    expect(result.notices[0]).toMatch(/^the run is done with 6 steps, more than the 4 .*nothing is left to train/);
    expect(bytes('done').equals(before)).toBe(true);
    expect(readRun(at('done'))).toMatchObject({ about: 'fewer', steps: 6 });
    // One that is not done is not.
    await run('part', ['train.steps=9'], { stopAt: 5 });
    expect((await refused('part', ['train.steps=3'])).message).toMatch(/train asks for 3 steps, \d are done/);
  });

  it('does not take the word of a recipe.yaml that is not the one it began with', async () => {
    await run('edited', []);
    const file = join(at('edited'), 'recipe.yaml');
    writeFileSync(file, readFileSync(file, 'utf8').replace('lr: 0.01', 'lr: 0.02'));
    expect((await refused('edited', ['train.lr=0.02'])).message).toMatch(/recipe\.yaml there is not the one/);
  });
});

describe('a run that is extended', () => {
  const plain = ['train.schedule=constant', 'train.warmup=0'];

  it('has the bits of a longer one, where the schedule allows', async () => {
    const whole = await run('whole', [...plain, 'train.steps=11']);
    await run('longer', plain);
    // Stopped on the way, and gone on with: a checkpoint of the shorter run is one of this run.
    const cut = await run('longer', [...plain, 'train.steps=11'], { resume: true, stopAt: 8 });
    expect(cut).toMatchObject({ status: 'stopped', step: 8, steps: 11, notices: [] });
    expect(existsSync(join(at('longer'), 'adapter'))).toBe(false);
    const result = await run('longer', [...plain, 'train.steps=null', 'train.steps=11'], { resume: true });
    expect(result).toMatchObject({ status: 'done', step: 11, notices: [] });
    expect(bytes('longer').equals(bytes('whole'))).toBe(true);
    expect(losses('longer')).toEqual(losses('whole'));
    expect(result.digests).toEqual(whole.digests);
    expect(readRun(at('longer'))?.earlier).toMatchObject([{ steps: 6, done: 6, exact: true }]);
    // In epochs too: 40 rows, 6 a step.
    const epochs = await run('longer', [...plain, 'train.steps=null', 'train.epochs=2'], { resume: true });
    expect(epochs).toMatchObject({ status: 'done', step: 14, notices: [] });
  });

  it('says why not, where it does not', async () => {
    const whole = await run('whole cosine', ['train.steps=11']);
    const result = await run('done', ['train.steps=11'], { resume: true });
    expect(result).toMatchObject({ status: 'done', step: 11 });
    expect(result.notices).toHaveLength(1);
    expect(result.notices[0]).toMatch(
      /^extended from 6 to 11 steps after step 6: its bits are not those of a run of 11.*lr of step \d was .*constant/,
    );
    expect(bytes('done').equals(bytes('whole cosine'))).toBe(false);
    expect(losses('done').slice(6)).not.toEqual(losses('whole cosine').slice(6));
    expect(whole.status).toBe('done');
    expect(readRun(at('done'))?.earlier?.at(-1)).toMatchObject({ steps: 6, done: 6, exact: false });
  });
});

// Evaluation during training: the loss of `temper eval`, the best checkpoint, an early end, and what is trained on too.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { createGenerator } from '../../src/compose/generator.js';
import { loadPrompts } from '../../src/data/load.js';
import { evaluate } from '../../src/evaluate/evaluate.js';
import { exactMatch } from '../../src/evaluate/exact-match.js';
import { exportRun, verify } from '../../src/export/export.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { readRun } from '../../src/runs/run-folder.js';
import { matchedAnswers } from '../../src/train/held-out.js';
import { runTraining, type TrainHooks } from '../../src/train/session.js';
import { tinyRun } from './tiny.js';

let dir = '';
const at = (name: string): string => join(dir, 'runs', name);
const run = (out: string, set: readonly string[], hooks: TrainHooks = {}, resume = false) =>
  runTraining({ recipe: join(dir, 'recipe.yaml'), out: at(out), set, resume }, hooks);
const evaluations = (name: string) =>
  readMetrics(at(name)).flatMap(({ step, evalLoss, evalMatch }) => (evalLoss ? [{ step, evalLoss, evalMatch }] : []));
const checkpoints = (name: string): readonly string[] => readdirSync(join(at(name), 'checkpoints')).sort();

beforeAll(async () => {
  dir = await tinyRun();
});

describe('train.evalEvery', () => {
  it("is `temper eval`'s loss, changes no bit of what is trained, and keeps the best checkpoint", async () => {
    const seen: (number | undefined)[] = [];
    // Without steps of falling size the loss of ten rows goes up again at some time; when, hangs on the last bits.
    let set: readonly string[] = [];
    for (const lr of [0.05, 0.1, 0.3, 0.02, 0.5, 1]) {
      set = ['train.steps=20', `train.lr=${lr}`, 'train.schedule=constant', 'train.keepCheckpoints=1'];
      if (((await run(`tried-${lr}`, [...set, 'train.evalEvery=3'])).best?.step ?? 20) < 20) break;
    }
    const plain = await run('plain', set);
    const result = await run('evaluated', [...set, 'train.evalEvery=3'], {
      onProgress: (p) => void (p.evalLoss !== undefined && seen.push(p.step)),
    });
    const found = evaluations('evaluated');
    expect(found.map((e) => e.step)).toEqual([3, 6, 9, 12, 15, 18, 20]);
    expect(seen).toEqual([3, 6, 9, 12, 15, 18, 20]);
    const file = (folder: string): Buffer => readFileSync(join(folder, 'adapter', 'adapter_model.safetensors'));
    expect(file(result.run).equals(file(plain.run))).toBe(true);
    expect((await evaluate(result.run)).loss).toBe(found.at(-1)?.evalLoss);
    const best = found.reduce((a, b) => (b.evalLoss < a.evalLoss ? b : a));
    expect(best.step).toBeLessThan(20); // else the next lines would say nothing
    expect(result.best).toMatchObject({ ...best, checkpoint: join(result.run, 'checkpoints', `step-${best.step}`) });
    expect(readRun(result.run)?.best).toMatchObject(best);
    expect(checkpoints('evaluated')).toEqual(['step-20', `step-${best.step}`].sort());
    // It is exported by that name, proven, and has the loss that it had.
    const out = join(dir, 'best');
    expect(await exportRun({ run: result.run, out, checkpoint: 'best' })).toMatchObject({ step: best.step });
    expect(await verify(out)).toMatchObject({ ok: true, step: best.step });
    expect((await evaluate(join(dir, 'recipe.yaml'), { adapter: out })).loss).toBe(best.evalLoss);
    expect(readFileSync(result.report, 'utf8')).toContain('best held-out loss');
  }, 180_000);

  it('gives the same evaluations after a stop, during one as well', async () => {
    const set = ['train.steps=9', 'train.evalEvery=2'];
    await run('whole', set);
    const stop = new AbortController();
    await run('cut', set, { signal: stop.signal, onProgress: (p) => p.step === 4 && stop.abort() });
    expect(readMetrics(at('cut')).length).toBeLessThan(9);
    await run('cut', set, {}, true);
    expect(evaluations('cut')).toEqual(evaluations('whole'));
    expect(readRun(at('cut'))?.best).toEqual(readRun(at('whole'))?.best);
  }, 180_000);

  it('ends early when patience does, and stays ended', async () => {
    const set = ['train.steps=200', 'train.lr=0.1', 'train.schedule=constant', 'train.evalEvery=2', 'train.patience=2'];
    const result = await run('early', set);
    expect(result.status).toBe('done');
    expect(result.endedEarly).toBe(result.step);
    expect(result.step).toBeLessThan(200);
    const found = evaluations('early');
    const best = found.reduce((a, b) => (b.evalLoss < a.evalLoss ? b : a));
    expect(found.filter((e) => e.step > best.step)).toHaveLength(2);
    expect(existsSync(join(result.run, 'adapter'))).toBe(true);
    expect(readRun(result.run)).toMatchObject({ status: 'done', endedEarly: result.step, best: { step: best.step } });
    expect(checkpoints('early')).toContain(`step-${best.step}`);
    expect((await run('early', set, {}, true)).step).toBe(result.step);
    // More patience, more steps.
    const more = set.map((s) => s.replace('patience=2', 'patience=3'));
    expect((await run('early', more, {}, true)).step).toBeGreaterThan(result.step);
  }, 180_000);

  it('counts rows that greedy decoding answers token for token, as `temper eval` finds them by ' +
    'generating', async () => {
    const set = [
      `model.base=${join(packageRoot, 'models', 'nano')}`,
      `data.train=[{path: ${join(packageRoot, 'datasets/desk/heldout.jsonl')}}]`,
      `data.eval=[{path: ${join(packageRoot, 'datasets/desk/heldout.jsonl')}}]`,
      'data.maxTokens=384',
      'train.steps=1',
      'train.rowsPerStep=1',
      'train.lr=1e-9',
      'train.evalEvery=1',
      'train.precision=f32',
    ];
    const result = await run('nano', set);
    const [found] = evaluations('nano');
    const prompts = await loadPrompts([{ path: join(packageRoot, 'datasets/desk/heldout.jsonl'), format: 'chat' }]);
    const few = prompts.slice(0, 40);
    const generator = await createGenerator({
      model: join(packageRoot, 'models', 'nano'),
      adapter: null,
      maxTokens: 200,
    });
    const match = await exactMatch(few, generator.final, { concurrency: generator.slots });
    await generator.close();
    expect(result.best?.step).toBe(1);
    expect(found?.evalMatch).toBeGreaterThan(0.5);
    expect(Math.abs((found?.evalMatch ?? 0) - match.rate)).toBeLessThan(0.1);
  }, 180_000);

  it('looks at the last answer of each example alone', () => {
    // Two rows: analysis, a final, a question, analysis, a final; a call and nothing else. One of plain tokens.
    const [none, analysis, commentary, final] = [0, 1, 2, 3];
    const channels = Uint8Array.of(analysis, final, final, analysis, final, final, commentary, commentary, none, none);
    const targets = Int32Array.of(1, 2, 3, 7, 8, 9, 11, 12, 20, 21);
    const packed = {
      batch: { tokens: new Int32Array(30), positions: new Int32Array(30), starts: Int32Array.of(0, 10, 18, 30) },
      targets: { rows: targets, targets: new Int32Array(10), weights: new Float32Array(10).fill(1) },
      channels,
    };
    const found = (...missed: number[]): number =>
      matchedAnswers(
        packed,
        Uint8Array.from(targets, (_, i) => (missed.includes(i) ? 0 : 1)),
      ).matched;
    expect(matchedAnswers(packed, new Uint8Array(10))).toEqual({ answers: 2, matched: 0 });
    expect(found()).toBe(2);
    expect(found(0, 1, 2, 3, 6, 7)).toBe(2);
    for (const i of [4, 5, 8, 9]) expect(found(i)).toBe(1);
  });

  it.each<[string, readonly string[], string, RegExp]>([
    [
      'no rows',
      ['data.eval=[]', 'train.evalEvery=1'],
      'bad_recipe',
      /train\.evalEvery needs held-out rows: give data\.eval/,
    ],
    ['no evaluations', ['train.patience=1'], 'bad_recipe', /train\.patience needs evaluations: give train\.evalEvery/],
    ['rows that are none', ['data.eval.0.path=recipe.yaml', 'train.evalEvery=1'], 'not_json', /recipe\.yaml:1/],
  ])('%s is an error before anything is written', async (_name, set, code, message) => {
    const error = await run('none', set).then(
      () => expect.fail('it ran'),
      (e: unknown) => e as Error & { code: string },
    );
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
    expect(existsSync(at('none'))).toBe(false);
  });
});

describe('held-out rows', () => {
  const notices = async (out: string, set: readonly string[]): Promise<readonly string[]> => {
    const told: string[] = [];
    await run(out, ['train.steps=1', ...set], { onNotice: (n) => void told.push(n) });
    return told;
  };
  it('that are trained on too are said, with a place of each', async () => {
    expect(await notices('apart', [])).toEqual([]);
    const both = 'data.eval=[{path: eval.jsonl, format: tokens}, {path: train.jsonl, format: tokens}]';
    const [notice, ...more] = await notices('both', [both]);
    expect(more).toEqual([]);
    expect(notice).toMatch(/^40 of 50 held-out examples are trained on too \(.*train\.jsonl:1 is .*train\.jsonl:1\)/);
  }, 180_000);
  it('that cannot be read are said, where the run does not need them', async () => {
    const told = await notices('unread', ['data.eval.0.path=recipe.yaml']);
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(/^data\.eval cannot be used as it is, temper eval would end with: .*recipe\.yaml:1/);
  }, 180_000);
});

// Every recipe that ships, two steps of it: the nano ones on few rows; 20b's for the CPU on the slice preset (the
// released layer shapes, two layers and six experts of them); 20b's for a GPU on the emulated backend, which is slow,
// so on nano.
import '../cuda/emulated.js';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { loadDataset } from '../../src/data/load.js';
import { planSteps } from '../../src/data/order.js';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { scoreTokens } from '../../src/model/gpt-oss.js';
import { initCheckpoint } from '../../src/model/init.js';
import { loadRecipe } from '../../src/recipe/load.js';
import { readMetrics } from '../../src/runs/metrics.js';
import { runTraining } from '../../src/train/session.js';
import { planTraining } from '../../src/train/train.js';

const folder = mkdtempSync(join(tmpdir(), 'temper-recipes-'));
const slice = join(folder, 'slice');
const nano = join(packageRoot, 'models', 'nano');
const judge = join(packageRoot, 'models', 'nano-judge');
/** The first rows of a dataset in a file of its own: a recipe of E epochs of 8 rows a step takes 16/E for two steps. */
function few(path: string, rows: number, format = 'chat'): string {
  const file = join(folder, path.replace('/', '-'));
  const lines = readFileSync(join(packageRoot, 'datasets', path), 'utf8')
    .split('\n')
    .slice(0, rows);
  writeFileSync(file, `${lines.join('\n')}\n`);
  return `data.train=[{path: ${file}, format: ${format}}]`;
}
// The slice has no tokenizer of its own; nano's ids are all below its 4,096.
const onSlice = [`model.base=${slice}`, `model.tokenizer=${nano}`, 'train.tokensPerStep=1', 'train.steps=2'];
/** What is set on each recipe; the rows of desk and screening that are committed stand for those that are made. */
const RECIPES: Readonly<Record<string, readonly string[]>> = {
  '20b-lora-16gb': [`model.base=${nano}`, 'train.tokensPerStep=1', 'train.steps=2'],
  '20b-lora-cpu': onSlice,
  'nano-base': [few('desk/heldout.jsonl', 16)],
  'nano-dpo': [few('discretion/train.jsonl', 16, 'preference'), 'device=cpu'],
  'nano-judge-added': [few('screening/heldout-chat.jsonl', 16)],
  'nano-judge': [few('screening/heldout-chat.jsonl', 16)],
  // Its device is `auto`, and the emulated GPU would be taken: minutes for what the CPU does in a second.
  'nano-lora': [few('tickets/train.jsonl', 8), 'device=cpu'],
  'nano-merge-aware': [few('tickets/train.jsonl', 8), 'device=cpu'],
};
const fileOf = (name: string): string => join(packageRoot, 'recipes', `${name}.yaml`);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('every recipe is among them', () => {
  const all = readdirSync(join(packageRoot, 'recipes')).filter((f) => f.endsWith('.yaml'));
  expect(all.map((f) => f.replace('.yaml', ''))).toEqual(Object.keys(RECIPES));
  expect(all).toHaveLength(8);
});

/** The rows of the first step. */
async function firstRows(name: string, set: readonly string[]) {
  const { recipe } = loadRecipe(fileOf(name), { set });
  const tokenizer = loadTokenizer(recipe.model.tokenizer ?? recipe.model.base ?? '');
  const { examples } = await loadDataset(recipe.data.train, {
    tokenizer: () => tokenizer,
    vocabSize: 1024,
    maxTokens: recipe.data.maxTokens,
    loss: recipe.data.loss,
  });
  tokenizer.close();
  const steps = planSteps(examples.inputLengths(), recipe.train);
  return { recipe, rows: steps.rows(0).indices.map((i) => examples.at(i) ?? expect.fail('no such row')) };
}

/** Weighted mean nll that `base`, without any adapter, gives the first step's rows, one by one. */
async function lossOfBase(name: string, set: readonly string[], base: string): Promise<number> {
  const { recipe, rows } = await firstRows(name, set);
  const model = openCheckpoint(base);
  let sum = 0,
    weight = 0;
  for (const { tokens, weights } of rows) {
    const score = scoreTokens(model, null, tokens, { precision: recipe.train.precision });
    for (let i = 1; i < tokens.length; i++) {
      sum -= (weights[i] ?? 0) * (score[i - 1] ?? Number.NaN);
      weight += weights[i] ?? 0;
    }
  }
  model.close();
  return sum / weight;
}

async function twoSteps(name: string, set: readonly string[], kind = '') {
  const plan = await planTraining(fileOf(name), { set, measure: false });
  const result = await runTraining({ recipe: fileOf(name), set, out: join(folder, name + kind) });
  const losses = readMetrics(result.run).map((m) => m.loss);
  expect(losses).toHaveLength(2);
  return { plan, result, losses };
}

test.each(['20b-lora-16gb', '20b-lora-cpu', 'nano-judge-added', 'nano-lora', 'nano-merge-aware'])(
  '%s',
  async (name) => {
    const set = RECIPES[name] ?? [];
    const onNano = name !== '20b-lora-cpu';
    const widens = name === 'nano-judge-added';
    const of = widens ? judge : onNano ? nano : slice;
    if (!onNano) await initCheckpoint(slice, 'slice', { seed: 3 });
    const { plan, result, losses } = await twoSteps(name, set);
    if (name !== '20b-lora-16gb')
      expect(Math.abs(plan.totalPeakBytes / result.peakBytes - 1)).toBeLessThanOrEqual(0.05);
    else expect(plan.device?.totalPeakBytes).toBeLessThan(15.2 * 2 ** 30);
    const written = JSON.parse(readFileSync(join(result.output ?? '', 'adapter_config.json'), 'utf8')) as { r: number };
    expect(written.r).toBe(widens ? 32 : 16);
    // B begins at 0: the first loss is the base's own, by the serving path. Operands are rounded to bf16 in both, but
    // in other batches: each logit may move by about one rounding, 2⁻⁸ of its size, and the mean over the rows by less.
    const first = losses[0] ?? Number.NaN;
    const base = await lossOfBase(name, set, of);
    const tolerance = 2 ** -8;
    console.log(`${name}: first loss ${first.toFixed(5)}, the base's ${base.toFixed(5)}`);
    expect(Math.abs(first - base)).toBeLessThan(tolerance);
    expect(losses[1]).not.toBe(first);
    // The same comparison with another model of the same shapes does not hold.
    if (!onNano) return;
    const wrong = await lossOfBase(name, set, widens ? nano : judge);
    expect(Math.abs(first - wrong)).toBeGreaterThan(2 * tolerance);
  },
  400_000,
);

test.each([
  ['as it is', []],
  ['merge-aware', ['adapter.mergeAware=mxfp4']],
  ['orpo', ['train.method=orpo']],
])(
  'nano-dpo, %s',
  async (kind, set) => {
    const { plan, result, losses } = await twoSteps('nano-dpo', [...(RECIPES['nano-dpo'] ?? []), ...set], kind);
    expect(Math.abs(plan.totalPeakBytes / result.peakBytes - 1)).toBeLessThanOrEqual(0.05);
    expect(losses[1]).toBeLessThan(losses[0] ?? Number.NaN);
    if (kind === 'orpo') return;
    // B begins at 0: no answer has gained anything on the base.
    expect(Math.abs((losses[0] ?? Number.NaN) - Math.log(2))).toBeLessThan(1e-6);
    expect(readMetrics(result.run)[1]).toMatchObject({ accuracy: 1 });
  },
  180_000,
);

test.each(['nano-base', 'nano-judge'])(
  '%s',
  async (name) => {
    const set = RECIPES[name] ?? [];
    const { result, losses } = await twoSteps(name, set);
    // A head of deviation 1/√D on a normed hidden state gives logits of variance 1, and so ln V + 1/2 on average; the
    // mean over the step's distinct targets strays by 1/√n.
    const { rows } = await firstRows(name, set);
    const targets = new Set(rows.flatMap((r) => [...r.tokens].filter((_, i) => (r.weights[i] ?? 0) > 0)));
    const chance = Math.log(1024) + 0.5;
    console.log(`${name}: first loss ${losses[0]?.toFixed(4)}, chance ${chance.toFixed(4)}, ${targets.size} targets`);
    expect(Math.abs((losses[0] ?? Number.NaN) - chance)).toBeLessThan(4 / Math.sqrt(targets.size));
    expect(losses[1]).toBeLessThan(losses[0] ?? Number.NaN);
    expect(readdirSync(result.output ?? '')).toContain('config.json');
  },
  180_000,
);

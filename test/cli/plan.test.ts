// `temper plan` where the weights are not at hand: a preset's name, a folder called after one, a config.json.
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { embedded } from '../../src/base/machine.js';
import { configJson } from '../../src/model/checkpoint-writer.js';
import { PRESETS } from '../../src/model/init.js';
import { temper } from './run.js';

const root = mkdtempSync(join(tmpdir(), 'temper-plan-'));
afterAll(() => rmSync(root, { recursive: true }));
const alone = join(root, 'alone');
mkdirSync(alone);
writeFileSync(join(alone, 'config.json'), JSON.stringify(configJson(PRESETS.nano)));
copyFileSync(embedded('models/nano/tokenizer.json'), join(alone, 'tokenizer.json'));
const recipe = join(root, 'r.yaml');
writeFileSync(
  recipe,
  readFileSync(embedded('recipes/nano-lora.yaml'), 'utf8')
    .replace('../models/nano', './alone')
    .replaceAll('../datasets', embedded('datasets')),
);
const left = (): string[] => readdirSync(tmpdir()).filter((f) => f.startsWith('temper-shape-'));

it.each([
  ...readdirSync(embedded('recipes'))
    .filter((f) => f.startsWith('20b-'))
    .map((f) => [[embedded(`recipes/${f}`), '--set', 'train.tokensPerStep=512'], /shape of preset 20b/]),
  [[recipe], /shape of .*alone.config\.json/],
  [[recipe, '--shape', 'nano'], /shape of preset nano/],
  [[recipe, '--shape', join(alone, 'config.json')], /shape of .*config\.json/],
  [[recipe, '--set', 'model.base=./alone/config.json'], /shape of .*config\.json/],
  [['--model', '20b'], /shape of preset 20b/],
  [['--model', join(root, 'gpt-oss-120b')], /shape of preset 120b/],
  [['--model', alone, '--context', '256'], /shape of .*config\.json/],
  [['--model', join(alone, 'config.json'), '--context', '256'], /shape of .*config\.json/],
] as [string[], RegExp][])('%j', async (args, note) => {
  const before = left();
  const { code, stdout, stderr } = await temper(['plan', ...args, '--no-time', '--json']);
  expect(stderr).toBe('');
  const plan = JSON.parse(stdout) as { notes: string[]; totalPeakBytes: number; mappedBytes: number; fits: boolean };
  expect(code).toBe(plan.fits ? 0 : 2);
  expect(plan.notes[0]).toMatch(note);
  expect(plan.totalPeakBytes).toBeGreaterThan(0);
  expect(plan.mappedBytes).toBeGreaterThan(0);
  expect(left()).toEqual(before);
});

it('the plan of a shape is the plan of a checkpoint of that shape', async () => {
  const plan = async (base: string): Promise<Record<string, unknown>> =>
    JSON.parse((await temper(['plan', recipe, '--set', `model.base=${base}`, '--no-time', '--json'])).stdout) as Record<
      string,
      unknown
    >;
  const shape = await plan(alone),
    real = await plan(embedded('models/nano'));
  for (const key of ['steps', 'tokensPerStep', 'trainedParameters', 'peakBytes', 'totalPeakBytes'])
    expect(shape[key], key).toEqual(real[key]);
  expect(real.notes).toEqual([]);
});

it.each([
  [[recipe, '--shape', 'huge'], /--shape huge: neither a preset/],
  [[recipe, '--set', 'model.base=./nowhere'], /nowhere/],
  [['--model', join(root, 'nowhere')], /nowhere/],
])('%j: one line, exit code 2', async (args, line) => {
  const { code, stdout, stderr } = await temper(['plan', ...args, '--no-time']);
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toMatch(line);
  expect(stderr.trimEnd()).not.toContain('\n');
});

it('counts what the gate of a recipe will ask', async () => {
  const suite = embedded('gates/nano/suite.yaml');
  const gateOf = async (...edits: string[]): Promise<Record<string, number> | null> => {
    const { code, stdout, stderr } = await temper(['plan', recipe, '--no-time', '--json', ...edits]);
    expect([code, stderr]).toEqual([0, '']);
    return JSON.parse(stdout).gate;
  };
  expect(await gateOf()).toBeNull();
  const {
    prompts = 0,
    cases,
    answers = 0,
    mostTokens,
    texts,
  } = (await gateOf('--set', `gate={ suite: ${suite} }`)) ?? {};
  const rows = ['harm', 'insults'].map((f) => readFileSync(embedded(`gates/nano/prompts/${f}.jsonl`), 'utf8'));
  expect(prompts).toBeGreaterThan(rows.join('').trim().split('\n').length);
  expect(cases).toBe(prompts); // one sample of each
  expect(mostTokens).toBe(128 * answers);
  expect(texts).toBeGreaterThan(0);
  const missing = await temper(['plan', recipe, '--no-time', '--set', 'gate={ suite: ./none.yaml }']);
  expect(missing.code).toBe(2);
  expect(missing.stderr).toMatch(/none\.yaml/);
});

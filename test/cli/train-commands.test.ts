import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { rows, tinyRun } from '../train/tiny.js';
import { temper } from './run.js';

let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
beforeAll(async () => {
  dir = await tinyRun();
});
const json = async (args: readonly string[], code = 0): Promise<Record<string, unknown>> => {
  const ended = await temper([...args, '--json']);
  expect(ended.code, ended.stderr).toBe(code);
  return JSON.parse(ended.stdout) as Record<string, unknown>;
};

describe('train, eval, export, verify', () => {
  it('work one after the other, with one JSON result each', async () => {
    expect(
      await json(['train', at('recipe.yaml'), '--out', at('runs', 'r'), '--set', 'train.steps=6', '--threads', '2']),
    ).toMatchObject({ status: 'done', steps: 6 });
    const base = await json(['eval', at('recipe.yaml')]),
      run = await json(['eval', at('runs', 'r')]);
    expect(run.exactMatch).toBeNull();
    expect(run.loss as number).toBeLessThan(base.loss as number);
    expect(await json(['export', at('runs', 'r'), '--out', at('e')])).toHaveProperty([
      'files',
      'adapter_model.safetensors',
    ]);
    expect(await json(['verify', at('e')])).toMatchObject({ ok: true, maxDifference: 0 });
    const text = await temper(['verify', at('e')]);
    expect(text.stdout).toMatch(/^same: \d+ logits compared with step 6/);
    expect(await json(['train', at('recipe.yaml'), '--out', at('runs', 'r')], 2)).toMatchObject({
      error: { code: 'run_exists' },
    });
    // The adapter of another run is not what this one trained.
    await json([
      'train',
      at('recipe.yaml'),
      '--out',
      at('runs', 'other'),
      '--set',
      'train.seed=8',
      '--set',
      'train.steps=6',
    ]);
    expect(await json(['verify', join(at('runs', 'other'), 'adapter'), '--run', at('runs', 'r')], 40)).toMatchObject({
      ok: false,
    });
  });

  it.each<[string, string[], RegExp, number]>([
    ['a recipe that is not there', ['train', 'nowhere.yaml'], /nowhere\.yaml: no such recipe/, 2],
    ['an unknown key', ['train', 'bad.yaml'], /bad\.yaml:1:24: unknown key model\.bas/, 2],
    ['a run that is none', ['eval', '.'], /holds no run\.json/, 2],
    ['an export of nothing', ['export', 'recipe.yaml', '--out', 'x'], /holds no run\.json; wanted a run folder/, 2],
    ['an export nobody knows the run of', ['verify', 'base'], /name it with --run/, 2],
  ])('%s', async (_name, [command = '', path = '', ...rest], message, code) => {
    writeFileSync(at('bad.yaml'), 'model: { base: "base", bas: x }\n');
    const ended = await temper([command, path === '.' ? dir : at(path), ...rest]);
    expect(ended.code).toBe(code);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('data check', () => {
  it('reads a file past its bad rows and shows what is trained', async () => {
    writeFileSync(at('mixed.jsonl'), `${rows(3)}{"tokens": [1, "a"]}\n`);
    const { files } = (await json(['data', 'check', at('mixed.jsonl'), '--format', 'tokens'], 2)) as {
      files: Record<string, unknown>[];
    };
    expect(files[0]).toMatchObject({ rows: 4, examples: 3, badRows: 1, errors: [{ line: 4, code: 'bad_row' }] });
    const text = await temper(['data', 'check', at('mixed.jsonl'), '--format', 'tokens', '--samples', '1']);
    expect(text.stdout).toMatch(/⟦/);
    expect(text.stdout).toContain('mixed.jsonl:4: not a tokens row');
    const nano = join(packageRoot, 'models', 'nano');
    writeFileSync(
      at('chat.jsonl'),
      `${JSON.stringify({
        messages: [
          { role: 'user', content: 'hi' },
          { role: 'assistant', thinking: 'greet', content: 'hello' },
        ],
      })}\n`,
    );
    const chat = await temper(['data', 'check', at('chat.jsonl'), '--tokenizer', nano]);
    expect(chat.stdout).toContain(
      '⟦<|channel|>analysis<|message|>greet<|end|>⟧⟦<|start|>assistant<|channel|>final<|message|>hello<|return|>⟧',
    );
    expect(chat.code).toBe(0);
  });
  it('of a recipe checks what it trains and measures on', async () => {
    const { files } = (await json(['data', 'check', at('recipe.yaml')])) as { files: unknown[] };
    expect(files).toHaveLength(2);
  });
});

// What was trained belongs to the base it was trained on: a run, an export, an adapter to go on from are refused on
// another one, by whatever way they come.
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TemperError } from '../../src/base/errors.js';
import { evaluate, logitsFile } from '../../src/evaluate/evaluate.js';
import { exportRun } from '../../src/export/export.js';
import { checkAdapterBase } from '../../src/runs/adapter-base.js';
import { train } from '../../src/train/train.js';
import { tinyRun } from './tiny.js';

let dir = '';
const at = (...p: string[]): string => join(dir, ...p);
beforeAll(async () => {
  dir = await tinyRun();
  await train(at('recipe.yaml'), { out: at('run') });
  await exportRun({ run: at('run'), out: at('export') });
  writeFileSync(at('tokens.json'), '{"tokens": [[1, 2, 3]]}');
  // The same shapes, other weights: no shape could tell.
  cpSync(at('base'), at('other'), { recursive: true });
  const weights = at('other', 'model.safetensors'),
    bytes = readFileSync(weights);
  bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 1;
  writeFileSync(weights, bytes);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'works',
    (e: unknown) => {
      if (!(e instanceof TemperError)) throw e;
      expect(e.exitCode).toBe(e.code === 'bad_recipe' ? 2 : 40);
      return e.code;
    },
  );

describe('on another base', () => {
  const set = (...edits: string[]): { readonly set: string[] } => ({ set: edits });
  const logits = (adapter: string, model: string): Promise<unknown> =>
    logitsFile({ model, adapter, tokens: at('tokens.json'), out: at('logits.safetensors'), precision: 'f32' });
  it.each<[string, (base: string) => Promise<unknown>]>([
    ['eval of a run', (base) => evaluate(at('run'), set(`model.base=${base}`))],
    [
      'eval of an export',
      (base) => evaluate(at('recipe.yaml'), { ...set(`model.base=${base}`), adapter: at('export') }),
    ],
    [
      "eval of a run's adapter",
      (base) => evaluate(at('recipe.yaml'), { ...set(`model.base=${base}`), adapter: at('run', 'adapter') }),
    ],
    ['logits with an export', (base) => logits(at('export'), base)],
    ["logits with a checkpoint's adapter", (base) => logits(at('run', 'checkpoints', 'step-12', 'adapter'), base)],
    [
      'training that goes on from it',
      async (base) => {
        rmSync(at('on'), { recursive: true, force: true });
        return train(at('recipe.yaml'), {
          out: at('on'),
          ...set(`model.base=${base}`, `adapter.from=${at('export')}`, 'train.steps=1'),
        });
      },
    ],
  ])(
    '%s is refused',
    async (_, use) => {
      expect(await codeOf(use(at('base')))).toBe('works');
      expect(await codeOf(use(at('other')))).toBe('base_changed');
    },
    180_000,
  );

  it('a base that changed under the run is refused by eval and export', async () => {
    const config = at('base', 'config.json'),
      before = readFileSync(config, 'utf8');
    writeFileSync(config, before.replace('"swiglu_limit": 7', '"swiglu_limit": 6'));
    try {
      expect(readFileSync(config, 'utf8')).not.toBe(before);
      expect(await codeOf(evaluate(at('run')))).toBe('base_changed');
      expect(await codeOf(exportRun({ run: at('run'), out: at('never') }))).toBe('base_changed');
    } finally {
      writeFileSync(config, before);
    }
    expect(await codeOf(evaluate(at('run')))).toBe('works');
  });

  it('a temper.json that says another base, other tensors, or nothing that can be read is refused', async () => {
    const copy = (
      name: string,
      edit: (json: { digests: { base: string }; files: Record<string, string> }) => unknown,
    ): string => {
      cpSync(at('export'), at(name), { recursive: true });
      const json = JSON.parse(readFileSync(at(name, 'temper.json'), 'utf8')) as Parameters<typeof edit>[0];
      edit(json);
      writeFileSync(at(name, 'temper.json'), JSON.stringify(json));
      return at(name);
    };
    const base = copy('says-base', (j) => {
      j.digests.base = '0'.repeat(64);
    });
    const files = copy('says-files', (j) => {
      j.files['adapter_model.safetensors'] = '0'.repeat(64);
    });
    writeFileSync(
      join(
        copy('says-nothing', () => {}),
        'temper.json',
      ),
      '{',
    );
    expect(await codeOf(checkAdapterBase(base, at('base')))).toBe('base_changed');
    expect(await codeOf(checkAdapterBase(files, at('base')))).toBe('export_changed');
    expect(await codeOf(checkAdapterBase(at('says-nothing'), at('base')))).toBe('bad_provenance');
    const more = copy('says-more', (j) => Object.assign(j, { scale: 2 }));
    expect(await codeOf(checkAdapterBase(more, at('base')))).toBe('bad_provenance');
    // An alpha is as much a part of an adapter as its tensors are.
    const config = join(
      copy('scaled', () => {}),
      'adapter_config.json',
    );
    writeFileSync(config, readFileSync(config, 'utf8').replace(/"lora_alpha": \d+/, '"lora_alpha": 1234'));
    expect(await codeOf(checkAdapterBase(at('scaled'), at('base')))).toBe('export_changed');
    expect(await codeOf(evaluate(at('run'), { adapter: at('scaled') }))).toBe('export_changed');
    expect(await codeOf(logits(at('scaled'), at('base')))).toBe('export_changed');
    // Made elsewhere: nothing can be checked.
    rmSync(join(base, 'temper.json'));
    expect(await codeOf(checkAdapterBase(base, at('base')))).toBe('works');
  });
});

describe('adapter.from beside what it decides', () => {
  const on = (...edits: string[]): Promise<unknown> => {
    rmSync(at('on'), { recursive: true, force: true });
    return train(at('recipe.yaml'), {
      out: at('on'),
      set: [`adapter.from=${at('export')}`, 'train.steps=1', ...edits],
    });
  };
  it.each([
    'adapter.rank=3',
    'adapter.alpha=64',
    'adapter.targets=[attention]',
    'adapter.layers=[0]',
    'adapter.rsLora=true',
  ])('%s is refused', async (edit) => expect(await codeOf(on(edit))).toBe('bad_recipe'));
  it.each([
    'adapter.rank=2',
    'adapter.alpha=4',
    'adapter.targets=[experts, attention]',
    'adapter.layers=[0, 1]',
    'adapter.rsLora=false',
  ])('%s says what it has', async (edit) => {
    expect(await codeOf(on(edit))).toBe('works');
    expect(readFileSync(at('on', 'recipe.yaml'), 'utf8')).not.toMatch(/rank|targets/);
  });
});

import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/base/errors.js';
import { loadRecipe, parseRecipe, recipeDigest, writeResolved } from '../../src/recipe/load.js';
import { recipeJsonSchema } from '../../src/recipe/schema.js';

const GOOD = `about: x
model: { base: base }
adapter:
  rank: 8
  targets: [attention, experts]
data:
  train:
    - { path: train.jsonl, format: chat }
  maxTokens: 256
train:
  steps: 10
`;
const SMALLEST =
  'vocab_size: 8, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, ' +
  'num_attention_heads: 1, num_key_value_heads: 1, num_local_experts: 1';
const options = { checkPaths: false };
const fail = (text: string, set: string[] = []): ConfigError => {
  try {
    parseRecipe(text, '/r/x.yaml', { ...options, set });
  } catch (e) {
    return e as ConfigError;
  }
  throw new Error('the recipe was accepted');
};

describe('recipe', () => {
  it('fills defaults and makes paths absolute', () => {
    const { recipe, name } = parseRecipe(GOOD, '/r/x.yaml', options);
    expect(name).toBe('x');
    expect(recipe.model.base).toBe('/r/base');
    expect(recipe.data.train[0]).toEqual({ path: '/r/train.jsonl', format: 'chat' });
    expect(recipe.adapter).toMatchObject({ rank: 8, alpha: 32, rsLora: false, dropout: 0 });
    expect(recipe.train).toMatchObject({
      method: 'sft',
      lr: 2e-4,
      schedule: 'cosine',
      clipGradNorm: 1,
      precision: 'bf16',
      seed: 7,
    });
    expect(recipe.data.loss).toEqual({ analysis: 1, commentary: 1, final: 1 });
  });

  it.each<[string, string, string, string]>([
    ['unknown key at the top', `${GOOD}trian: {}\n`, 'unknown_key', '/r/x.yaml:12:1: unknown key trian'],
    [
      'unknown key inside',
      GOOD.replace('  rank: 8', '  rank: 8\n  rnak: 9'),
      'unknown_key',
      '/r/x.yaml:5:3: unknown key adapter.rnak',
    ],
    [
      'unknown key in flow style',
      GOOD.replace('{ base: base }', '{ base: base, bass: 1 }'),
      'unknown_key',
      '/r/x.yaml:2:22: unknown key model.bass',
    ],
    [
      'unknown key in a list item',
      GOOD.replace('format: chat', 'fromat: chat'),
      'unknown_key',
      '/r/x.yaml:8:28: unknown key data.train.0.fromat',
    ],
    ['wrong type', GOOD.replace('rank: 8', 'rank: eight'), 'bad_recipe', '/r/x.yaml:4:3: adapter.rank'],
    ['out of range', GOOD.replace('rank: 8', 'rank: 0'), 'bad_recipe', '/r/x.yaml:4:3: adapter.rank'],
    ['unknown target', GOOD.replace('experts]', 'expert]'), 'bad_recipe', '/r/x.yaml:5:24: adapter.targets.1'],
    [
      'bad target option',
      GOOD.replace('[attention, experts]', '{ attention: { rnk: 4 } }'),
      'unknown_key',
      'unknown key adapter.targets.attention.rnk',
    ],
    ['missing section', 'model: { base: b }\n', 'bad_recipe', '/r/x.yaml:1:1: data'],
    ['missing base', GOOD.replace('{ base: base }', '{}'), 'bad_recipe', '/r/x.yaml:2:1: model base is missing'],
    ['epochs and steps', `${GOOD}  epochs: 2\n`, 'bad_recipe', 'train.epochs and steps'],
    [
      'both step sizes',
      `${GOOD}  rowsPerStep: 2\n  tokensPerStep: 2\n`,
      'bad_recipe',
      'train.rowsPerStep and tokensPerStep',
    ],
    [
      'all channels 0',
      GOOD.replace('  maxTokens', '  loss: { analysis: 0, commentary: 0, final: 0 }\n  maxTokens'),
      'bad_recipe',
      'data.loss',
    ],
    [
      'adapter with pretrain',
      `${GOOD.replace('{ base: base }', `{ init: { ${SMALLEST} } }`)}  method: pretrain\n`,
      'bad_recipe',
      '/r/x.yaml:3:1: adapter is for methods sft, dpo and orpo',
    ],
    [
      'export with pretrain',
      `${GOOD.replace('{ base: base }', `{ init: { ${SMALLEST} } }`).replace(/adapter:[\s\S]*data:/, 'data:')}` +
        '  method: pretrain\nexport: [peft]\n',
      'bad_recipe',
      'export is for methods sft, dpo and orpo',
    ],
    ['YAML syntax', 'model: { base: b\ndata: [\n', 'bad_yaml', '/r/x.yaml:'],
    ['duplicate key', `${GOOD}about: y\n`, 'bad_yaml', '/r/x.yaml:12:1'],
    ['empty file', '', 'bad_recipe', '/r/x.yaml:1:1'],
    ['a list', '- a\n- b\n', 'bad_recipe', '/r/x.yaml:1:1'],
    [
      'alias bomb',
      `a: &a [1,1,1,1,1,1,1,1,1,1]\n${[...'bcdefgh']
        .map((c, i) => `${c}: &${c} [${Array(10).fill(`*${'abcdefg'[i]}`).join(',')}]`)
        .join('\n')}\n`,
      'bad_yaml',
      '/r/x.yaml',
    ],
  ])('%s', (_name, text, code, message) => {
    const e = fail(text);
    expect(e).toBeInstanceOf(ConfigError);
    expect(e.message).toContain(message);
    expect(e.code).toBe(code);
    expect(e.exitCode).toBe(2);
    expect(e.message).not.toContain('\n');
  });

  it('shows all that is wrong at once, unknown keys first', () => {
    const text = `about: x
modle: { base: b }
data:
  train: [{ path: train.jsonl, fromat: chat }]
train: { steps: 1, epochs: 2, lr: fast, sede: 3 }
`;
    const e = fail(text);
    const found = (e.details.problems as { code: string; path: string; message: string }[]).map((p) => [
      p.code,
      p.path,
    ]);
    expect(found).toEqual([
      ['unknown_key', 'data.train.0.fromat'],
      ['unknown_key', 'train.sede'],
      ['unknown_key', 'modle'],
      ['bad_recipe', 'model'],
      ['bad_recipe', 'train.lr'],
      ['bad_recipe', 'train.epochs'],
    ]);
    expect(e.code).toBe('unknown_key');
    for (const text of [
      '/r/x.yaml:2:1: unknown key modle; did you mean model?',
      'unknown key data.train.0.fromat; did you mean data.train.0.format?',
      'train.sede; did you mean train.seed?',
      'model is missing; wanted a section',
      'train.lr is not valid: expected number, received string',
      'train.epochs and steps cannot both be given',
    ])
      expect(e.message).toContain(text);
    // Paths are among them.
    const dir = mkdtempSync(join(tmpdir(), 'recipe-'));
    const paths = (): unknown => parseRecipe(GOOD.replace('rank: 8', 'rnk: 8'), join(dir, 'x.yaml'));
    expect(paths).toThrow(/unknown key adapter\.rnk.*also .*model\.base is base, no such.*also .*path is train\.jsonl/);
  });

  it.each<[string, string, string]>([
    ['trian', 'trian: {}', 'did you mean train?'],
    ['Steps', 'train: { Steps: 3 }', 'did you mean train.steps?'],
    ['rows_per_step', 'train: { rows_per_step: 3 }', 'did you mean train.rowsPerStep?'],
    ['checkpoint_evry', 'train: { checkpoint_evry: 3 }', 'did you mean train.checkpointEvery?'],
    ['lr at the top', 'lr: 1', 'did you mean train.lr?'],
    ['maxTokens elsewhere', 'train: { maxTokens: 3 }', 'did you mean data.maxTokens?'],
    ['learning_rate', 'train: { learning_rate: 1 }', 'did you mean train.lr?'],
    ['lora_alpha', 'adapter: { lora_alpha: 1 }', 'did you mean adapter.alpha?'],
    ['num_train_epochs', 'train: { num_train_epochs: 1 }', 'did you mean train.epochs?'],
    ['a target option', 'adapter: { targets: { experts: { rnk: 2 } } }', 'did you mean adapter.targets.experts.rank?'],
    ['nothing near', 'model: { base: b, zzzzzz: 1 }', 'known here: base, init, tokenizer'],
  ])('names what is near: %s', (_name, line, wanted) => {
    const sections = ['model: { base: b }', 'data: { train: [{ path: t.jsonl }] }'];
    const key = line.slice(0, line.indexOf(':'));
    const e = fail([...sections.filter((s) => !s.startsWith(`${key}:`)), line, ''].join('\n'));
    expect(e.code).toBe('unknown_key');
    expect(e.message).toContain(wanted);
  });

  it('--set a.b=null takes out what may not be null', () => {
    const set = ['train.steps=null', 'train.epochs=2', 'adapter=null', 'data.train.0.format=null', 'about=null'];
    const { recipe } = parseRecipe(`${GOOD}  clipGradNorm: 3\n`, '/r/x.yaml', { ...options, set });
    expect(recipe.train).toMatchObject({ epochs: 2, clipGradNorm: 3 });
    expect(recipe.train.steps).toBeUndefined();
    expect(recipe).toMatchObject({ about: '', adapter: { rank: 16 } });
    expect(recipe.data.train[0]?.format).toBe('chat');
    const off = parseRecipe(GOOD, '/r/x.yaml', { ...options, set: ['train.clipGradNorm=null'] });
    expect(off.recipe.train.clipGradNorm).toBeNull();
    const two = GOOD.replace('format: chat }', 'format: chat }\n    - { path: b.jsonl }');
    const one = parseRecipe(two, '/r/x.yaml', { ...options, set: ['data.train.0=null'] });
    expect(one.recipe.data.train.map((f) => f.path)).toEqual(['/r/b.jsonl']);
    // An unknown key of the file goes; one that is only typed stays an error, as does a section that must be there.
    expect(parseRecipe(`${GOOD}gatee: 1\n`, '/r/x.yaml', { ...options, set: ['gatee=null'] })).toBeDefined();
    expect(fail(GOOD, ['train.stesp=null']).message).toContain('--set train.stesp=null: unknown key train.stesp');
    expect(fail(GOOD, ['model=null']).message).toContain('--set model=null: model is missing');
  });

  it('a recipe that is not there leads on', () => {
    const dir = mkdtempSync(join(tmpdir(), 'recipe-'));
    const told = (path: string): string => {
      try {
        loadRecipe(path);
      } catch (e) {
        expect(e).toMatchObject({ code: 'recipe_unreadable', exitCode: 2 });
        return (e as Error).message;
      }
      throw new Error('it was read');
    };
    expect(told(join(dir, 'x.yaml'))).toMatch(/no such recipe; a recipe is a YAML file \(docs\/recipe\.md\).*recipes/);
    writeFileSync(join(dir, 'tickets.yaml'), GOOD);
    expect(told(join(dir, 'tickets'))).toContain(`did you mean ${join(dir, 'tickets.yaml')}?`);
    expect(told(join(dir, 'ticket.yml'))).toContain(`did you mean ${join(dir, 'tickets.yaml')}?`);
    expect(told(join(dir, 'other.yaml'))).toContain(`recipes in ${dir}: tickets.yaml`);
    expect(told(dir)).toContain(`recipes in ${dir}: tickets.yaml`);
    writeFileSync(join(dir, 'run.json'), '{}');
    expect(told(dir)).toContain(`it is the folder of a run; its recipe is ${join(dir, 'recipe.yaml')}`);
  });

  it('applies --set edits', () => {
    const { recipe } = parseRecipe(GOOD, '/r/x.yaml', {
      ...options,
      set: [
        'train.lr=1e-3',
        'data.train.0.path=other.jsonl',
        'train.clipGradNorm=null',
        'adapter.targets={experts: {rank: 2}}',
        'data.loss.analysis=0.5',
      ],
    });
    expect(recipe.train.lr).toBe(1e-3);
    expect(recipe.train.clipGradNorm).toBeNull();
    expect(recipe.data.train[0]?.path).toBe('/r/other.jsonl');
    expect(recipe.adapter.targets).toEqual({ experts: { rank: 2 } });
    expect(recipe.data.loss.analysis).toBe(0.5);
    expect(fail(GOOD, ['train.lrr=1']).message).toContain('--set train.lrr=1: unknown key train.lrr');
    expect(fail(GOOD, ['train.lr=-1']).message).toContain('--set train.lr=-1: train.lr');
    expect(fail(GOOD, ['about.x.y=1']).code).toBe('bad_edit');
    expect(fail(GOOD, ['nothing']).code).toBe('bad_edit');
    expect(fail(GOOD, ['__proto__.x=1']).code).toBe('unknown_key');
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });

  it('names a path that is not there by line and column', () => {
    const dir = mkdtempSync(join(tmpdir(), 'recipe-'));
    writeFileSync(join(dir, 'x.yaml'), GOOD);
    mkdirSync(join(dir, 'base'));
    let error: unknown;
    try {
      loadRecipe(join(dir, 'x.yaml'));
    } catch (e) {
      error = e;
    }
    expect(error).toMatchObject({ code: 'path_not_found', exitCode: 2 });
    expect((error as Error).message).toContain('x.yaml:8:9: data.train.0.path is train.jsonl');
    writeFileSync(join(dir, 'train.jsonl'), '');
    expect(loadRecipe(join(dir, 'x.yaml')).recipe.model.base).toBe(join(dir, 'base'));
    expect(() => loadRecipe(join(dir, 'y.yaml'))).toThrow(expect.objectContaining({ code: 'recipe_unreadable' }));
    // OWNER/NAME of a hub is no path, but where there is a folder of that owner.
    const hub = ['model.base=openai/gpt-oss-20b'];
    expect(() => loadRecipe(join(dir, 'x.yaml'), { set: hub })).toThrow(/give hf:\/\/openai\/gpt-oss-20b/);
    mkdirSync(join(dir, 'openai'));
    expect(() => loadRecipe(join(dir, 'x.yaml'), { set: hub })).toThrow(/^(?!.*hf:).*no such file or folder/);
    writeFileSync(join(dir, 'rows.jsonl'), '{"text": "a"}\n{"text": "b"}\n');
    expect(() => loadRecipe(join(dir, 'rows.jsonl'))).toThrow(/not YAML: .*are these rows\?.*data\.train/);
  });

  it('survives being written resolved into another folder, with the same digest', () => {
    const a = parseRecipe(GOOD, '/r/x.yaml', options).recipe;
    const text = writeResolved(a, '/elsewhere/runs/one');
    expect(text).not.toContain(': /');
    const b = parseRecipe(text, '/elsewhere/runs/one/recipe.yaml', options).recipe;
    expect(b).toEqual(a);
    expect(recipeDigest(b)).toBe(recipeDigest(a));
    expect(recipeDigest({ ...a, train: { ...a.train, seed: 8 } })).not.toBe(recipeDigest(a));
  });

  it('has a JSON Schema in which every field is described', () => {
    const missing: string[] = [];
    const walk = (s: Record<string, unknown>, path: string): void => {
      for (const [k, v] of Object.entries((s.properties ?? {}) as Record<string, Record<string, unknown>>)) {
        const at = `${path}.${k}`;
        if (!v.description && !at.startsWith('.model.init.') && !at.startsWith('.adapter.targets')) missing.push(at);
        walk(v, at);
      }
    };
    walk(recipeJsonSchema(), '');
    expect(missing).toEqual([]);
  });
});

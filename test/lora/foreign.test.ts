// Adapters of other makers and other ways: what changes their meaning is refused by name, whatever key says it, and
// what is no PEFT adapter is recognised.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { TemperError } from '../../src/base/errors.js';
import { readPeft } from '../../src/lora/peft.js';
import { PeftConfig, WITHOUT_EFFECT } from '../../src/lora/peft-config.js';
import { readFloatFile } from '../../src/lora/tensor-reader.js';
import { readConfig } from '../../src/model/config.js';
import { type WriteEntry, writeSafetensors } from '../../src/native/safetensors.js';
import { goldenRoot } from '../model/golden.js';

const root = mkdtempSync(join(tmpdir(), 'temper-foreign-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const config = readConfig(join(goldenRoot, 'odd'));
const golden = join(goldenRoot, '..', 'train', 'adapter');
type Json = Record<string, unknown>;
const goldenConfig = JSON.parse(readFileSync(join(golden, 'adapter_config.json'), 'utf8')) as Json;

/** The golden adapter with its config and tensors changed. */
function made(change: Json, tensors: (entries: WriteEntry[]) => WriteEntry[] = (e) => e): string {
  const dir = mkdtempSync(join(root, 'a-'));
  writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify({ ...goldenConfig, ...change }));
  using file = readFloatFile(join(golden, 'adapter_model.safetensors'));
  writeSafetensors(
    join(dir, 'adapter_model.safetensors'),
    tensors([...file.entries].map(([name, e]) => ({ name, dtype: 'F32', shape: e.shape, data: e.read() }))),
  );
  return dir;
}
/** Code and message of what reading refuses; null: it was read. */
function refused(dir: string): { readonly code: string; readonly message: string } | null {
  try {
    readPeft(dir, config).close();
    return null;
  } catch (e) {
    if (!(e instanceof TemperError)) throw e;
    expect(e.message).not.toContain('\n');
    return { code: e.code, message: e.message };
  }
}

describe('adapter_config.json', () => {
  it.each([true, false, null, 'gaussian', 'eva', 'orthogonal'])(
    'init_lora_weights %j leaves the base: read',
    (init) => {
      expect(refused(made({ init_lora_weights: init }))).toBeNull();
    },
  );
  it.each(['pissa', 'pissa_niter_16', 'olora', 'corda', 'loftq', 'lora_ga', 'something_new', 7, {}])(
    'init_lora_weights %j takes its beginning out of the base, or may: refused',
    (init) => {
      const e = refused(made({ init_lora_weights: init }));
      expect(e?.code).toBe('adapter_unsupported');
      expect(e?.message).toMatch(/init_lora_weights is .* path_initial_model_for_weight_conversion/);
    },
  );

  it(
    'every key that peft writes, with a value it never has, is refused or stands on the list ' +
      'of those without effect',
    () => {
      const odd = { of: 'no such setting' };
      let swept = 0;
      for (const key of Object.keys(goldenConfig)) {
        const e = refused(made({ [key]: odd }));
        const listed = Object.hasOwn(WITHOUT_EFFECT, key) && !Object.hasOwn(PeftConfig.shape, key);
        expect(e === null, `${key}: ${e?.message}`).toBe(listed);
        if (e) expect(e.message).toContain(key);
        swept++;
      }
      expect(swept).toBeGreaterThan(35);
      for (const reason of Object.values(WITHOUT_EFFECT)) expect(reason.length).toBeGreaterThan(10);
    },
  );
  it.each(['use_next_years_thing', 'constructor', '__proto__x', 'scaling'])('an unknown key is refused: %s', (key) => {
    expect(refused(made({ [key]: true }))).toMatchObject({ code: 'adapter_unsupported' });
    expect(refused(made({ [key]: null }))).toBeNull();
  });

  it('patterns are read as Python reads them', () => {
    const attention = (e: WriteEntry[]): WriteEntry[] => e.filter((t) => t.name.includes('self_attn'));
    const { target_parameters: _, ...rest } = goldenConfig;
    for (const pattern of [
      String.raw`(?i).*SELF_attn\.(q|k|v|o)_proj`,
      String.raw`.*\.(q|k|v|o)_proj\Z`,
      String.raw`^(?!.*lm_head).*\.(?P<m>[qkvo])_proj$`,
    ])
      expect(
        refused(made({ ...rest, target_parameters: null, target_modules: pattern }, attention)),
        pattern,
      ).toBeNull();
  });
  it.each<[string, Json]>([
    ['rank_pattern', { rank_pattern: { '(.*)*(.*)*(.*)*x': 4, ...(goldenConfig.rank_pattern as Json) } }],
    ['alpha_pattern', { alpha_pattern: { '((a|a)*)*$': 4, '(.*.*.*)*y': 2 } }],
    ['exclude_modules', { exclude_modules: '((.*)*)*x' }],
  ])('a pattern that would run for ever elsewhere takes no time: %s', (_, change) => {
    const began = performance.now();
    expect(refused(made(change))).toBeNull();
    expect(performance.now() - began).toBeLessThan(5000);
  });
  it.each<[string, Json]>([
    ['infinite', { lora_alpha: 1e39 }],
    ['nothing', { lora_alpha: 1e-60 }],
    ['nothing for one matrix', { alpha_pattern: { q_proj: 1e-60 } }],
  ])('an alpha that makes the scale %s is refused', (_, change) => {
    expect(refused(made(change))).toMatchObject({
      code: 'bad_adapter_config',
      message: expect.stringMatching(/has alpha .* a scale of (0|Infinity); wanted/),
    });
  });
  it('many patterns together are bounded', () => {
    const many = Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`${'(a|b)*'.repeat(20)}${i}`, 4]));
    expect(refused(made({ rank_pattern: many }))).toMatchObject({ code: 'bad_adapter_config' });
  });
});

describe('what is no PEFT adapter, or was saved in another way', () => {
  const E = config.num_local_experts;
  const rename = (to: (name: string) => string) => (entries: WriteEntry[]) =>
    entries.map((e) => ({ ...e, name: to(e.name) }));
  const plain = (name: string, shape: number[]): WriteEntry => ({
    name,
    dtype: 'F32',
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
  });
  const folder = (files: Record<string, string>): string => {
    const dir = mkdtempSync(join(root, 'f-'));
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(join(dir, name, '..'), { recursive: true });
      writeFileSync(join(dir, name), text);
    }
    return dir;
  };
  const conf = JSON.stringify(goldenConfig);
  it.each<[string, () => string, RegExp]>([
    [
      'a pickle',
      () => folder({ 'adapter_config.json': conf, 'adapter_model.bin': 'PK' }),
      /adapter_model\.bin, a pickle/,
    ],
    [
      'MLX',
      () =>
        folder({
          'adapter_config.json': '{"fine_tune_type":"lora","lora_parameters":{}}',
          'adapters.safetensors': 'x',
        }),
      /of MLX/,
    ],
    ['MLX without its config', () => folder({ 'adapters.safetensors': 'x' }), /of MLX/],
    ['GGUF', () => folder({ 'adapter.gguf': 'GGUF' }), /GGUF/],
    ['a GGUF file', () => join(folder({ 'adapter.gguf': 'GGUF' }), 'adapter.gguf'), /GGUF/],
    [
      'a run',
      () => folder({ 'run.json': '{}', 'adapter/adapter_config.json': conf }),
      /is a run; its adapter is .*adapter: give that/,
    ],
    [
      'a run that did not finish',
      () =>
        folder({
          'run.json': '{}',
          'checkpoints/step-2/adapter/adapter_config.json': conf,
          'checkpoints/step-10/adapter/adapter_config.json': conf,
        }),
      /last adapter is .*step-10.adapter/,
    ],
    [
      'a checkpoint of a run',
      () => join(folder({ 'checkpoints/step-6/adapter/adapter_config.json': conf }), 'checkpoints', 'step-6'),
      /a run's checkpoint; give .*adapter/,
    ],
    ['a whole model', () => folder({ 'config.json': '{}', 'model.safetensors': 'x' }), /a whole model, not an adapter/],
    ['a folder around adapters', () => folder({ 'one/adapter_config.json': conf }), /a folder around adapters/],
    ['a file', () => join(golden, 'adapter_model.safetensors'), /is a file; wanted the folder/],
    [
      'torch.compile',
      () =>
        made(
          {},
          rename((n) => `_orig_mod.${n}`),
        ),
      /_orig_mod is the wrapper of torch\.compile/,
    ],
    [
      'a saved head',
      () => made({}, (e) => [...e, plain('base_model.model.lm_head.weight', [config.vocab_size, config.hidden_size])]),
      /save_embedding_layers=False/,
    ],
    ['ZeRO-3', () => made({}, (e) => e.map((t) => plain(t.name, [0]))), /ZeRO-3/],
    [
      'one pair for all experts',
      () =>
        made({}, (e) =>
          e.map((t) => {
            if (!t.name.includes('experts')) return t;
            const [a = 0, b = 0] = t.shape;
            return plain(t.name, t.name.includes('lora_A') ? [a / E, b] : [a, b / E]);
          }),
        ),
      /one pair of rank \d+ for all \d+ experts/,
    ],
    [
      'DoRA tensors',
      () =>
        made({}, (e) => [...e, plain('base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector', [2])]),
      /DoRA/,
    ],
  ])('%s', (_, make, message) => {
    const e = refused(make());
    expect(e?.message).toMatch(message);
  });
  it('the golden adapter itself is read', () => {
    const dir = join(root, 'whole');
    cpSync(golden, dir, { recursive: true });
    expect(readdirSync(dir)).toContain('adapter_config.json');
    expect(refused(dir)).toBeNull();
  });
});

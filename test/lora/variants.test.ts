// Adapters as they are found: written by peft 0.17 to 0.21 in every variant, with peft's own logits, and in the layouts
// that other trainers write. What can mean two things is refused, naming what is known.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/base/errors.js';
import { packageRoot } from '../../src/base/machine.js';
import { type Adapter, createAdapter } from '../../src/lora/adapter.js';
import { type ReadOptions, readPeft, writePeft } from '../../src/lora/peft.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { readFloatFile } from '../../src/lora/tensor-reader.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { readConfig } from '../../src/model/config.js';
import { forwardHidden, logits } from '../../src/model/gpt-oss.js';
import { ops } from '../../src/native/ops.js';
import { type WriteEntry, writeSafetensors } from '../../src/native/safetensors.js';
import { Scope, type Tensor } from '../../src/native/tensor.js';
import { goldenRoot, pack, relativeError } from '../model/golden.js';

const root = mkdtempSync(join(tmpdir(), 'temper-variants-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const golden = join(goldenRoot, '..', 'peft');
const BASES: Readonly<Record<string, string>> = {
  odd: join(goldenRoot, 'odd'),
  nano: join(packageRoot, 'models', 'nano'),
};
interface Made {
  readonly base: string;
  readonly tokens: readonly number[];
  readonly versions: Readonly<Record<string, string>>;
}
const written = readdirSync(golden, { withFileTypes: true })
  .filter((d) => d.isDirectory() && d.name !== 'refused')
  .flatMap((d) => readdirSync(join(golden, d.name)).map((v) => join(d.name, v)));

/** Largest error of a logit, of the largest logit. */
function logitError(folder: string, options: ReadOptions = {}): number {
  const made = JSON.parse(readFileSync(join(folder, 'made.json'), 'utf8')) as Made;
  using base = openCheckpoint(BASES[made.base] ?? '');
  const adapter = readPeft(folder, base.config, options);
  try {
    using scope = new Scope();
    const hidden = forwardHidden(scope, base, adapter.model, pack([made.tokens]), { precision: 'f32' });
    using file = readFloatFile(join(folder, 'logits.safetensors'));
    return relativeError(
      logits(scope, base, hidden, 'f32').toFloat32(),
      file.entries.get('logits')?.read() ?? new Float32Array(),
    );
  } finally {
    adapter.close();
  }
}

describe('what peft wrote and no reader may take is refused by name', () => {
  it.each(readdirSync(join(golden, 'refused')))('%s', (name) => {
    const config = readConfig(BASES.odd ?? '');
    const [word = ''] = { pissa: ['init_lora_weights'], 'bias-parameter': ['gate_up_proj_bias'] }[name] ?? [
      name.split('-')[0],
    ];
    let error: unknown;
    try {
      readPeft(join(golden, 'refused', name), config).close();
    } catch (e) {
      error = e;
    }
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as CheckpointError).code).toMatch(/^adapter_(unsupported|tensor_unknown)$/);
    expect((error as CheckpointError).message).toContain(word);
  });
});

describe('what peft wrote gives its logits', () => {
  it('releases 0.17 to 0.21', () => {
    const versions = written.map(
      (w) => (JSON.parse(readFileSync(join(golden, w, 'made.json'), 'utf8')) as Made).versions,
    );
    for (const minor of ['0.17', '0.18', '0.19', '0.20', '0.21'])
      expect(
        versions.some((v) => v.peft?.startsWith(minor)),
        minor,
      ).toBe(true);
  });
  it.each(written.filter((w) => !w.endsWith('square-down')))('%s', (name) => {
    expect(logitError(join(golden, name))).toBeLessThan(1e-4);
  });
  it.each(written.filter((w) => w.endsWith('square-down')))('%s, of which nothing tells how it lies', (name) => {
    const folder = join(golden, name);
    const { versions } = JSON.parse(readFileSync(join(folder, 'made.json'), 'utf8')) as Made;
    const swaps = Number(versions.peft?.split('.')[1]) >= 19;
    if (!swaps) {
      expect(logitError(folder)).toBeLessThan(1e-4);
      return;
    }
    const error = failing(() => logitError(folder));
    expect(error).toMatchObject({ code: 'adapter_ambiguous', exitCode: 2 });
    expect(error.message).toMatch(/\[8,128\].*square.*peft 0\.\d+.*--expert-layout natural/);
    // Said, it is read; said wrongly, it is another adapter.
    // 0.19.0 asked the attribute the wrong way round.
    const right = name.includes('swapped') || versions.peft === '0.19.0' ? 'swapped' : 'natural';
    expect(logitError(folder, { expertLayout: right })).toBeLessThan(1e-4);
    expect(logitError(folder, { expertLayout: right === 'natural' ? 'swapped' : 'natural' })).toBeGreaterThan(1e-3);
  });
});

const config = readConfig(BASES.odd ?? '');
const { num_local_experts: E, hidden_size: D, intermediate_size: F, num_hidden_layers: L } = config;
const R = 2;
const failing = (f: () => unknown): CheckpointError => {
  try {
    f();
  } catch (e) {
    expect(e).toBeInstanceOf(CheckpointError);
    return e as CheckpointError;
  }
  throw new Error('it did not fail');
};
/** An adapter whose B is not zero. */
function random(over: Partial<AdapterChoice> = {}): Adapter {
  const choice = { rank: R, alpha: 6, targets: ['attention', 'experts'], rsLora: false, dropout: 0, ...over };
  const a = createAdapter(config, adapterSpec(config, choice), { seed: 1 });
  a.entries.forEach((e, i) => {
    if (e.part === 'B') ops.random_uniform(a.tensors[i] as Tensor, 100 + i, -1, 1);
  });
  return a;
}
type Json = Record<string, unknown>;
/** The adapter's folder, its tensors and config rewritten. */
async function foreign(
  a: Adapter,
  json: (c: Json) => Json,
  tensors: (entries: WriteEntry[]) => WriteEntry[],
  metadata: Record<string, string> = { format: 'pt' },
): Promise<string> {
  const dir = mkdtempSync(join(root, 'f-'));
  await writePeft(a, dir, { baseModel: 'odd' });
  const file = join(dir, 'adapter_config.json');
  writeFileSync(file, JSON.stringify(json(JSON.parse(readFileSync(file, 'utf8')) as Json)));
  const path = join(dir, 'adapter_model.safetensors');
  let entries: WriteEntry[];
  {
    using read = readFloatFile(path);
    entries = [...read.entries].map(([name, e]) => ({ name, dtype: 'F32', shape: e.shape, data: e.read() }));
  }
  writeSafetensors(path, tensors(entries), metadata);
  return dir;
}
const same = (c: Json): Json => c;
const renamed = (to: (name: string) => string) => (entries: WriteEntry[]) =>
  entries.map((e) => ({ ...e, name: to(e.name) }));

/** A's experts as linears of their own, in the names that `name` gives. */
function perExpert(a: Adapter, name: (target: 'gateUp' | 'down', e: number) => string): WriteEntry[] {
  return a.entries.flatMap((entry, i) => {
    if (entry.target !== 'gateUp' && entry.target !== 'down') return [];
    const [, rows = 0, columns = 0] = entry.shape;
    const values = (a.tensors[i] as Tensor).toFloat32();
    const target = entry.target;
    return Array.from(
      { length: E },
      (_, e): WriteEntry => ({
        name: `base_model.model.model.layers.${entry.layer}.mlp.experts.${name(target, e)}.lora_${entry.part}.weight`,
        dtype: 'F32',
        shape: [rows, columns],
        data: values.subarray(e * rows * columns, (e + 1) * rows * columns),
      }),
    );
  });
}
const without = (entries: WriteEntry[]): WriteEntry[] => entries.filter((e) => !e.name.includes('experts'));
const UNSLOTH = { gateUp: 'gate_up_projs', down: 'down_projs' } as const;
const unsloth = (target: 'gateUp' | 'down', e: number): string => `${UNSLOTH[target]}.${e}`;
const unslothConfig = ({ target_parameters: _, ...c }: Json): Json => ({
  ...c,
  target_modules:
    String.raw`(?:.*?(?:self_attn|experts).*?(?:q_proj|k_proj|v_proj|o_proj|gate_up_projs\.\d+|` +
    String.raw`down_projs\.\d+))`,
});
const floats = (a: Adapter): Float32Array => a.params.toFloat32();

describe('other trainers and other ways of saving', () => {
  it.each<[string, (name: string) => string]>([
    ['no base_model.model.', (n) => n.replace('base_model.model.', '')],
    ['saved from inside the model', (n) => n.replace('base_model.model.model.', '')],
    ['a backbone without a head', (n) => n.replace('base_model.model.model.', 'base_model.model.')],
    ["a state_dict, with the adapter's name", (n) => n.replace(/lora_([AB])/, 'lora_$1.default')],
  ])('keys of %s', async (_, to) => {
    const a = random();
    const b = readPeft(await foreign(a, same, renamed(to)), config);
    expect(floats(b)).toEqual(floats(a));
  });
  it('two adapters in one file are refused', async () => {
    const twice = (entries: WriteEntry[]): WriteEntry[] => [
      ...renamed((n) => n.replace(/lora_([AB])/, 'lora_$1.one'))(entries),
      ...renamed((n) => n.replace(/lora_([AB])/, 'lora_$1.two'))(entries),
    ];
    const dir = await foreign(random(), same, twice);
    expect(failing(() => readPeft(dir, config))).toMatchObject({ code: 'adapter_ambiguous' });
  });
  it('one matrix under two names is refused', async () => {
    const both = (entries: WriteEntry[]): WriteEntry[] => [
      ...entries,
      ...renamed((n) => n.replace('base_model.model.', ''))(entries.slice(0, 1)),
    ];
    const dir = await foreign(random(), same, both);
    const error = failing(() => readPeft(dir, config));
    expect(error.code).toBe('adapter_ambiguous');
    expect(error.message).toMatch(
      /base_model\.model\.model\.layers.* and model\.layers|model\.layers.* and base_model/,
    );
  });

  it("a linear for each expert, as Unsloth's 4-bit form has them", async () => {
    const a = random();
    const dir = await foreign(a, unslothConfig, (e) => [...without(e), ...perExpert(a, unsloth)]);
    const b = readPeft(dir, config);
    expect(floats(b)).toEqual(floats(a));
    expect(b.spec).toEqual(a.spec);
  });
  it('the same under the parameters that hold all experts', async () => {
    const a = random();
    const dir = await foreign(a, same, (e) => [...without(e), ...perExpert(a, unsloth)]);
    expect(floats(readPeft(dir, config))).toEqual(floats(a));
  });
  it('experts that the config leaves out stay as they are; one it wants is missed', async () => {
    const a = random({ targets: ['down_proj'] });
    const some = (entries: WriteEntry[]): WriteEntry[] => [
      ...without(entries),
      ...perExpert(a, unsloth).filter((e) => /_projs\.[02]\./.test(e.name)),
    ];
    const of = (modules: string[]) => foreign(a, (c) => ({ ...unslothConfig(c), target_modules: modules }), some);
    const b = readPeft(await of(['down_projs.0', 'down_projs.2']), config);
    const [A, B] = [b.tensors[0]?.toFloat32(), b.tensors[1]?.toFloat32()];
    const [wholeA, wholeB] = [a.tensors[0]?.toFloat32(), a.tensors[1]?.toFloat32()];
    for (let e = 0; e < E; e++)
      for (const [got, want] of [
        [A, wholeA],
        [B, wholeB],
      ] as const) {
        const n = (want?.length ?? 0) / E;
        const part = got?.subarray(e * n, (e + 1) * n);
        expect(part).toEqual(e % 2 || e > 2 ? new Float32Array(n) : want?.subarray(e * n, (e + 1) * n));
      }
    const all = await of(['down_projs.0', 'down_projs.1', 'down_projs.2']);
    const error = failing(() => readPeft(all, config));
    expect(error).toMatchObject({ code: 'adapter_tensor_missing' });
    expect(error.message).toContain('down_projs.1');
  });

  it('gate and up apart, by expert: the rank of both together', async () => {
    const a = random({ targets: ['experts'] });
    const entries = perExpert(a, (t, e) => `${e}.${t === 'down' ? 'down_proj' : 'gate_up_proj'}`).flatMap((e) => {
      if (!e.name.includes('gate_up')) return [e];
      const data = e.data as Float32Array;
      if (e.name.includes('lora_A'))
        return ['gate_proj', 'up_proj'].map((h) => ({ ...e, name: e.name.replace('gate_up_proj', h) }));
      // Rows of gate and up alternate.
      return ['gate_proj', 'up_proj'].map((h, half) => ({
        ...e,
        name: e.name.replace('gate_up_proj', h),
        shape: [F, R],
        data: Float32Array.from({ length: F * R }, (_, i) => data[(2 * Math.floor(i / R) + half) * R + (i % R)] ?? 0),
      }));
    });
    const modules = ['gate_proj', 'up_proj', 'down_proj'];
    const dir = await foreign(
      a,
      ({ target_parameters: _, ...c }) => ({ ...c, target_modules: modules }),
      () => entries,
    );
    const b = readPeft(dir, config);
    expect(b.spec.layers[0]?.gateUp).toEqual({ rank: 2 * R, alpha: 12 });
    expect(b.spec.layers[0]?.down).toEqual({ rank: R, alpha: 6 });
    const delta = (x: Adapter, i: number): Float32Array => {
      const [A, B] = [x.tensors[i] as Tensor, x.tensors[i + 1] as Tensor];
      const r = A.shape[1] ?? 0;
      const [av, bv] = [A.toFloat32(), B.toFloat32()];
      return Float32Array.from({ length: 2 * F * D }, (_, k) => {
        const [n, c] = [Math.floor(k / D), k % D];
        let sum = 0;
        for (let j = 0; j < r; j++) sum += (bv[n * r + j] ?? 0) * (av[j * D + c] ?? 0);
        return sum * (x.model.layers[0]?.gateUp?.scale ?? 0);
      });
    };
    expect(relativeError(delta(b, 0), delta(a, 0))).toBeLessThan(1e-6);
    expect(L).toBe(3);
  });

  it.each<[string, (entries: WriteEntry[]) => WriteEntry[], string, RegExp]>([
    [
      'an expert too many',
      renamed((n) => n.replace('_projs.4.', '_projs.9.')),
      'adapter_tensor_unknown',
      /experts 0…4/,
    ],
    [
      'one of another rank',
      (e) => e.map((t) => (t.name.includes('down_projs.1.lora_A') ? { ...t, shape: [1, R * F] } : t)),
      'tensor_shape',
      /down_projs\.1\.lora_A/,
    ],
  ])("Unsloth's form: %s", async (_, change, code, message) => {
    const a = random();
    const dir = await foreign(a, unslothConfig, (e) => change([...without(e), ...perExpert(a, unsloth)]));
    const error = failing(() => readPeft(dir, config));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });
  it('a router as a linear of its own', async () => {
    const a = random({ targets: ['router'] });
    const dir = await foreign(
      a,
      ({ target_parameters: _, ...c }) => ({ ...c, target_modules: ['router.linear'] }),
      renamed((n) => n.replace('mlp.router', 'mlp.router.linear')),
    );
    expect(floats(readPeft(dir, config))).toEqual(floats(a));
  });
  it('what cannot be applied is refused by name', async () => {
    const a = random();
    for (const [change, message] of [
      [{ modules_to_save: ['lm_head'] }, /modules_to_save is \["lm_head"\]/],
      [{ use_dora: true }, /use_dora/],
      [{ target_modules: ['q_proj', 'k_proj', 'v_proj'] }, /o_proj, which adapter_config\.json does not adapt/],
    ] as const) {
      const dir = await foreign(
        a,
        (c) => ({ ...c, ...change }),
        (e) => e,
      );
      expect(failing(() => readPeft(dir, config)).message).toMatch(message);
    }
  });
  it('an adapter of ours is read wherever it lies', () => {
    const dir = join(root, 'copied');
    cpSync(join(goldenRoot, '..', 'train', 'adapter'), dir, { recursive: true });
    readPeft(dir, config).close();
  });
});

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CheckpointError, type TemperError } from '../../src/base/errors.js';
import { type Adapter, createAdapter } from '../../src/lora/adapter.js';
import { readPeft, writePeft } from '../../src/lora/peft.js';
import { peftConfigOf } from '../../src/lora/peft-config.js';
import { parsePeftKey, stackB, unstackB } from '../../src/lora/peft-layout.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { readFloatFile } from '../../src/lora/tensor-reader.js';
import { parseConfig, readConfig } from '../../src/model/config.js';
import { ops } from '../../src/native/ops.js';
import { type WriteEntry, writeSafetensors } from '../../src/native/safetensors.js';
import { goldenRoot } from '../model/golden.js';

const golden = join(goldenRoot, '..', 'train');
const config = readConfig(join(goldenRoot, 'odd'));
const { num_local_experts: E, hidden_size: D, intermediate_size: F } = config;
const square = parseConfig({ ...config, intermediate_size: D, head_dim: 32 });
const choice = (over: Partial<AdapterChoice> = {}): AdapterChoice => ({
  rank: 3,
  alpha: 6,
  targets: ['attention', 'experts'],
  rsLora: false,
  dropout: 0,
  ...over,
});
const folder = (): string => mkdtempSync(join(tmpdir(), 'temper-lora-'));
const floats = (a: Adapter): Float32Array => a.params.toFloat32();
/** An adapter whose B is not zero. */
function random(over: Partial<AdapterChoice> = {}, c = config): Adapter {
  const a = createAdapter(c, adapterSpec(c, choice(over)), { seed: 1 });
  a.entries.forEach((e, i) => {
    const t = a.tensors[i];
    if (t && e.part === 'B') ops.random_uniform(t, 100 + i, -1, 1);
  });
  return a;
}
const failing = (f: () => unknown): TemperError => {
  try {
    f();
  } catch (e) {
    return e as TemperError;
  }
  throw new Error('it did not fail');
};

describe('a created adapter', () => {
  it('is the same for the same seed, uniform in ±1/√in in A, zero in B', () => {
    const spec = adapterSpec(
      config,
      choice({ targets: { attention: { rank: 2 }, gate_up_proj: { rank: 4, alpha: 3 }, router: null } }),
    );
    const a = createAdapter(config, spec, { seed: 5, trainable: true }),
      b = createAdapter(config, spec, { seed: 5 }),
      c = createAdapter(config, spec, { seed: 6 });
    expect(floats(a)).toEqual(floats(b));
    expect(floats(a)).not.toEqual(floats(c));
    expect(a.grads?.shape).toEqual(a.params.shape);
    expect(b.grads).toBeNull();
    expect(a.entries).toHaveLength(config.num_hidden_layers * 6 * 2);
    const seen = new Set<string>();
    a.entries.forEach((e, i) => {
      const v = a.tensors[i]?.toFloat32() ?? new Float32Array();
      if (e.part === 'B') {
        expect(v.every((x) => x === 0)).toBe(true);
        return;
      }
      const bound = 1 / Math.sqrt(e.shape.at(-1) ?? 1);
      expect(Math.max(...v)).toBeLessThanOrEqual(bound);
      expect(Math.max(...v)).toBeGreaterThan(0.8 * bound);
      expect(Math.min(...v)).toBeLessThan(-0.8 * bound);
      seen.add(v.slice(0, 4).join());
    });
    expect(seen.size).toBe(a.entries.length / 2);
    const layer = a.model.layers[1];
    expect(layer?.gateUp?.A.shape).toEqual([E, 4, D]);
    expect(layer?.gateUp?.B.shape).toEqual([E, 2 * F, 4]);
    expect(layer?.gateUp?.scale).toBe(0.75);
    expect(layer?.q?.scale).toBe(3);
    expect(layer?.router?.A.shape).toEqual([3, D]);
    expect(layer?.down).toBeUndefined();
    for (const x of [a, b, c]) {
      x.close();
      x.close();
    }
  });

  it('takes groups, single matrices, layers, rsLoRA, dropout on attention only', () => {
    const spec = adapterSpec(
      config,
      choice({ targets: { down_proj: { rank: 9 }, experts: { rank: 2 } }, layers: [2, 0], rsLora: true, dropout: 0.5 }),
    );
    expect(spec.layers[0]).toEqual({ gateUp: { rank: 2, alpha: 6 }, down: { rank: 9, alpha: 6 } });
    expect(spec.layers[1]).toEqual({});
    const a = createAdapter(config, adapterSpec(config, choice({ rsLora: true, dropout: 0.5 })));
    expect(a.model.layers[0]?.q).toMatchObject({ dropout: 0.5, scale: 6 / Math.sqrt(3) });
    expect(a.model.layers[0]?.down?.dropout).toBe(0);
    a.close();
    expect(failing(() => adapterSpec(config, choice({ layers: [3] })))).toMatchObject({
      code: 'no_such_layer',
      exitCode: 2,
    });
    expect(failing(() => adapterSpec(config, choice({ targets: {} })))).toMatchObject({ code: 'no_target' });
  });
});

describe('PEFT files', () => {
  it('columns of a stacked B are rank-major', () => {
    const ours = Float32Array.from({ length: 2 * 3 * 2 }, (_, i) => i); // E 2, N 3, R 2: ours[e][o][j]
    const file = stackB(ours, 2, 3, 2);
    for (let e = 0; e < 2; e++)
      for (let o = 0; o < 3; o++)
        for (let j = 0; j < 2; j++) expect(file[o * 4 + j * 2 + e]).toBe(ours[(e * 3 + o) * 2 + j]);
    expect(unstackB(file, 2, 3, 2)).toEqual(ours);
  });

  it.each<[string, Partial<AdapterChoice>]>([
    ['everything', { targets: ['attention', 'experts', 'router'] }],
    ['attention', { targets: ['attention'] }],
    ['gate_up alone', { targets: ['gate_up_proj'] }],
    ['down alone', { targets: ['down_proj'] }],
    ['router alone', { targets: ['router'] }],
    [
      'ranks and alphas of their own',
      {
        targets: {
          attention: { rank: 1 },
          o_proj: { rank: 5, alpha: 2 },
          gate_up_proj: { alpha: 7 },
          down_proj: { rank: 2 },
          router: { rank: 1, alpha: 9 },
        },
        rsLora: true,
      },
    ],
    [
      'some layers',
      { layers: [0, 2], targets: { experts: { rank: 2 }, q_proj: null, down_proj: { rank: 4, alpha: 1 } } },
    ],
  ])('%s: written, read back to the bit', async (_name, over) => {
    const a = random(over),
      dir = folder();
    await writePeft(a, dir, { baseModel: 'x' });
    const b = readPeft(dir, config, { trainable: true });
    expect(b.spec).toEqual({ ...a.spec, dropout: 0 });
    expect(b.entries).toEqual(a.entries);
    expect(floats(b)).toEqual(floats(a));
    expect(b.model.layers.map((l) => Object.fromEntries(Object.entries(l).map(([t, p]) => [t, p.scale])))).toEqual(
      a.model.layers.map((l) => Object.fromEntries(Object.entries(l).map(([t, p]) => [t, p.scale]))),
    );
    a.close();
    b.close();
  });

  it('have the keys and shapes peft itself wrote', async () => {
    const a = readPeft(join(golden, 'adapter'), config),
      dir = folder();
    await writePeft(a, dir, { baseModel: 'odd' });
    using ours = readFloatFile(join(dir, 'adapter_model.safetensors'));
    using theirs = readFloatFile(join(golden, 'adapter', 'adapter_model.safetensors'));
    expect([...ours.entries.keys()].sort()).toEqual([...theirs.entries.keys()].sort());
    for (const [key, entry] of theirs.entries) {
      expect(ours.entries.get(key)?.shape, key).toEqual(entry.shape);
      expect(ours.entries.get(key)?.read(), key).toEqual(entry.read());
      expect(parsePeftKey(key)).not.toBeNull();
    }
    const one = JSON.parse(readFileSync(join(dir, 'adapter_config.json'), 'utf8')) as Record<string, unknown>,
      two = JSON.parse(readFileSync(join(golden, 'adapter', 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
    expect(new Set(one.target_modules as string[])).toEqual(new Set(two.target_modules as string[]));
    expect(new Set(one.target_parameters as string[])).toEqual(new Set(two.target_parameters as string[]));
    for (const key of Object.keys(one)) expect(Object.keys(two), key).toContain(key);
    a.close();
  });

  it('name layers only where layers differ', () => {
    const of = (over: Partial<AdapterChoice>): Record<string, unknown> =>
      peftConfigOf(config, adapterSpec(config, choice(over)), 'b');
    expect(of({ targets: ['attention', 'experts'] })).toMatchObject({
      r: 3,
      target_modules: ['q_proj', 'k_proj', 'v_proj', 'o_proj'],
      target_parameters: ['mlp.experts.gate_up_proj', 'mlp.experts.down_proj'],
      rank_pattern: {},
    });
    expect(of({ targets: ['q_proj', 'experts'], layers: [1] })).toMatchObject({
      target_modules: ['layers.1.self_attn.q_proj'],
      target_parameters: ['layers.1.mlp.experts.gate_up_proj', 'layers.1.mlp.experts.down_proj'],
    });
  });
});

describe('other layouts', () => {
  /** What peft writes where the experts lack is_transposed: A on the outputs, B on the inputs. */
  function swap(a: Adapter, dir: string, c = config, drop: readonly string[] = []): void {
    using file = readFloatFile(join(dir, 'adapter_model.safetensors'));
    const entries: WriteEntry[] = [...file.entries]
      .filter(([k]) => !k.includes('experts'))
      .map(([name, e]) => ({ name, dtype: 'F32', shape: e.shape, data: e.read() }));
    a.entries.forEach((e, i) => {
      if ((e.target !== 'gateUp' && e.target !== 'down') || e.part === 'B') return;
      const A = a.tensors[i]?.toFloat32() ?? new Float32Array(),
        B = a.tensors[i + 1]?.toFloat32() ?? new Float32Array();
      const R = e.shape[1] ?? 0,
        C = e.shape[2] ?? 0,
        N = a.entries[i + 1]?.shape[1] ?? 0;
      const fileA = new Float32Array(R * E * N),
        fileB = new Float32Array(C * R * E);
      for (let x = 0; x < E; x++)
        for (let j = 0; j < R; j++) {
          for (let o = 0; o < N; o++) fileA[(x * R + j) * N + o] = B[(x * N + o) * R + j] ?? 0;
          for (let n = 0; n < C; n++) fileB[n * R * E + j * E + x] = A[(x * R + j) * C + n] ?? 0;
        }
      const nested = e.target === 'gateUp' && !drop.includes('down') ? '.base_layer' : '';
      const where = `base_model.model.model.layers.${e.layer}.mlp.experts${nested}`;
      entries.push(
        { name: `${where}.lora_A.weight`, dtype: 'F32', shape: [R * E, N], data: fileA },
        { name: `${where}.lora_B.weight`, dtype: 'F32', shape: [C, R * E], data: fileB },
      );
    });
    writeSafetensors(join(dir, 'adapter_model.safetensors'), entries, { format: 'pt' });
    expect(c.num_local_experts).toBe(E);
  }
  it.each([
    ['its own shapes', config],
    ['a square down_proj, which follows gate_up', square],
  ] as const)('the swapped one is told by %s', async (_name, c) => {
    const a = random({}, c),
      dir = folder();
    await writePeft(a, dir, { baseModel: 'x' });
    swap(a, dir, c);
    const b = readPeft(dir, c);
    expect(floats(b)).toEqual(floats(a));
    a.close();
    b.close();
  });

  it('a lone expert wrapper is told by the config, then by its shapes', async () => {
    const a = random({ targets: ['down_proj'] }),
      dir = folder();
    await writePeft(a, dir, { baseModel: 'x' });
    const file = join(dir, 'adapter_config.json');
    const json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    writeFileSync(file, JSON.stringify({ ...json, target_parameters: ['mlp.experts.gate_up_proj'] }));
    expect(failing(() => readPeft(dir, config))).toMatchObject({ code: 'tensor_shape' });
    writeFileSync(file, JSON.stringify({ ...json, target_parameters: ['experts.gate_up_proj', 'experts.down_proj'] }));
    expect(failing(() => readPeft(dir, config)).message).toMatch(/gate_up_proj, but its tensors are missing/);
    a.close();
  });

  it('bf16 and f16 tensors are read exactly', async () => {
    const a = random({ targets: ['q_proj'] }),
      dir = folder();
    await writePeft(a, dir, { baseModel: 'x' });
    const path = join(dir, 'adapter_model.safetensors');
    using file = readFloatFile(path);
    const half = [0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x8000],
      brain = [0x3f80, 0xc000, 0x0001, 0x7f7f, 0x8000, 0x4049];
    const entries: WriteEntry[] = [...file.entries].map(([name, e], i) => ({
      name,
      dtype: i % 2 ? 'BF16' : 'F16',
      shape: e.shape,
      data: Uint16Array.from(
        { length: e.shape.reduce((x, y) => x * y, 1) },
        (_, k) => (i % 2 ? brain : half)[k % 6] ?? 0,
      ),
    }));
    writeSafetensors(path, entries);
    const b = readPeft(dir, config);
    const bits = new DataView(new ArrayBuffer(4));
    b.entries.forEach((e, i) => {
      const name = `base_model.model.model.layers.${e.layer}.self_attn.q_proj.lora_${e.part}.weight`;
      const got = Array.from(b.tensors[i]?.toFloat32().slice(0, 6) ?? []);
      const asBrain = brain.map((x) => {
        bits.setUint32(0, x * 65536);
        return bits.getFloat32(0);
      });
      expect(got).toEqual(
        entries.find((x) => x.name === name)?.dtype === 'BF16'
          ? asBrain
          : [1, -2, 2 ** -24, 1023 * 2 ** -24, 65504, -0],
      );
    });
    a.close();
    b.close();
  });
});

describe('an adapter that does not fit is refused', () => {
  /** The golden adapter with its config or tensors changed. */
  function changed(
    edit: (json: Record<string, unknown>) => void,
    tensors: (entries: WriteEntry[]) => WriteEntry[] = (e) => e,
  ): string {
    const dir = folder();
    cpSync(join(golden, 'adapter'), dir, { recursive: true });
    const json = JSON.parse(readFileSync(join(dir, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
    edit(json);
    writeFileSync(join(dir, 'adapter_config.json'), JSON.stringify(json));
    using file = readFloatFile(join(golden, 'adapter', 'adapter_model.safetensors'));
    writeSafetensors(
      join(dir, 'adapter_model.safetensors'),
      tensors([...file.entries].map(([name, e]) => ({ name, dtype: 'F32', shape: e.shape, data: e.read() }))),
    );
    return dir;
  }
  const none = (): void => {};
  const q = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';
  it.each<[string, () => string, string, RegExp]>([
    [
      'another rank',
      () =>
        changed((j) => {
          j.r = 4;
        }),
      'tensor_shape',
      /is \[\d+,\d+\], wanted \[\d+,\d+\] \(rank 4\)/,
    ],
    [
      'a missing tensor',
      () => changed(none, (t) => t.filter((e) => e.name !== q)),
      'adapter_tensor_missing',
      /q_proj\.lora_A\.weight is missing beside/,
    ],
    [
      'a missing pair',
      () => changed(none, (t) => t.filter((e) => !e.name.includes('layers.0.self_attn.q_proj'))),
      'adapter_tensor_missing',
      /adapts model\.layers\.0\.self_attn\.q_proj, but its tensors are missing/,
    ],
    [
      'a pair the config does not adapt',
      () =>
        changed((j) => {
          j.target_modules = ['q_proj', 'k_proj', 'o_proj'];
        }),
      'adapter_tensor_unknown',
      /v_proj, which adapter_config\.json does not adapt/,
    ],
    [
      'a tensor that would not be applied',
      () =>
        changed(none, (t) => [
          ...t,
          { name: 'base_model.model.lm_head.lora_A.weight', dtype: 'F32', shape: [1], data: new Float32Array(1) },
        ]),
      'adapter_tensor_unknown',
      /lm_head\.lora_A\.weight is no LoRA tensor/,
    ],
    [
      'a layer that is not there',
      () => changed(none, (t) => t.map((e) => ({ ...e, name: e.name.replace('layers.2.', 'layers.7.') }))),
      'adapter_tensor_unknown',
      /for layer 7, the model has layers 0…2/,
    ],
    [
      'an inner expert wrapper alone',
      () => changed(none, (t) => t.filter((e) => !/layers\.0\.mlp\.experts\.lora/.test(e.name))),
      'adapter_tensor_missing',
      /inner expert wrapper/,
    ],
    [
      'integers',
      () => changed(none, (t) => [...t.slice(1), { ...(t[0] as WriteEntry), dtype: 'I32' }]),
      'dtype_unsupported',
      /is I32/,
    ],
    [
      'DoRA',
      () =>
        changed((j) => {
          j.use_dora = true;
        }),
      'adapter_unsupported',
      /use_dora is true/,
    ],
    [
      'biases',
      () =>
        changed((j) => {
          j.bias = 'all';
        }),
      'adapter_unsupported',
      /bias is "all"/,
    ],
    [
      'saved modules',
      () =>
        changed((j) => {
          j.modules_to_save = ['lm_head'];
        }),
      'adapter_unsupported',
      /modules_to_save/,
    ],
    [
      'another kind of adapter',
      () =>
        changed((j) => {
          j.peft_type = 'IA3';
        }),
      'adapter_unsupported',
      /peft_type is IA3/,
    ],
    [
      'a broken pattern',
      () =>
        changed((j) => {
          j.rank_pattern = { '(': 3 };
        }),
      'bad_adapter_config',
      /not a pattern/,
    ],
    [
      'a rank that is none',
      () =>
        changed((j) => {
          j.r = 'two';
        }),
      'bad_adapter_config',
      /adapter_config\.json: r:/,
    ],
    [
      'no tensors',
      () => {
        const d = changed(none);
        rmSync(join(d, 'adapter_model.safetensors'));
        return d;
      },
      'adapter_missing',
      /adapter_model\.safetensors: not there/,
    ],
    ['no folder', () => join(tmpdir(), 'nothing-here'), 'adapter_missing', /adapter_config\.json/],
    [
      'a config that is not JSON',
      () => {
        const d = changed(none);
        writeFileSync(join(d, 'adapter_config.json'), '{');
        return d;
      },
      'bad_adapter_config',
      /not JSON/,
    ],
    [
      'cut short',
      () => {
        const d = changed(none),
          f = join(d, 'adapter_model.safetensors');
        writeFileSync(f, readFileSync(f).subarray(0, -9));
        return d;
      },
      'file_truncated',
      /./,
    ],
  ])('%s', (_name, make, code, message) => {
    const error = failing(() => readPeft(make(), config));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
    expect(error.message).not.toContain('\n');
    expect(error.exitCode).toBe(2);
  });
  it('for a model of other widths', () => {
    expect(
      failing(() => readPeft(join(golden, 'adapter'), parseConfig({ ...config, hidden_size: 128 }))),
    ).toMatchObject({ code: 'tensor_shape' });
  });
});

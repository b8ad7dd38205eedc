// GGUF files as llama.cpp's own Python package reads them: every name, shape, type and value is the checkpoint's. What
// it read lies in test/golden/gguf (scripts/gguf_values.py); where a Python with gguf is at hand (TEMPER_PYTHON), it
// reads again.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { GgufFile } from '../../src/export/gguf/reader.js';
import { runExport } from '../../src/export/run-export.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { writePeft } from '../../src/lora/peft.js';
import { adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { ops } from '../../src/native/ops.js';
import type { Tensor } from '../../src/native/tensor.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gguf-'));
const nano = join(packageRoot, 'models', 'nano');
const base = openCheckpoint(nano);
afterAll(() => {
  base.close();
  rmSync(root, { recursive: true, force: true });
});
const { hidden_size: D, intermediate_size: F, num_local_experts: E } = base.config;

interface Read {
  readonly keys: Readonly<Record<string, unknown>>;
  readonly tensors: Readonly<Record<string, readonly [type: string, shape: readonly number[], digest: string]>>;
}
const golden = (name: string): Read =>
  JSON.parse(readFileSync(join(packageRoot, 'test', 'golden', 'gguf', `${name}.json`), 'utf8')) as Read;
const python = process.env.TEMPER_PYTHON ?? 'python3';
const hasReader = spawnSync(python, ['-c', 'import gguf, numpy']).status === 0;

/** As the script says it; -0 counts as 0. */
const digest = (values: Float32Array): string =>
  createHash('sha256')
    .update(Buffer.from(values.map((x) => x + 0).buffer))
    .digest('hex');
function widened(t: Tensor): Float32Array {
  const raw = t.read();
  if (raw instanceof Float32Array) return raw;
  const bits = Uint32Array.from(raw, (x) => x << 16);
  return new Float32Array(bits.buffer);
}
const CODES = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
/** A checkpoint's experts in plain arithmetic: byte j of a block has elements 2j and 2j + 1. */
function mxfp4(name: string): Float32Array {
  const blocks = base.tensors.get(`${name}_blocks`)?.read() as Uint8Array,
    scales = base.tensors.get(`${name}_scales`)?.read() as Uint8Array;
  return Float32Array.from({ length: blocks.length * 2 }, (_, i) => {
    const code = ((blocks[i >> 1] ?? 0) >> (4 * (i & 1))) & 15;
    return (code & 8 ? -1 : 1) * (CODES[code & 7] ?? 0) * 2 ** ((scales[i >> 5] ?? 0) - 127);
  });
}
/** Of rows that alternate between gate and up, one half. */
const half = (rows: Float32Array, length: number, first: 0 | 1): Float32Array =>
  rows.filter((_, i) => Math.floor(i / length) % 2 === first);

/** Every tensor of the base by its name in a GGUF file, as values. */
function* expected(): Generator<readonly [name: string, shape: readonly number[], values: Float32Array]> {
  const plain = (name: string, from: string): readonly [string, readonly number[], Float32Array] => {
    const t = base.tensors.get(from) as Tensor;
    return [name, t.shape, widened(t)];
  };
  yield plain('token_embd.weight', 'model.embed_tokens.weight');
  yield plain('output_norm.weight', 'model.norm.weight');
  yield plain('output.weight', 'lm_head.weight');
  for (let i = 0; i < base.config.num_hidden_layers; i++) {
    const [to, from] = [`blk.${i}`, `model.layers.${i}`];
    yield plain(`${to}.attn_norm.weight`, `${from}.input_layernorm.weight`);
    yield plain(`${to}.post_attention_norm.weight`, `${from}.post_attention_layernorm.weight`);
    yield plain(`${to}.attn_sinks.weight`, `${from}.self_attn.sinks`);
    const pairs = { attn_q: 'self_attn.q_proj', attn_k: 'self_attn.k_proj', attn_v: 'self_attn.v_proj' };
    for (const [a, b] of Object.entries({ ...pairs, attn_output: 'self_attn.o_proj', ffn_gate_inp: 'mlp.router' }))
      for (const part of ['weight', 'bias']) yield plain(`${to}.${a}.${part}`, `${from}.${b}.${part}`);
    const [wide, down] = [`${from}.mlp.experts.gate_up_proj`, `${from}.mlp.experts.down_proj`];
    const bias = (name: string): Float32Array => widened(base.tensors.get(`${name}_bias`) as Tensor);
    for (const [name, first] of [
      ['gate', 0],
      ['up', 1],
    ] as const) {
      yield [`${to}.ffn_${name}_exps.weight`, [E, F, D], half(mxfp4(wide), D, first)];
      yield [`${to}.ffn_${name}_exps.bias`, [E, F], half(bias(wide), 1, first)];
    }
    yield [`${to}.ffn_down_exps.weight`, [E, D, F], mxfp4(down)];
    yield [`${to}.ffn_down_exps.bias`, [E, D], bias(down)];
  }
}

const exportOf = async (format: string, adapter?: string): Promise<string> => {
  const out = join(root, `${format}-${adapter ? 'adapted' : 'base'}`);
  await runExport({ model: nano, ...(adapter ? { adapter } : {}), format: [format], out });
  return join(out, format === 'gguf-lora' ? 'adapter.gguf' : 'model.gguf');
};
const readAgain = (file: string): Read => {
  const ran = spawnSync(python, [join(packageRoot, 'scripts', 'gguf_values.py'), file], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  expect(ran.stderr).toBe('');
  return JSON.parse(ran.stdout) as Read;
};
/** Keys as our own reader has them, in the form of the golden. */
const ownKeys = (path: string): Record<string, unknown> => {
  using file = GgufFile.open(path);
  return Object.fromEntries(
    [...file.header.metadata].map(([k, v]) => [k, v.type === 'array' ? [...v.value] : v.value]),
  );
};

describe('a base', () => {
  it('is what the package read: names, shapes and values of all tensors, all keys', async () => {
    const { keys, tensors } = golden('nano');
    const want = Object.fromEntries([...expected()].map(([name, shape, values]) => [name, [shape, digest(values)]]));
    expect(Object.fromEntries(Object.entries(tensors).map(([name, [, ...rest]]) => [name, rest]))).toEqual(want);
    expect(ownKeys(await exportOf('gguf'))).toEqual(keys);
  });
  it.skipIf(!hasReader)('is read again by the gguf package (TEMPER_PYTHON)', async () => {
    rmSync(join(root, 'gguf-base'), { recursive: true, force: true });
    expect(readAgain(await exportOf('gguf'))).toEqual(golden('nano'));
  });
});

describe('an adapter', () => {
  const choice = {
    rank: 2,
    alpha: 4,
    targets: ['attention', 'experts', 'router'],
    layers: [1],
    rsLora: false,
    dropout: 0,
  };
  const adapter = createAdapter(base.config, adapterSpec(base.config, choice), { seed: 1 });
  const file = (async () => {
    adapter.entries.forEach((e, i) => {
      if (e.part === 'B') ops.random_uniform(adapter.tensors[i] as Tensor, 7 + i, -0.1, 0.1);
    });
    await writePeft(adapter, join(root, 'adapter'), { baseModel: 'nano' });
    return await exportOf('gguf-lora', join(root, 'adapter'));
  })();
  it('is what the package read', async () => {
    const { keys, tensors } = golden('nano-lora');
    const names = { q: 'attn_q', k: 'attn_k', v: 'attn_v', o: 'attn_output', router: 'ffn_gate_inp' };
    const want: Record<string, unknown> = {};
    const put = (name: string, part: string, t: Tensor, values: Float32Array): void => {
      const shape = [...t.shape];
      if (values.length < t.numel) shape[shape.length - 2] = (shape.at(-2) ?? 0) / 2;
      want[`blk.1.${name}.weight.lora_${part.toLowerCase()}`] = ['F32', shape, digest(values)];
    };
    adapter.entries.forEach(({ target, part }, i) => {
      const t = adapter.tensors[i] as Tensor,
        values = t.toFloat32();
      if (target === 'gateUp')
        for (const [name, first] of [
          ['ffn_gate_exps', 0],
          ['ffn_up_exps', 1],
        ] as const)
          put(name, part, t, part === 'A' ? values : half(values, 2, first));
      else put(target === 'down' ? 'ffn_down_exps' : names[target], part, t, values);
    });
    expect(tensors).toEqual(want);
    expect(ownKeys(await file)).toEqual(keys);
  });
  it.skipIf(!hasReader)('is read again by the gguf package (TEMPER_PYTHON)', async () => {
    expect(readAgain(await file)).toEqual(golden('nano-lora'));
  });
  afterAll(() => adapter.close());
});

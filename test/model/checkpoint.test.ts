// Checkpoints that are wrong: each refused with its typed one-line error, and nothing left mapped. Then init, inspect
// and the logits file.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { CheckpointError, DataError } from '../../src/base/errors.js';
import { digestCheckpoint, openCheckpoint } from '../../src/model/checkpoint.js';
import { checkDiskSpace, planShards, writeCheckpoint } from '../../src/model/checkpoint-writer.js';
import { type ModelConfig, parseConfig } from '../../src/model/config.js';
import { forwardHidden, scoreTokens } from '../../src/model/gpt-oss.js';
import { initCheckpoint, PRESETS } from '../../src/model/init.js';
import { countParameters, inspectCheckpoint } from '../../src/model/inspect.js';
import { checkpointTensors, specBytes } from '../../src/model/layout.js';
import { readTokens, writeLogits } from '../../src/model/logits-file.js';
import { openSafetensors } from '../../src/native/safetensors.js';
import { memoryStats, Scope } from '../../src/native/tensor.js';
import { Golden, goldenRoot, pack, relativeError } from './golden.js';

const root = mkdtempSync(join(tmpdir(), 'temper-checkpoint-'));
afterAll(() => rmSync(root, { recursive: true }));
const dir = join(root, 'model');
beforeEach(() => rmSync(dir, { recursive: true, force: true }));

type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };
/** Header and data of a safetensors file, to be changed and written back as it stands, however wrong. */
function edit(path: string, change: (header: Record<string, Entry>, data: Buffer) => Buffer | undefined): void {
  const file = readFileSync(path);
  const n = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.subarray(8, 8 + n).toString()) as Record<string, Entry>;
  const data = change(header, file.subarray(8 + n)) ?? file.subarray(8 + n);
  const json = Buffer.from(JSON.stringify(header).padEnd(Math.ceil(JSON.stringify(header).length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, data]));
}
/** A fresh copy of a golden checkpoint: `odd` is in shards with an index, `clamp` and `plain` in one file. */
function copy(name: 'odd' | 'clamp' | 'plain'): void {
  cpSync(join(goldenRoot, name), dir, { recursive: true });
  rmSync(join(dir, 'expected.safetensors'));
}
const single = join(dir, 'model.safetensors'),
  index = join(dir, 'model.safetensors.index.json'),
  configPath = join(dir, 'config.json');
const shard = (i: number): string => join(dir, `model-0000${i}-of-00001.safetensors`);
function editJson(path: string, change: (value: Record<string, unknown>) => void): void {
  const value = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  change(value);
  writeFileSync(path, JSON.stringify(value));
}
const entryOf = (h: Record<string, Entry>, name: string): Entry => h[name] ?? expect.fail(`no ${name}`);
function refused(code: string, text: RegExp): void {
  const live = memoryStats().totalLive;
  let error: unknown;
  try {
    openCheckpoint(dir).close();
  } catch (e) {
    error = e;
  }
  expect(error).toBeInstanceOf(CheckpointError);
  const e = error as CheckpointError;
  expect([e.code, e.exitCode]).toEqual([code, 2]);
  expect(e.message).toMatch(text);
  expect(e.message).not.toContain('\n');
  expect(memoryStats().totalLive).toBe(live);
}

describe('refused', () => {
  it('a truncated file', () => {
    copy('clamp');
    const b = readFileSync(single);
    writeFileSync(single, b.subarray(0, b.length - 100));
    refused('file_truncated', /ends at byte/);
  });
  it('a header longer than the file, or than the format allows', () => {
    copy('clamp');
    const b = readFileSync(single);
    b.writeBigUInt64LE(2n ** 40n);
    writeFileSync(single, b);
    refused('header_oversize', /at most/);
    b.writeBigUInt64LE(BigInt(b.length));
    writeFileSync(single, b);
    refused('file_truncated', /header of/);
  });
  it('tensors that overlap', () => {
    copy('clamp');
    edit(single, (h) => {
      const e = entryOf(h, 'model.layers.0.self_attn.k_proj.bias'),
        f = entryOf(h, 'model.layers.0.self_attn.v_proj.bias');
      f.data_offsets = e.data_offsets;
    });
    refused('tensor_overlap', /inside the tensor before/);
  });
  it('a missing tensor', () => {
    copy('clamp');
    edit(single, (h) => {
      h['model.layers.1.self_attn.sink'] = entryOf(h, 'model.layers.1.self_attn.sinks');
      delete h['model.layers.1.self_attn.sinks'];
    });
    refused('tensor_missing', /model\.layers\.1\.self_attn\.sinks is missing/);
  });
  it('a missing tensor that the index promises', () => {
    copy('odd');
    editJson(index, (v) => {
      (v.weight_map as Record<string, string>)['model.norm.weight'] = basename(shard(0));
    });
    refused('tensor_missing', /model\.norm\.weight is not in it/);
  });
  it('a missing shard', () => {
    copy('odd');
    rmSync(shard(1));
    refused('file_missing', /listed in/);
  });
  it('a duplicate within a file', () => {
    copy('clamp');
    const b = readFileSync(single),
      n = Number(b.readBigUInt64LE());
    const text = b
      .subarray(8, 8 + n)
      .toString()
      .replace('"model.layers.0.self_attn.v_proj.bias"', '"model.layers.0.self_attn.k_proj.bias"')
      .padEnd(n);
    writeFileSync(single, Buffer.concat([b.subarray(0, 8), Buffer.from(text), b.subarray(8 + n)]));
    refused('duplicate_tensor', /k_proj\.bias/);
  });
  it('a duplicate across shards', () => {
    copy('odd');
    edit(shard(1), (h, data) => {
      h['model.layers.0.self_attn.q_proj.bias'] = {
        dtype: 'BF16',
        shape: [192],
        data_offsets: [data.length, data.length + 384],
      };
      return Buffer.concat([data, Buffer.alloc(384)]);
    });
    refused('duplicate_tensor', /is also in/);
  });
  it('an unexpected tensor', () => {
    copy('clamp');
    edit(single, (h, data) => {
      h['model.layers.9.self_attn.sinks'] = { dtype: 'BF16', shape: [4], data_offsets: [data.length, data.length + 8] };
      return Buffer.concat([data, Buffer.alloc(8)]);
    });
    refused('tensor_unexpected', /layers\.9/);
  });
  it('a wrong dtype', () => {
    copy('clamp');
    edit(single, (h) => {
      entryOf(h, 'model.layers.0.self_attn.q_proj.weight').dtype = 'F16';
    });
    refused('tensor_dtype', /q_proj\.weight is F16, wanted BF16 or F32/);
  });
  it('a wrong shape', () => {
    copy('clamp');
    edit(single, (h) => {
      entryOf(h, 'model.layers.0.self_attn.o_proj.weight').shape.reverse();
    });
    refused('tensor_shape', /o_proj\.weight is \[64, 160\], config\.json says \[160, 64\]/);
  });
  it('a scale byte of 255', () => {
    copy('clamp');
    edit(single, (h, data) => {
      data[entryOf(h, 'model.layers.2.mlp.experts.down_proj_scales').data_offsets[0] + 5] = 255;
    });
    // Opening reads no scales; the layer that has it refuses to compute, every time, and inspection finds it.
    using model = openCheckpoint(dir);
    using s = new Scope();
    const bad = expect.objectContaining({
      code: 'bad_scale',
      message: expect.stringMatching(/layers\.2\.mlp\.experts\.down_proj_scales: scale 5 is 255/) as string,
    }) as Error;
    for (let i = 0; i < 2; i++)
      expect(() => forwardHidden(s, model, null, pack([[1, 2]]), { precision: 'f32' })).toThrow(bad);
    expect(() => scoreTokens(model, null, Int32Array.of(1, 2), { precision: 'f32' })).toThrow(bad);
    model.layers[1]?.verify?.();
  });
  it.each(['../other/model.safetensors', '/etc/passwd', 'a/../../x.safetensors', '..'])(
    'an index that points outside its folder: %s',
    (file) => {
      copy('odd');
      editJson(index, (v) => {
        (v.weight_map as Record<string, string>)['model.norm.weight'] = file;
      });
      refused('index_outside', /outside the checkpoint's folder/);
    },
  );
  it('an index that is none', () => {
    copy('odd');
    writeFileSync(index, '{');
    refused('bad_index', /not JSON/);
    writeFileSync(index, '{"weight_map": {"a": 3}}');
    refused('bad_index', /no file name/);
    writeFileSync(index, '[]');
    refused('bad_index', /missing or empty/);
  });
  it.each([
    ['num_local_experts', 4, 'tensor_shape', /\[3, 160\], config\.json says \[4, 160\]/],
    ['num_hidden_layers', 4, 'bad_config', /layer_types has 3 entries/],
    ['hidden_size', 192, 'tensor_shape', /config\.json says/],
    ['hidden_size', 161, 'bad_config', /no multiple of 32/],
    ['vocab_size', 300, 'tensor_shape', /embed_tokens/],
    ['num_key_value_heads', 3, 'bad_config', /not a multiple/],
    ['num_experts_per_tok', 9, 'bad_config', /above num_local_experts/],
    ['experts_per_token', 3, 'bad_config', /contradicts num_experts_per_tok/],
    ['head_dim', 15, 'bad_config', /odd/],
    ['hidden_act', 'gelu', 'bad_config', /silu/],
    ['tie_word_embeddings', true, 'tensor_unexpected', /lm_head/],
    ['attention_bias', false, 'tensor_unexpected', /bias/],
    ['model_type', 'llama', 'bad_config', /model_type/],
    ['hidden_size', undefined, 'bad_config', /hidden_size/],
    ['rope_scaling', { rope_type: 'longrope' }, 'bad_config', /rope/],
    [
      'rope_parameters',
      { rope_type: 'yarn', rope_theta: 5, factor: 4, original_max_position_embeddings: 16 },
      'bad_config',
      /rope_theta 10000 contradicts/,
    ],
  ])('a config that contradicts the tensors or itself: %s = %j', (key, value, code, text) => {
    copy('clamp');
    editJson(configPath, (c) => {
      c[key] = value;
    });
    refused(code, text);
  });
  it('fewer layers than the tensors have', () => {
    copy('clamp');
    editJson(configPath, (c) => {
      c.num_hidden_layers = 2;
      c.layer_types = ['full_attention', 'sliding_attention'];
    });
    refused('tensor_unexpected', /layers\.2/);
  });
  it('no config, a config that is no JSON, no weights', () => {
    mkdirSync(dir);
    refused('file_missing', /config\.json/);
    writeFileSync(configPath, 'x');
    refused('bad_config', /not JSON/);
    cpSync(join(goldenRoot, 'clamp', 'config.json'), configPath);
    refused('file_missing', /neither/);
  });
});

describe('init', () => {
  const tiny: ModelConfig = parseConfig({
    ...PRESETS.nano,
    vocab_size: 96,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 12,
    num_local_experts: 3,
    num_experts_per_tok: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
  });

  it(
    'writes the released layout: zero-based shards, lexical layers, an index; opens, runs, ' +
      'and the seed decides the bytes',
    async () => {
      const totals: number[] = [];
      await initCheckpoint(dir, tiny, {
        seed: 3,
        maxShardBytes: 100_000,
        onProgress: (done, total) => totals.push(done / total),
      });
      expect(totals.at(-1)).toBe(1);
      const map = JSON.parse(readFileSync(index, 'utf8')) as {
        weight_map: Record<string, string>;
        metadata: { total_size: number };
      };
      const files = readdirSync(dir)
        .filter((n) => n.endsWith('.safetensors'))
        .sort();
      expect(files.length).toBeGreaterThan(2);
      expect(files[0]).toBe(`model-00000-of-0000${files.length - 1}.safetensors`);
      expect(files.at(-1)).toBe(`model-0000${files.length - 1}-of-0000${files.length - 1}.safetensors`);
      expect([...new Set(Object.values(map.weight_map))].sort()).toEqual(files);
      expect(map.weight_map['lm_head.weight']).toBe(files.at(-1));
      expect(map.metadata.total_size).toBe(checkpointTensors(tiny).reduce((n, t) => n + specBytes(t), 0));
      expect(
        (map.weight_map['model.layers.10.self_attn.sinks'] ?? '') <=
          (map.weight_map['model.layers.2.self_attn.sinks'] ?? ''),
      ).toBe(true);
      const model = openCheckpoint(dir);
      using s = new Scope();
      const hidden = forwardHidden(s, model, null, pack([[1, 2, 3, 95]]), { precision: 'f32' }).toFloat32();
      expect(hidden.every(Number.isFinite)).toBe(true);
      model.close();
      const digest = await digestCheckpoint(dir);
      await initCheckpoint(join(root, 'again'), tiny, { seed: 3, maxShardBytes: 100_000 });
      expect(await digestCheckpoint(join(root, 'again'))).toBe(digest);
      await initCheckpoint(join(root, 'other'), tiny, { seed: 4, maxShardBytes: 100_000 });
      expect(await digestCheckpoint(join(root, 'other'))).not.toBe(digest);
      await expect(initCheckpoint(dir, tiny, { seed: 3 })).rejects.toMatchObject({ code: 'path_exists' });
    },
  );

  it('leaves nothing behind when it is stopped or its source fails', async () => {
    const stop = new AbortController();
    const here = mkdtempSync(join(root, 'stop-'));
    await expect(
      initCheckpoint(join(here, 'm'), tiny, { seed: 1, signal: stop.signal, onProgress: () => stop.abort() }),
    ).rejects.toThrow(/abort/i);
    await expect(
      writeCheckpoint(join(here, 'm'), tiny, function* () {
        yield new Uint8Array(1);
      }),
    ).rejects.toMatchObject({ code: 'tensor_shape' });
    expect(readdirSync(here)).toEqual([]);
  });

  it('is refused before anything is written when the disk is too small', async () => {
    expect(() => checkDiskSpace(root, 1e18)).toThrow(CheckpointError);
    const here = mkdtempSync(join(root, 'full-'));
    const huge = { ...PRESETS['120b'], num_hidden_layers: 1024, num_local_experts: 100_000, layer_types: undefined };
    await expect(initCheckpoint(join(here, 'm'), huge, { seed: 1 })).rejects.toMatchObject({
      code: 'disk_full',
      exitCode: 2,
    });
    expect(readdirSync(here)).toEqual([]);
  });

  it("has the released models' tensors and sizes", () => {
    const sizes = (['20b', '120b'] as const).map((p) => {
      const t = checkpointTensors(PRESETS[p]);
      return [
        t.length,
        t.reduce((n, x) => n + specBytes(x), 0),
        planShards(t, 4.8e9).length,
        countParameters(PRESETS[p]).parameters,
      ];
    });
    expect(sizes).toEqual([
      [459, 13_761_264_768, 3, 20_914_757_184],
      [687, 65_248_815_744, 15, 116_829_156_672],
    ]);
  });
});

describe('inspect', () => {
  it('counts, digests and says what is odd', async () => {
    copy('plain');
    const r = await inspectCheckpoint(dir, { full: true });
    expect(r).toMatchObject({ layout: 'mxfp4', digest: await digestCheckpoint(dir) });
    expect(r.odd).toEqual(['no tokenizer.json: text commands will need one']);
    edit(single, (h, data) => {
      data.writeUInt16LE(0x7fc0, entryOf(h, 'model.norm.weight').data_offsets[0]);
      data[entryOf(h, 'model.layers.0.mlp.experts.down_proj_scales').data_offsets[0]] = 0;
    });
    editJson(configPath, (c) => {
      delete c.quantization_config;
    });
    writeFileSync(join(dir, 'model-00007-of-00009.safetensors'), '');
    expect((await inspectCheckpoint(dir, { full: true })).odd.join('\n')).toMatch(
      /no quantization_config[\s\S]*no tokenizer[\s\S]*model-00007[\s\S]*1 MXFP4 scales are 0[\s\S]*norm holds NaN/,
    );
  });
});

describe('logits file', () => {
  it('writes the rows wanted, equal to the golden', () => {
    const g = new Golden('odd'),
      model = openCheckpoint(g.dir),
      V = model.config.vocab_size;
    const tokens = join(root, 'tokens.json'),
      out = join(root, 'logits.safetensors');
    writeFileSync(
      tokens,
      JSON.stringify({
        tokens: g.inputs.sequences,
        positions: g.inputs.sequences.map((s, i) => (i === 0 ? [39, 2] : [s.length - 1])),
      }),
    );
    expect(writeLogits(model, null, readTokens(tokens, V), out, { precision: 'f32' })).toMatchObject({
      sequences: 3,
      rows: 4,
    });
    using file = openSafetensors(out);
    expect(file.entry('logits.0').shape).toEqual([2, V]);
    const got = new Float32Array(file.bytes('logits.0').slice().buffer),
      want = g.f32('logits.0');
    expect(relativeError(got, [...want.slice(39 * V, 40 * V), ...want.slice(2 * V, 3 * V)])).toBeLessThan(1e-4);
    writeFileSync(tokens, JSON.stringify({ tokens: g.inputs.sequences }));
    expect(writeLogits(model, null, readTokens(tokens, V), out, { precision: 'f32' }).rows).toBe(64);
    model.close();
  });
  it.each([
    ['{', /not JSON/],
    ['{}', /tokens/],
    ['{"tokens": [[]]}', /tokens\.0/],
    ['{"tokens": [[1, 257]]}', /id 257 is outside/],
    ['{"tokens": [[1]], "positions": [1]}', /row 1 is outside/],
    ['{"tokens": [[1], [2]], "positions": [[0]]}', /1 lists for 2/],
    ['{"tokens": [[1.5]]}', /tokens/],
    ['{"tokens": [[1]], "more": 1}', /more/],
  ])('refuses %s', (text, message) => {
    const path = join(root, 'bad.json');
    writeFileSync(path, text);
    expect(() => readTokens(path, 257)).toThrow(DataError);
    expect(() => readTokens(path, 257)).toThrow(message);
  });
  it('leaves no file when it fails', () => {
    const model = openCheckpoint(join(goldenRoot, 'odd')),
      out = join(root, 'none.safetensors');
    expect(() =>
      writeLogits(model, null, [{ tokens: Int32Array.of(1, 9999), rows: null }], out, { precision: 'f32' }),
    ).toThrow();
    expect(existsSync(out)).toBe(false);
    model.close();
  });
});

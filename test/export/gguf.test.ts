// Exports for llama.cpp: what stands in the files, read back through another path, for a model alone and with adapters
// of every kind.
import { cpSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { ExportSource } from '../../src/export/format.js';
import { FORMATS } from '../../src/export/formats/index.js';
import { askLlama, prefixLengths } from '../../src/export/gguf/llama-consumer.js';
import { asLlamaRounds, f16, q8Values } from '../../src/export/gguf/llama-rounding.js';
import { asLlamaRotates } from '../../src/export/gguf/model.js';
import { GgufFile } from '../../src/export/gguf/reader.js';
import { packBlocks } from '../../src/export/gguf/repack.js';
import { runExport } from '../../src/export/run-export.js';
import { openSource } from '../../src/export/source.js';
import { logitsOf } from '../../src/export/verify-logits.js';
import { createAdapter } from '../../src/lora/adapter.js';
import { adapterOf, writePeft } from '../../src/lora/peft.js';
import { type AdapterChoice, adapterSpec } from '../../src/lora/spec.js';
import { openCheckpoint } from '../../src/model/checkpoint.js';
import { ropeParameters, ropeSettings } from '../../src/model/config.js';
import type { ModelWeights } from '../../src/model/types.js';
import { ops } from '../../src/native/ops.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gguf-'));
const nano = join(packageRoot, 'models', 'nano');
const base = openCheckpoint(nano);
afterAll(() => base.close());
const { config } = base;
const { num_local_experts: E, hidden_size: D, intermediate_size: F, vocab_size: V } = config;
const tokens = Int32Array.from({ length: 150 }, (_, i) => (i * 37 + 11) % V);

let made = 0;
/** A folder with an adapter whose pairs all do something. */
async function adapter(over: Partial<AdapterChoice> = {}): Promise<string> {
  const choice: AdapterChoice = {
    rank: 4,
    alpha: 8,
    targets: ['attention', 'experts'],
    rsLora: false,
    dropout: 0,
    ...over,
  };
  const a = createAdapter(config, adapterSpec(config, choice), { seed: 1 });
  a.entries.forEach((e, i) => {
    const t = a.tensors[i];
    if (t && e.part === 'B') ops.random_uniform(t, 100 + i, -0.1, 0.1);
  });
  const folder = join(root, `adapter-${made++}`);
  await writePeft(a, folder, { baseModel: 'nano' });
  a.close();
  return folder;
}
const formatOf = (name: string): (typeof FORMATS)[number] => {
  const found = FORMATS.find((f) => f.name === name);
  if (!found) throw new Error(name);
  return found;
};
async function exported(format: string, from?: string, model = nano): Promise<string> {
  const out = join(root, `${format}-${made++}`);
  await runExport({ model, ...(from === undefined ? {} : { adapter: from }), format: [format], out });
  return out;
}
/** Largest difference between the export's logits and those of base and adapter, of the largest logit. */
async function distance(format: string, out: string, from?: string): Promise<number> {
  using source = await openSource({ model: nano, ...(from === undefined ? {} : { adapter: from }) });
  const trained = source.adapter ? adapterOf(source.adapter) : null;
  using reloaded = formatOf(format).reload(out, source.base);
  const got = logitsOf(reloaded.model, reloaded.adapter, tokens),
    want = logitsOf(base, trained?.model ?? null, tokens);
  trained?.close();
  const most = want.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
  return want.reduce((a, x, i) => Math.max(a, Math.abs(x - (got[i] ?? Number.NaN))), 0) / most;
}

describe('gguf of a model alone', () => {
  it('computes the same bits', async () => {
    const out = await exported('gguf');
    expect(await distance('gguf', out)).toBe(0);
    const listed = ['Modelfile', 'README.md', 'model.gguf', 'temper.json'];
    expect(listed.filter((name) => !existsSync(join(out, name)))).toEqual([]);
    expect(readFileSync(join(out, 'Modelfile'), 'utf8')).toContain('FROM ./model.gguf');
  });
  it('has the keys that llama.cpp asks for, and all tensors under its names', async () => {
    using file = GgufFile.open(join(await exported('gguf'), 'model.gguf'));
    const { metadata, tensors } = file.header;
    const value = (key: string): unknown => metadata.get(key)?.value;
    expect(
      Object.fromEntries(
        [...metadata].filter(([, v]) => v.type !== 'array').map(([k, v]) => [k.replace('gpt-oss.', ''), v.value]),
      ),
    ).toMatchObject({
      'general.architecture': 'gpt-oss',
      'general.type': 'model',
      'general.quantization_version': 2,
      'general.file_type': 38,
      block_count: 4,
      context_length: 1024,
      embedding_length: D,
      feed_forward_length: F,
      expert_feed_forward_length: F,
      'attention.head_count': 8,
      'attention.head_count_kv': 2,
      'attention.key_length': 32,
      'attention.value_length': 32,
      'attention.layer_norm_rms_epsilon': Math.fround(1e-5),
      'attention.sliding_window': 128,
      expert_count: E,
      expert_used_count: 2,
      'rope.freq_base': 150000,
      'rope.scaling.type': 'yarn',
      'rope.scaling.factor': 4,
      'rope.scaling.original_context_length': 256,
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'gpt-4o',
      'tokenizer.ggml.bos_token_id': 1003,
      'tokenizer.ggml.eos_token_id': 1007,
      'tokenizer.ggml.padding_token_id': 1004,
    });
    const words = value('tokenizer.ggml.tokens') as string[],
      types = value('tokenizer.ggml.token_type') as number[];
    expect([words.length, types.length, words[1007], types[1007], types[0]]).toEqual([V, V, '<|return|>', 3, 1]);
    const json = JSON.parse(readFileSync(join(nano, 'tokenizer.json'), 'utf8')) as {
      model: { vocab: Record<string, number>; merges: string[][] };
    };
    for (const [name, id] of Object.entries(json.model.vocab)) if (words[id] !== name) throw new Error(name);
    expect(value('tokenizer.ggml.merges')).toEqual(json.model.merges.map((m) => m.join(' ')));
    expect(tensors.size).toBe(3 + 4 * 19);
    const shape = (name: string): unknown => [tensors.get(name)?.type, tensors.get(name)?.ne];
    expect(shape('token_embd.weight')).toEqual(['BF16', [D, V]]);
    expect(shape('blk.3.attn_q.weight')).toEqual(['BF16', [D, 256]]);
    expect(shape('blk.3.attn_output.weight')).toEqual(['BF16', [256, D]]);
    expect(shape('blk.3.attn_output.bias')).toEqual(['F32', [D]]);
    expect(shape('blk.0.attn_sinks.weight')).toEqual(['F32', [8]]);
    expect(shape('blk.0.ffn_gate_inp.weight')).toEqual(['F32', [D, E]]);
    expect(shape('blk.0.ffn_gate_exps.weight')).toEqual(['MXFP4', [D, F, E]]);
    expect(shape('blk.0.ffn_up_exps.bias')).toEqual(['F32', [F, E]]);
    expect(shape('blk.0.ffn_down_exps.weight')).toEqual(['MXFP4', [F, D, E]]);
  });
});

describe('gguf with an adapter', () => {
  it(
    'leaves blocks alone that the adapter does not change: those of the checkpoint, in the ' + 'order of ggml',
    async () => {
      using file = GgufFile.open(join(await exported('gguf', await adapter({ targets: ['attention'] })), 'model.gguf'));
      for (const layer of base.layers.keys()) {
        const { w, scales } = base.layers[layer]?.down ?? { w: null, scales: null };
        const want = packBlocks(w?.read() as Uint8Array, scales?.read() as Uint8Array);
        expect(Buffer.compare(file.bytes(`blk.${layer}.ffn_down_exps.weight`), want)).toBe(0);
      }
      const q = file.bytes('blk.1.attn_q.weight'),
        was = base.layers[1]?.q.w.read() as Uint16Array;
      expect(Buffer.compare(q, new Uint8Array(was.buffer))).not.toBe(0);
    },
  );
  it('experts too: near what was trained, weights as near as MXFP4 holds them, and what is lost is said', async () => {
    const from = await adapter(),
      out = join(root, 'merged');
    const { exports } = await runExport({ model: nano, adapter: from, format: ['gguf'], out });
    const kept = exports[0]?.report.survived as { experts: number; dense: number }[];
    expect(kept.length).toBe(4);
    for (const { experts, dense } of kept) {
      expect(experts).toBeGreaterThan(0.2);
      expect(experts).toBeLessThan(1.2);
      expect(dense).toBeGreaterThan(0.98);
    }
    expect(await distance('gguf', out, from)).toBeLessThan(0.5);
    using source = await openSource({ model: nano, adapter: from });
    const check = await formatOf('gguf').checkWeights?.(source, out);
    expect(check?.wrong).toEqual([]);
    expect(check?.checked).toBeGreaterThan(100_000);
    // One nibble of one block.
    const path = join(out, 'model.gguf'),
      bytes = readFileSync(path);
    let at: number;
    {
      using file = GgufFile.open(path);
      at = file.entry('blk.2.ffn_up_exps.weight').begin + 5;
    }
    bytes[at] = (bytes[at] ?? 0) ^ 4;
    writeFileSync(path, bytes);
    const broken = await formatOf('gguf').checkWeights?.(source, out);
    expect(broken?.wrong.join()).toMatch(/layers\.2\.mlp\.experts\.gate_up_proj/);
  });
  it.each([
    ['attention', { targets: ['attention'] }],
    ['down alone', { targets: ['down_proj'] }],
    ['all, the router too', { targets: ['attention', 'experts', 'router'] }],
    [
      'ranks of their own, rsLoRA',
      { targets: { attention: { rank: 2 }, gate_up_proj: { rank: 5, alpha: 3 } }, rsLora: true },
    ],
    ['two layers', { targets: ['attention', 'experts'], layers: [1, 2] }],
  ] as [string, Partial<AdapterChoice>][])('gguf-f32 of %s: nothing is lost', async (_, over) => {
    const from = await adapter(over);
    expect(await distance('gguf-f32', await exported('gguf-f32', from), from)).toBeLessThan(2e-6);
  });
});

describe('gguf-lora', () => {
  it.each([
    ['one rank and alpha: the file says the alpha', { targets: ['attention', 'experts', 'router'] }, 8],
    ['rsLoRA: an alpha that gives the same scale', { rsLora: true }, 16],
    ['scales of their own: multiplied into B', { targets: { attention: { rank: 2, alpha: 7 }, experts: {} } }, null],
    ['ranks of their own, one alpha', { targets: { attention: { rank: 2 }, experts: {} } }, 8],
  ] as [string, Partial<AdapterChoice>, number | null][])('%s', async (_, over, alpha) => {
    const from = await adapter(over),
      out = await exported('gguf-lora', from);
    expect(await distance('gguf-lora', out, from)).toBeLessThan(1e-6);
    using file = GgufFile.open(join(out, 'adapter.gguf'));
    expect(file.header.metadata.get('adapter.lora.alpha')?.value ?? null).toBe(alpha);
    expect(file.header.metadata.get('general.type')?.value).toBe('adapter');
    expect(readFileSync(join(out, 'Modelfile'), 'utf8')).toContain('ADAPTER ./adapter.gguf');
  });
  it('has shapes as llama.cpp multiplies them', async () => {
    using file = GgufFile.open(join(await exported('gguf-lora', await adapter()), 'adapter.gguf'));
    const ne = (name: string): unknown => file.entry(name).ne;
    expect(ne('blk.0.attn_q.weight.lora_a')).toEqual([D, 4]);
    expect(ne('blk.0.attn_q.weight.lora_b')).toEqual([4, 256]);
    expect(ne('blk.0.ffn_up_exps.weight.lora_a')).toEqual([D, 4, E]);
    expect(ne('blk.0.ffn_up_exps.weight.lora_b')).toEqual([4, F, E]);
    expect(ne('blk.0.ffn_down_exps.weight.lora_b')).toEqual([4, D, E]);
    expect(file.header.tensors.size).toBe(4 * 2 * (4 + 3));
  });
});

describe('refused by name, before anything is written', () => {
  /** nano with another config.json, or without a file. */
  function other(change: Record<string, unknown>, without?: string): string {
    const folder = join(root, `model-${made++}`);
    cpSync(nano, folder, { recursive: true, filter: (path) => without === undefined || !path.endsWith(without) });
    const file = join(folder, 'config.json');
    const json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    writeFileSync(file, JSON.stringify({ ...json, ...change }));
    return folder;
  }
  const rope = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 256, truncate: false };
  it.each([
    ['full attention first', { layer_types: Array(4).fill('full_attention') }, /layer 0 has full attention/],
    ['another limit', { swiglu_limit: 5 }, /swiglu_limit is 5, wanted 7/],
    ['another scale of attention', { rope_scaling: { ...rope, attention_factor: 1 } }, /scale attention by 1/],
  ] as [string, Record<string, unknown>, RegExp][])('%s', async (_, change, message) => {
    const model = other(change);
    for (const format of ['gguf', 'gguf-f32'])
      await expect(exported(format, undefined, model)).rejects.toMatchObject({
        code: 'export_refused',
        message: expect.stringMatching(message) as string,
      });
  });
  it('no tokenizer', async () => {
    await expect(exported('gguf', undefined, other({}, 'tokenizer.json'))).rejects.toMatchObject({
      code: 'export_refused',
      message: expect.stringContaining('has no tokenizer.json') as string,
    });
  });
  it('an adapter for Ollama', async () => {
    const from = await adapter();
    const request = {
      model: nano,
      adapter: from,
      format: ['gguf-lora'],
      consumers: ['ollama'],
      out: join(root, 'never'),
    };
    await expect(runExport(request)).rejects.toMatchObject({ code: 'export_refused' });
    expect(existsSync(join(root, 'never'))).toBe(false);
  });
  it('no adapter', async () => {
    await expect(exported('gguf-lora')).rejects.toMatchObject({ code: 'export_refused' });
  });
});

describe('rotary positions as llama.cpp computes them', () => {
  it("rounds YaRN's bounds outwards and changes nothing else", () => {
    const theirs = asLlamaRotates(config);
    expect(ropeSettings(theirs)).toEqual({
      ...ropeSettings(config),
      yarn: { ...ropeSettings(config).yarn, truncate: true },
    });
    const [a, b] = [ropeParameters(config), ropeParameters(theirs)];
    expect(b.concentration).toBe(a.concentration);
    expect(b.invFreq).not.toEqual(a.invFreq);
    // gpt-oss-20b: 8 and 18 in place of 8.09 and 17.40; frequencies differ from the tenth to the eighteenth.
    const released = { ...config, head_dim: 64, max_position_embeddings: 131072, initial_context_length: 4096 };
    const big = { ...released, rope_scaling: { ...rope20b } };
    const [own, rounded] = [ropeParameters(big), ropeParameters(asLlamaRotates(big))];
    const differ = [...own.invFreq.keys()].filter((j) => own.invFreq[j] !== rounded.invFreq[j]);
    expect([differ[0], differ.at(-1)]).toEqual([9, 17]);
    expect((rounded.invFreq[17] ?? 0) / (own.invFreq[17] ?? 1)).toBeCloseTo(1.763, 3);
  });
  const rope20b = {
    rope_type: 'yarn',
    factor: 32,
    beta_fast: 32,
    beta_slow: 1,
    original_max_position_embeddings: 4096,
    truncate: false,
  };
});

describe('inputs as llama.cpp rounds them', () => {
  it('in 8 bits, by the groups and scales of Q8_0: what the gguf package makes of them', () => {
    const golden = join(packageRoot, 'test', 'golden', 'gguf', 'q8_0.json');
    const { x, y } = JSON.parse(readFileSync(golden, 'utf8')) as { x: number[]; y: number[] };
    expect([...q8Values(Float32Array.from(x))].map((v) => v + 0)).toEqual(y);
    expect([...q8Values(new Float32Array(32))]).toEqual(Array(32).fill(0));
  });
  it('scales are f16', () => {
    const cases = [0, 1, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 65504, 2 ** -14, 2 ** -24, 2 ** -25, 0.1];
    expect(cases.map(f16)).toEqual([0, 1, 1, 1 + 2 ** -9, 65504, 2 ** -14, 2 ** -24, 0, 0.0999755859375]);
  });
});

describe('llama.cpp as a consumer', () => {
  const program = join(dirname(fileURLToPath(import.meta.url)), 'llama-stand-in.mjs');
  afterEach(() => {
    delete process.env.LLAMA_ANSWERS;
    delete process.env.LLAMA_STAND_IN;
  });
  it('is asked for all prefixes, or for some of long ones, the last among them', () => {
    expect(prefixLengths(5, 100)).toEqual([1, 2, 3, 4, 5]);
    expect(prefixLengths(100, 4)).toEqual([25, 50, 75, 100]);
    expect(prefixLengths(7, 1)).toEqual([7]);
  });
  /** What our model says with rounded bounds, as a file for the stand-in; `change` breaks it. */
  async function answers(
    source: ExportSource,
    rows: readonly Int32Array[],
    change?: (row: number[]) => void,
    as: (model: ModelWeights) => ModelWeights = (model) => model,
  ): Promise<string> {
    const all: Record<string, number[]> = {};
    for (const row of rows) {
      const logits = logitsOf(as({ ...source.base, config: asLlamaRotates(config) }), null, row);
      for (let n = 1; n <= row.length; n++) {
        const part = logits.subarray((n - 1) * V, n * V),
          sum = Math.log(part.reduce((a, x) => a + Math.exp(x), 0));
        const values = [...part].map((x) => x - sum);
        if (n === row.length) change?.(values);
        all[row.subarray(0, n).join(' ')] = values;
      }
    }
    const path = join(root, `answers-${made++}.json`);
    writeFileSync(path, JSON.stringify(all));
    return path;
  }
  const rows = [tokens.slice(0, 3), tokens.slice(50, 52)];
  it('that says what we say is the same, and one wrong number is found', async () => {
    const out = await exported('gguf-f32');
    using source = await openSource({ model: nano });
    using reloaded = formatOf('gguf-f32').reload(out, source.base);
    const ask = (): ReturnType<typeof askLlama> =>
      askLlama(program, { kind: 'model', path: join(out, 'model.gguf'), f32: true }, source, reloaded, rows);
    process.env.LLAMA_ANSWERS = await answers(source, rows);
    expect(await ask()).toMatchObject({ ok: true, consumer: 'llama.cpp', compared: 5 * V });
    process.env.LLAMA_ANSWERS = await answers(source, rows, (row) => {
      row[3] = (row[3] ?? 0) - 1;
    });
    const wrong = await ask();
    expect(wrong.ok).toBe(false);
    expect(wrong.maxDifference).toBeCloseTo(1, 4);
    expect(wrong.note).toMatch(/after 5 prefixes.*moves them by [1-9]/);
  });
  it('that rounds inputs is compared with us rounding them, and what that costs is said', async () => {
    const out = await exported('gguf');
    using source = await openSource({ model: nano });
    using reloaded = formatOf('gguf').reload(out, source.base);
    const ask = (): ReturnType<typeof askLlama> =>
      askLlama(program, { kind: 'model', path: join(out, 'model.gguf'), f32: false }, source, reloaded, rows);
    process.env.LLAMA_ANSWERS = await answers(source, rows, undefined, asLlamaRounds);
    const alike = await ask();
    expect(alike).toMatchObject({ ok: true });
    expect(alike.relative).toBeLessThan(1e-6);
    const { moves = 0, apart = 0 } = alike.rounding ?? {};
    expect(apart).toBeCloseTo(moves, 6);
    expect(moves).toBeGreaterThan(1e-3);
    expect(alike.tolerance).toBeCloseTo(1e-4 + 1.5 * moves, 9);
    expect(alike.note).toMatch(/inputs of products are rounded .* without it llama\.cpp lies \d/);
    // One that does not round them is within what rounding does; one of other weights is not.
    process.env.LLAMA_ANSWERS = await answers(source, rows);
    expect(await ask()).toMatchObject({ ok: true });
    const turned = (m: ModelWeights): ModelWeights => ({ ...m, layers: m.layers.toReversed() });
    process.env.LLAMA_ANSWERS = await answers(source, rows, undefined, turned);
    expect(await ask()).toMatchObject({ ok: false });
  });
  it('that ends half-way is an error, and its base is gone', async () => {
    process.env.LLAMA_STAND_IN = 'crash';
    const from = await adapter(),
      out = await exported('gguf-lora', from);
    using source = await openSource({ model: nano, adapter: from });
    using reloaded = formatOf('gguf-lora').reload(out, source.base);
    const file = { kind: 'adapter', path: join(out, 'adapter.gguf'), f32: true } as const;
    await expect(askLlama(program, file, source, reloaded, rows)).rejects.toMatchObject({
      code: 'consumer_failed',
    });
  });
});

// A GGUF file as the model it describes, for its proof: what it is comes from its own keys, and every tensor goes back
// to the checkpoint's name and layout through the inverse of what wrote it. Experts are read layer by layer as they are
// asked for.
import { CheckpointError } from '../../base/errors.js';
import { type ModelConfig, parseConfig } from '../../model/config.js';
import { layerPrefix } from '../../model/layout.js';
import type { ExpertWeights, LayerWeights, LinearWeights, ModelWeights } from '../../model/types.js';
import { ops } from '../../native/ops.js';
import { Scope, type Tensor } from '../../native/tensor.js';
import { ARCHITECTURE, blk, TENSOR_OF } from './model.js';
import { GgufFile } from './reader.js';
import { unpackBlocks } from './repack.js';
import type { Value } from './types.js';

/** The model of a file; `tensors` by the names of a checkpoint. */
export interface GgufModel extends ModelWeights, Disposable {
  readonly tensors: { get(name: string): Tensor | undefined };
}

/** f32 in the file: the shortest decimal that reads as it. */
const decimal = (x: number): number => {
  for (let digits = 1; digits < 9; digits++)
    if (Math.fround(Number(x.toPrecision(digits))) === x) return Number(x.toPrecision(digits));
  return x;
};

/** What the file says that it is. `truncate`: of YaRN's bounds, which no key tells. */
function configOf(file: GgufFile, truncate: boolean): ModelConfig {
  const value = (key: string): Value['value'] => {
    const v = file.header.metadata.get(key);
    if (v === undefined)
      throw new CheckpointError('header_invalid', `${file.path}: no key ${key}; export it again`, { file: file.path });
    return v.type === 'f32' ? decimal(v.value) : v.value;
  };
  const own = (key: string): Value['value'] => value(`${ARCHITECTURE}.${key}`);
  if (value('general.architecture') !== ARCHITECTURE)
    throw new CheckpointError('header_invalid', `${file.path}: is no ${ARCHITECTURE} model`, { file: file.path });
  const yarn =
    own('rope.scaling.type') === 'yarn'
      ? {
          rope_type: 'yarn',
          factor: own('rope.scaling.factor'),
          original_max_position_embeddings: own('rope.scaling.original_context_length'),
          beta_fast: own('rope.scaling.yarn_beta_fast'),
          beta_slow: own('rope.scaling.yarn_beta_slow'),
          truncate,
        }
      : { rope_type: 'default' };
  return parseConfig(
    {
      model_type: 'gpt_oss',
      vocab_size: file.entry('token_embd.weight').ne[1],
      hidden_size: own('embedding_length'),
      intermediate_size: own('expert_feed_forward_length'),
      num_hidden_layers: own('block_count'),
      num_attention_heads: own('attention.head_count'),
      num_key_value_heads: own('attention.head_count_kv'),
      head_dim: own('attention.key_length'),
      num_local_experts: own('expert_count'),
      num_experts_per_tok: own('expert_used_count'),
      sliding_window: own('attention.sliding_window'),
      rms_norm_eps: own('attention.layer_norm_rms_epsilon'),
      max_position_embeddings: own('context_length'),
      rope_parameters: { ...yarn, rope_theta: own('rope.freq_base') },
    },
    file.path,
  );
}

/** A checkpoint's tensors outside the experts, by its name of them. */
const TOP: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};
const IN_LAYER: Readonly<Record<string, string>> = {
  'input_layernorm.weight': 'attn_norm.weight',
  'post_attention_layernorm.weight': 'post_attention_norm.weight',
  'self_attn.sinks': 'attn_sinks.weight',
  ...Object.fromEntries(
    (['weight', 'bias'] as const).flatMap((part) => [
      ...(['q', 'k', 'v', 'o'] as const).map(
        (t) => [`self_attn.${t}_proj.${part}`, `${TENSOR_OF[t]}.${part}`] as const,
      ),
      [`mlp.router.${part}`, `${TENSOR_OF.router}.${part}`] as const,
    ]),
  ),
};
const EXPERTS: Readonly<Record<string, readonly string[]>> = {
  gate_up_proj: [TENSOR_OF.gate, TENSOR_OF.up],
  down_proj: [TENSOR_OF.down],
};

/** Rows of two matrices in turn: row 2k of the first, 2k + 1 of the second. */
function interleave(parts: readonly Uint8Array[], rowBytes: number): Uint8Array {
  const [first = new Uint8Array(), second] = parts;
  if (!second) return first;
  const out = new Uint8Array(first.length + second.length);
  for (let from = 0; from < first.length; from += rowBytes) {
    out.set(first.subarray(from, from + rowBytes), 2 * from);
    out.set(second.subarray(from, from + rowBytes), 2 * from + rowBytes);
  }
  return out;
}

class Tensors {
  readonly #dense = new Map<string, Tensor>();
  readonly #scope = new Scope('weights');
  #layer = -1;
  #experts = new Map<string, Tensor>();
  #expertScope = new Scope('weights');
  constructor(readonly file: GgufFile) {}

  get(name: string): Tensor | undefined {
    const [, number, rest = ''] = /^model\.layers\.(\d+)\.(.*)$/.exec(name) ?? [],
      layer = Number(number),
      plain = number === undefined ? TOP[name] : IN_LAYER[rest] && blk(layer, IN_LAYER[rest]);
    if (plain !== undefined && plain !== '') {
      const known = this.#dense.get(plain) ?? this.#floats(this.#scope, plain);
      this.#dense.set(plain, known);
      return known;
    }
    const [, matrix = '', part = ''] =
      /^mlp\.experts\.(gate_up_proj|down_proj)(_bias|_blocks|_scales)?$/.exec(rest) ?? [];
    const parts = EXPERTS[matrix];
    if (!parts) return undefined;
    if (this.#layer !== layer) {
      this.#expertScope.close();
      this.#expertScope = new Scope('weights');
      this.#experts = new Map();
      this.#layer = layer;
    }
    if (!this.#experts.has(matrix + part)) this.#readExperts(layer, matrix, parts);
    return this.#experts.get(matrix + part);
  }
  #floats(scope: Scope, name: string): Tensor {
    const { type, ne } = this.file.entry(name),
      shape = [...ne].reverse(),
      bytes = this.file.bytes(name);
    if (type === 'F32') return scope.empty('f32', shape).write(new Float32Array(bytes.buffer));
    if (type === 'BF16') return scope.empty('bf16', shape).write(new Uint16Array(bytes.buffer));
    throw new CheckpointError('tensor_dtype', `${this.file.path}: tensor ${name} is ${type}, wanted F32 or BF16`, {
      file: this.file.path,
      tensor: name,
    });
  }
  /** Both tensors of the matrix, and its bias. */
  #readExperts(layer: number, matrix: string, parts: readonly string[]): void {
    const scope = this.#expertScope,
      bytes = (part: 'weight' | 'bias'): Uint8Array[] => parts.map((p) => this.file.bytes(blk(layer, `${p}.${part}`)));
    const { type, ne } = this.file.entry(blk(layer, `${parts[0]}.weight`)),
      [C = 0, rows = 0, E = 0] = ne,
      N = rows * parts.length;
    const bias = interleave(bytes('bias'), 4);
    this.#experts.set(`${matrix}_bias`, scope.empty('f32', [E, N]).write(new Float32Array(bias.buffer)));
    if (type === 'MXFP4') {
      const unpacked = bytes('weight').map(unpackBlocks);
      const blocks = interleave(
          unpacked.map((p) => p.blocks),
          C / 2,
        ),
        scales = interleave(
          unpacked.map((p) => p.scales),
          C / 32,
        );
      this.#experts.set(`${matrix}_blocks`, scope.from(blocks, [E, N, C / 32, 16]));
      this.#experts.set(`${matrix}_scales`, scope.from(scales, [E, N, C / 32]));
      return;
    }
    using s = new Scope('workspace');
    const [size, dtype] = type === 'F32' ? ([4, 'f32'] as const) : ([2, 'bf16'] as const);
    const whole = interleave(bytes('weight'), C * size);
    const w = s
      .empty(dtype, [E, N, C])
      .write(dtype === 'f32' ? new Float32Array(whole.buffer) : new Uint16Array(whole.buffer));
    // As a checkpoint has it: [E, C, N].
    const turned = scope.empty(dtype, [E, C, N]);
    ops.lora_merge(turned, w, null, s.empty('f32', [E, 0, C]), s.empty('f32', [E, N, 0]), 0, 1, 2);
    this.#experts.set(matrix, turned);
  }
  close(): void {
    this.#expertScope.close();
    this.#scope.close();
    this.file.close();
  }
}

/**
 * Opens the file as a model on the host.
 * @param truncate whether YaRN's bounds are rounded outwards, as llama.cpp does: what the file means to it
 * @throws {CheckpointError} what the file lacks, or says otherwise than its tensors
 */
export function loadGguf(path: string, truncate: boolean): GgufModel {
  const tensors = new Tensors(GgufFile.open(path)),
    close = (): void => tensors.close();
  const need = (name: string): Tensor => {
    const t = tensors.get(name);
    if (!t) throw new CheckpointError('tensor_missing', `${path}: no tensor for ${name}`, { tensor: name });
    return t;
  };
  try {
    const config = configOf(tensors.file, truncate);
    const layers = Array.from({ length: config.num_hidden_layers }, (_, i): LayerWeights => {
      const at = layerPrefix(i);
      const linear = (name: string): LinearWeights => ({
        w: need(`${at}${name}.weight`),
        bias: need(`${at}${name}.bias`),
      });
      const experts = (name: string): ExpertWeights => {
        const matrix = `${at}mlp.experts.${name}`,
          bias = need(`${matrix}_bias`),
          blocks = tensors.get(`${matrix}_blocks`);
        return blocks
          ? { w: blocks, scales: need(`${matrix}_scales`), bias, layout: 0 }
          : { w: need(matrix), scales: null, bias, layout: 2 };
      };
      return {
        inputNorm: need(`${at}input_layernorm.weight`),
        q: linear('self_attn.q_proj'),
        k: linear('self_attn.k_proj'),
        v: linear('self_attn.v_proj'),
        o: linear('self_attn.o_proj'),
        sinks: need(`${at}self_attn.sinks`),
        postNorm: need(`${at}post_attention_layernorm.weight`),
        router: linear('mlp.router'),
        get gateUp() {
          return experts('gate_up_proj');
        },
        get down() {
          return experts('down_proj');
        },
        window: i % 2 === 0 ? (config.sliding_window ?? 0) : 0,
      };
    });
    const [embed, norm, head] = [need('model.embed_tokens.weight'), need('model.norm.weight'), need('lm_head.weight')];
    return { config, layers, embed, norm, head, tensors, close, [Symbol.dispose]: close };
  } catch (e) {
    close();
    throw e;
  }
}

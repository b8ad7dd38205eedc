// gpt-oss as llama.cpp names it: keys, tensors, and what of a configuration its graph has built in, so that another
// one would compute something else in silence. Facts: llama.cpp's openai-moe graph.
import { ConfigError } from '../../base/errors.js';
import { layerWindow, type ModelConfig, ropeSettings } from '../../model/config.js';
import type { LoraTarget } from '../../model/types.js';
import { bool, f32, type TensorInfo, type TensorType, text, u32, type Value } from './types.js';

export const ARCHITECTURE = 'gpt-oss';
const SWIGLU = { limit: 7, alpha: 1.702 } as const;
/** general.file_type: all F32, mostly BF16, MXFP4 experts. */
const FILE_TYPE = { f32: 0, bf16: 32, mxfp4: 38 } as const;
export type ExpertsAs = keyof typeof FILE_TYPE;

/** llama.cpp's name of the matrix that a target adapts; gate_up is two of them. */
export const TENSOR_OF: Readonly<Record<Exclude<LoraTarget, 'gateUp'> | 'gate' | 'up', string>> = {
  q: 'attn_q',
  k: 'attn_k',
  v: 'attn_v',
  o: 'attn_output',
  router: 'ffn_gate_inp',
  gate: 'ffn_gate_exps',
  up: 'ffn_up_exps',
  down: 'ffn_down_exps',
};
export const blk = (layer: number, name: string): string => `blk.${layer}.${name}`;

const unfit = (what: string, next: string): ConfigError =>
  new ConfigError('format_unfit', `gguf: ${what}; ${next}`, { format: 'gguf' });

/**
 * @throws {ConfigError} format_unfit: a model that llama.cpp's graph of gpt-oss would compute otherwise
 */
export function requireLlamaFits(config: ModelConfig): void {
  const other = 'llama.cpp has this built in and would compute another model; export merged-bf16 instead';
  for (let i = 0; i < config.num_hidden_layers; i++)
    if (layerWindow(config, i) > 0 !== (i % 2 === 0))
      throw unfit(
        `layer ${i} has ${layerWindow(config, i) > 0 ? 'a window' : 'full attention'}, wanted windows on even layers ` +
          'and full attention on odd ones',
        other,
      );
  if (config.swiglu_limit !== SWIGLU.limit)
    throw unfit(`swiglu_limit is ${config.swiglu_limit}, wanted ${SWIGLU.limit}`, other);
  if (config.swiglu_alpha !== SWIGLU.alpha)
    throw unfit(`swiglu_alpha is ${config.swiglu_alpha}, wanted ${SWIGLU.alpha}`, other);
  const { yarn } = ropeSettings(config);
  if (!yarn) return;
  const usual = 0.1 * Math.log(yarn.factor) + 1;
  if (yarn.factor < 1 || Math.abs(yarn.concentration - usual) > 1e-6)
    throw unfit(
      `the rope settings scale attention by ${yarn.concentration}, wanted 0.1·ln(factor) + 1 = ${usual}`,
      other,
    );
}

/** What the graph computes of these frequencies: YaRN's bounds are always rounded outwards. */
export function asLlamaRotates(config: ModelConfig): ModelConfig {
  const { theta, yarn } = ropeSettings(config);
  if (!yarn) return config;
  const { rope_scaling: _, ...rest } = config;
  return {
    ...rest,
    rope_theta: theta,
    rope_parameters: {
      rope_type: 'yarn',
      rope_theta: theta,
      factor: yarn.factor,
      beta_fast: yarn.betaFast,
      beta_slow: yarn.betaSlow,
      original_max_position_embeddings: yarn.original,
      attention_factor: yarn.concentration,
      truncate: true,
    },
  };
}

/** Keys of the model itself, without those of its tokenizer. */
export function modelKeys(config: ModelConfig, name: string, experts: ExpertsAs): Map<string, Value> {
  const a = ARCHITECTURE,
    { theta, yarn } = ropeSettings(config);
  const window = Math.max(...Array.from({ length: config.num_hidden_layers }, (_, i) => layerWindow(config, i)));
  return new Map<string, Value>([
    ['general.architecture', text(a)],
    ['general.type', text('model')],
    ['general.name', text(name)],
    ['general.quantization_version', u32(2)],
    ['general.file_type', u32(FILE_TYPE[experts])],
    [`${a}.block_count`, u32(config.num_hidden_layers)],
    [`${a}.context_length`, u32(config.max_position_embeddings)],
    [`${a}.embedding_length`, u32(config.hidden_size)],
    [`${a}.feed_forward_length`, u32(config.intermediate_size)],
    [`${a}.expert_feed_forward_length`, u32(config.intermediate_size)],
    [`${a}.vocab_size`, u32(config.vocab_size)],
    [`${a}.attention.head_count`, u32(config.num_attention_heads)],
    [`${a}.attention.head_count_kv`, u32(config.num_key_value_heads)],
    [`${a}.attention.key_length`, u32(config.head_dim)],
    [`${a}.attention.value_length`, u32(config.head_dim)],
    [`${a}.attention.layer_norm_rms_epsilon`, f32(config.rms_norm_eps)],
    [`${a}.attention.sliding_window`, u32(window)],
    [`${a}.expert_count`, u32(config.num_local_experts)],
    [`${a}.expert_used_count`, u32(config.num_experts_per_tok)],
    [`${a}.rope.dimension_count`, u32(config.head_dim)],
    [`${a}.rope.freq_base`, f32(theta)],
    [`${a}.rope.scaling.type`, text(yarn ? 'yarn' : 'none')],
    ...(yarn
      ? ([
          [`${a}.rope.scaling.factor`, f32(yarn.factor)],
          [`${a}.rope.scaling.original_context_length`, u32(yarn.original)],
          [`${a}.rope.scaling.finetuned`, bool(true)],
          [`${a}.rope.scaling.yarn_beta_fast`, f32(yarn.betaFast)],
          [`${a}.rope.scaling.yarn_beta_slow`, f32(yarn.betaSlow)],
        ] as const)
      : []),
  ]);
}

export type Role = 'norm' | 'matrix' | 'bias' | 'router' | 'embed' | 'experts';
/** A tensor of the file and what it is made from. */
export interface PlannedTensor extends TensorInfo {
  /** -1: outside the layers. */
  readonly layer: number;
  readonly of: 'embed' | 'norm' | 'head' | 'inputNorm' | 'postNorm' | 'sinks' | LoraTarget;
  /** Of gate_up, whose rows alternate, one half. */
  readonly half?: 'gate' | 'up';
  readonly bias?: true;
}

/** All tensors of the file, in its order. */
export function plannedTensors(config: ModelConfig, dense: 'BF16' | 'F32', experts: TensorType): PlannedTensor[] {
  const { hidden_size: D, intermediate_size: F, num_local_experts: E, vocab_size: V } = config;
  const q = config.num_attention_heads * config.head_dim,
    kv = config.num_key_value_heads * config.head_dim;
  const top = (name: string, of: PlannedTensor['of'], type: TensorType, ne: readonly number[]): PlannedTensor => ({
    name,
    of,
    type,
    ne,
    layer: -1,
  });
  const out = [top('token_embd.weight', 'embed', dense, [D, V])];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const at = (name: string, rest: Omit<PlannedTensor, 'name' | 'layer'>): void => {
      out.push({ name: blk(layer, name), layer, ...rest });
    };
    const linear = (name: string, of: LoraTarget, inn: number, outs: number, type: TensorType): void => {
      at(`${name}.weight`, { of, type, ne: [inn, outs] });
      at(`${name}.bias`, { of, type: 'F32', ne: [outs], bias: true });
    };
    at('attn_norm.weight', { of: 'inputNorm', type: 'F32', ne: [D] });
    linear(TENSOR_OF.q, 'q', D, q, dense);
    linear(TENSOR_OF.k, 'k', D, kv, dense);
    linear(TENSOR_OF.v, 'v', D, kv, dense);
    linear(TENSOR_OF.o, 'o', q, D, dense);
    at('attn_sinks.weight', { of: 'sinks', type: 'F32', ne: [config.num_attention_heads] });
    at('post_attention_norm.weight', { of: 'postNorm', type: 'F32', ne: [D] });
    linear(TENSOR_OF.router, 'router', D, E, 'F32');
    for (const half of ['gate', 'up'] as const) {
      at(`${TENSOR_OF[half]}.weight`, { of: 'gateUp', half, type: experts, ne: [D, F, E] });
      at(`${TENSOR_OF[half]}.bias`, { of: 'gateUp', half, type: 'F32', ne: [F, E], bias: true });
    }
    at(`${TENSOR_OF.down}.weight`, { of: 'down', type: experts, ne: [F, D, E] });
    at(`${TENSOR_OF.down}.bias`, { of: 'down', type: 'F32', ne: [D, E], bias: true });
  }
  out.push(top('output_norm.weight', 'norm', 'F32', [D]), top('output.weight', 'head', dense, [D, V]));
  return out;
}

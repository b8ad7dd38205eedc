// Names, dtypes and shapes of a checkpoint's tensors, from its config: the one list that loading, writing and
// inspecting share.
import type { ModelConfig } from './config.js';

export type FileDType = 'BF16' | 'F32' | 'U8';
/** `role` names the tensor within its layer; `kind` says what fills it when a model is made up. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: FileDType;
  readonly shape: readonly number[];
  readonly kind: 'norm' | 'matrix' | 'bias' | 'sinks' | 'embed' | 'blocks' | 'scales';
}

export const MXFP4_GROUP = 32;
export const layerPrefix = (i: number): string => `model.layers.${i}.`;

/** Can the experts be MXFP4: both contraction widths must be whole groups. */
export const fitsMxfp4 = (c: ModelConfig): boolean =>
  c.hidden_size % MXFP4_GROUP === 0 && c.intermediate_size % MXFP4_GROUP === 0;

/**
 * Tensors of one layer, without prefix. experts 'mxfp4': as released (blocks and scales); 'dense': dequantised, in×out
 * as Hugging Face writes it.
 */
export function layerTensors(c: ModelConfig, experts: 'mxfp4' | 'dense'): readonly TensorSpec[] {
  const {
    hidden_size: D,
    intermediate_size: F,
    num_local_experts: E,
    num_attention_heads: H,
    num_key_value_heads: Hkv,
    head_dim: Dh,
  } = c;
  const linear = (name: string, out: number, inn: number, bias: boolean): TensorSpec[] => [
    { name: `${name}.weight`, dtype: 'BF16', shape: [out, inn], kind: 'matrix' },
    ...(bias ? [{ name: `${name}.bias`, dtype: 'BF16', shape: [out], kind: 'bias' } as const] : []),
  ];
  const expert = (name: string, out: number, inn: number): TensorSpec[] => [
    ...(experts === 'dense'
      ? [{ name: `mlp.experts.${name}`, dtype: 'BF16', shape: [E, inn, out], kind: 'matrix' } as const]
      : [
          {
            name: `mlp.experts.${name}_blocks`,
            dtype: 'U8',
            shape: [E, out, inn / MXFP4_GROUP, MXFP4_GROUP / 2],
            kind: 'blocks',
          } as const,
          {
            name: `mlp.experts.${name}_scales`,
            dtype: 'U8',
            shape: [E, out, inn / MXFP4_GROUP],
            kind: 'scales',
          } as const,
        ]),
    { name: `mlp.experts.${name}_bias`, dtype: 'BF16', shape: [E, out], kind: 'bias' },
  ];
  return [
    { name: 'input_layernorm.weight', dtype: 'BF16', shape: [D], kind: 'norm' },
    ...linear('self_attn.q_proj', H * Dh, D, c.attention_bias),
    ...linear('self_attn.k_proj', Hkv * Dh, D, c.attention_bias),
    ...linear('self_attn.v_proj', Hkv * Dh, D, c.attention_bias),
    ...linear('self_attn.o_proj', D, H * Dh, c.attention_bias),
    { name: 'self_attn.sinks', dtype: 'BF16', shape: [H], kind: 'sinks' },
    { name: 'post_attention_layernorm.weight', dtype: 'BF16', shape: [D], kind: 'norm' },
    ...linear('mlp.router', E, D, true),
    ...expert('gate_up_proj', 2 * F, D),
    ...expert('down_proj', D, F),
  ];
}

/** Tensors outside the layers. */
export function globalTensors(c: ModelConfig): readonly TensorSpec[] {
  const { vocab_size: V, hidden_size: D } = c;
  return [
    { name: 'model.embed_tokens.weight', dtype: 'BF16', shape: [V, D], kind: 'embed' },
    { name: 'model.norm.weight', dtype: 'BF16', shape: [D], kind: 'norm' },
    ...(c.tie_word_embeddings
      ? []
      : [{ name: 'lm_head.weight', dtype: 'BF16', shape: [V, D], kind: 'matrix' } as const]),
  ];
}

/**
 * All tensors in the order of the released shards: layers by the spelling of their number (0, 1, 10, 11, …, 2, …), then
 * the global ones.
 */
export function checkpointTensors(c: ModelConfig, experts: 'mxfp4' | 'dense' = 'mxfp4'): readonly TensorSpec[] {
  const order = Array.from({ length: c.num_hidden_layers }, (_, i) => i).sort((a, b) =>
    String(a) < String(b) ? -1 : 1,
  );
  const layer = layerTensors(c, experts);
  return [...order.flatMap((i) => layer.map((t) => ({ ...t, name: layerPrefix(i) + t.name }))), ...globalTensors(c)];
}

export const fileDtypeBytes = (dtype: FileDType): number => (dtype === 'U8' ? 1 : dtype === 'BF16' ? 2 : 4);
export const specBytes = (t: TensorSpec): number => t.shape.reduce((a, b) => a * b, fileDtypeBytes(t.dtype));

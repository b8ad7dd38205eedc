// config.json of a gpt-oss checkpoint. Everything comes from the file: nothing of the released values is assumed but what the file may omit.
import { z } from 'zod';

/** Fields keep the checkpoint's names. Unknown keys are ignored, as transformers does. */
export const ModelConfig = z.object({
  model_type: z.literal('gpt_oss').default('gpt_oss'),
  vocab_size: z.int().min(1),
  hidden_size: z.int().min(1),
  intermediate_size: z.int().min(1),
  num_hidden_layers: z.int().min(1).max(1024),
  num_attention_heads: z.int().min(1),
  num_key_value_heads: z.int().min(1),
  head_dim: z.int().min(2).default(64),
  num_local_experts: z.int().min(1),
  num_experts_per_tok: z.int().min(1).default(4),
  layer_types: z.array(z.enum(['sliding_attention', 'full_attention'])).optional(),
  sliding_window: z.int().min(1).default(128),
  rms_norm_eps: z.number().positive().default(1e-5),
  rope_theta: z.number().positive().optional(),
  rope_scaling: z.looseObject({}).nullish(),
  rope_parameters: z.looseObject({}).nullish(),
  max_position_embeddings: z.int().min(1).default(131072),
  initial_context_length: z.int().min(1).optional(),
  swiglu_limit: z.number().positive().default(7),
  swiglu_alpha: z.number().positive().default(1.702),
  attention_bias: z.boolean().default(true),
  tie_word_embeddings: z.boolean().default(false),
  eos_token_id: z.union([z.int(), z.array(z.int())]).optional(),
  pad_token_id: z.int().optional(),
  quantization_config: z.looseObject({}).nullish(),
});
export type ModelConfig = z.infer<typeof ModelConfig>;

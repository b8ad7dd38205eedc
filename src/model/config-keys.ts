// Keys of a config.json beside those that are computed with (config.ts): which change nothing and why, which may have
// one value only, and what tells a config of another layout. A key that stands nowhere is refused.

const NAME = 'a name or a version, for people and loaders';
const HF = "how transformers' own classes answer or are set up; nothing of the model";
const SAMPLING = 'sampling, which a request states by itself';
const HEAD = 'about classification heads, which are refused by the architecture';
const SERVING = 'how transformers places the model on devices';

/** Keys that change nothing here, each with the reason. */
export const WITHOUT_EFFECT: Readonly<Record<string, string>> = {
  _name_or_path: NAME,
  name_or_path: NAME,
  _commit_hash: NAME,
  transformers_version: NAME,
  unsloth_fixed: NAME,
  unsloth_version: NAME,
  dtype: 'what transformers loads the weights as; here tensors say their own type',
  torch_dtype: 'as dtype',
  bos_token_id: 'harmony begins without it',
  decoder_start_token_id: HF,
  sep_token_id: HF,
  initializer_range: 'how new weights would begin; here training says its own',
  attention_dropout: 'acts in training from scratch with transformers only',
  router_aux_loss_coef: "transformers' own training loss",
  output_router_logits: HF,
  use_cache: HF,
  return_dict: HF,
  return_dict_in_generate: HF,
  output_hidden_states: HF,
  output_attentions: HF,
  output_scores: HF,
  torchscript: HF,
  use_bfloat16: HF,
  tf_legacy_loss: HF,
  chunk_size_feed_forward: 'cuts the same sums in pieces',
  _attn_implementation: SERVING,
  _attn_implementation_autoset: SERVING,
  attn_implementation: SERVING,
  _experts_implementation: SERVING,
  tp_plan: SERVING,
  ep_plan: SERVING,
  pretraining_tp: SERVING,
  tokenizer_class: NAME,
  prefix: HF,
  task_specific_params: HF,
  finetuning_task: NAME,
  problem_type: HEAD,
  id2label: HEAD,
  label2id: HEAD,
  num_labels: HEAD,
  classifier_dropout: HEAD,
  do_sample: SAMPLING,
  temperature: SAMPLING,
  top_k: SAMPLING,
  top_p: SAMPLING,
  typical_p: SAMPLING,
  min_length: SAMPLING,
  max_length: SAMPLING,
  max_new_tokens: SAMPLING,
  num_beams: SAMPLING,
  num_beam_groups: SAMPLING,
  diversity_penalty: SAMPLING,
  early_stopping: SAMPLING,
  repetition_penalty: SAMPLING,
  encoder_no_repeat_ngram_size: SAMPLING,
  no_repeat_ngram_size: SAMPLING,
  length_penalty: SAMPLING,
  num_return_sequences: SAMPLING,
  bad_words_ids: SAMPLING,
  begin_suppress_tokens: SAMPLING,
  suppress_tokens: SAMPLING,
  forced_bos_token_id: SAMPLING,
  forced_eos_token_id: SAMPLING,
  remove_invalid_values: SAMPLING,
  exponential_decay_length_penalty: SAMPLING,
};

/** Keys that would make it another model, with the values that do not; null and absent are as good. */
export const MUST_BE: Readonly<Record<string, readonly unknown[]>> = {
  architectures: [['GptOssForCausalLM'], ['GptOssModel']],
  partial_rotary_factor: [1],
  use_sliding_window: [true],
  mlp_bias: [true],
  is_decoder: [true, false],
  is_encoder_decoder: [false],
  add_cross_attention: [false],
  cross_attention_hidden_size: [],
  tie_encoder_decoder: [false],
  pruned_heads: [{}],
  hidden_dropout: [0],
  auto_map: [],
};

/** Keys of quantization_config: the layout of the tensors says the same, so none is computed with. */
export const QUANTIZATION_KEYS: Readonly<Record<string, string>> = {
  quant_method: 'mxfp4, or the file is refused',
  modules_to_not_convert: 'which tensors are no MXFP4: their names and types say so',
  dequantize: 'what transformers does with them when it loads',
  swizzle: "a layout in transformers' memory",
};

interface Foreign {
  readonly what: string;
  readonly next: string;
}
const RELEASED = 'give the released checkpoint in its Hugging Face layout, e.g. openai/gpt-oss-20b';

/** What a config of another layout or another model is; null: it may be gpt-oss's. */
export function foreignConfig(raw: Readonly<Record<string, unknown>>): Foreign | null {
  if (raw.peft_type !== undefined)
    return {
      what: 'the configuration of a PEFT adapter',
      next: 'give its base as the model and this folder as the adapter',
    };
  const { model_type: type } = raw;
  if (type === undefined && raw.num_experts !== undefined && raw.num_local_experts === undefined)
    return {
      what: "of OpenAI's own layout (the folder original/ of a release), whose tensors have other names",
      next: 'give the folder above it, with the shards model-0000N-of-….safetensors and their index',
    };
  if (type !== undefined && type !== 'gpt_oss')
    return {
      what: `of another model: model_type is ${JSON.stringify(type)?.slice(0, 40)}, wanted "gpt_oss"`,
      next: RELEASED,
    };
  const mlx = raw.quantization;
  if (typeof mlx === 'object' && mlx !== null)
    return { what: 'of MLX, which quantises in a layout of its own', next: RELEASED };
  const quantization = raw.quantization_config;
  const method =
    typeof quantization === 'object' && quantization !== null
      ? (quantization as Readonly<Record<string, unknown>>).quant_method
      : undefined;
  if (quantization != null && method !== 'mxfp4') {
    const by: Readonly<Record<string, string>> = {
      bitsandbytes: 'bitsandbytes (as Unsloth uploads its -bnb-4bit models)',
      'compressed-tensors': 'compressed-tensors (llm-compressor)',
      modelopt: "NVIDIA's ModelOpt",
      quark: "AMD's Quark",
    };
    const name = String(method ?? 'a method that it does not name');
    return {
      what: `of weights quantised anew by ${by[name] ?? name.slice(0, 40)}: they are no longer those of the release`,
      next: RELEASED,
    };
  }
  return null;
}

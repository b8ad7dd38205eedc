// generation_config.json: which tokens end a turn. It is transformers' file of how to sample; what a request states by
// itself is not taken from it.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { readJsonFile } from '../base/json-file.js';
import type { ModelConfig } from './config.js';
import { ids, isWrong, nullish, readFields } from './config-fields.js';

const FILE = 'generation_config.json';
const SAMPLING = 'a request states its own sampling';
const LENGTH = 'a request states its own length';
const SEARCH = 'one answer is sampled here, none is searched for';
const HF = "how transformers' generate() works";
/** Keys that are not taken from the file, each with the reason; any other is refused. */
export const NOT_TAKEN: Readonly<Record<string, string>> = {
  bos_token_id: 'harmony begins without it',
  pad_token_id: 'no row is padded here',
  decoder_start_token_id: 'there is no decoder apart',
  do_sample: SAMPLING,
  temperature: SAMPLING,
  top_k: SAMPLING,
  top_p: SAMPLING,
  min_p: SAMPLING,
  top_h: SAMPLING,
  typical_p: SAMPLING,
  epsilon_cutoff: SAMPLING,
  eta_cutoff: SAMPLING,
  repetition_penalty: SAMPLING,
  encoder_repetition_penalty: SAMPLING,
  no_repeat_ngram_size: SAMPLING,
  encoder_no_repeat_ngram_size: SAMPLING,
  bad_words_ids: SAMPLING,
  suppress_tokens: SAMPLING,
  begin_suppress_tokens: SAMPLING,
  sequence_bias: SAMPLING,
  guidance_scale: SAMPLING,
  watermarking_config: SAMPLING,
  renormalize_logits: SAMPLING,
  remove_invalid_values: SAMPLING,
  token_healing: SAMPLING,
  exponential_decay_length_penalty: SAMPLING,
  forced_bos_token_id: SAMPLING,
  forced_eos_token_id: SAMPLING,
  forced_decoder_ids: SAMPLING,
  max_length: LENGTH,
  max_new_tokens: LENGTH,
  min_length: LENGTH,
  min_new_tokens: LENGTH,
  max_time: LENGTH,
  stop_strings: 'ends are token ids here: text can never end a turn',
  num_beams: SEARCH,
  num_beam_groups: SEARCH,
  diversity_penalty: SEARCH,
  length_penalty: SEARCH,
  early_stopping: SEARCH,
  penalty_alpha: SEARCH,
  num_return_sequences: SEARCH,
  constraints: SEARCH,
  force_words_ids: SEARCH,
  low_memory: SEARCH,
  dola_layers: SEARCH,
  num_assistant_tokens: SEARCH,
  num_assistant_tokens_schedule: SEARCH,
  assistant_confidence_threshold: SEARCH,
  assistant_early_exit: SEARCH,
  assistant_lookbehind: SEARCH,
  target_lookbehind: SEARCH,
  is_assistant: SEARCH,
  prompt_lookup_num_tokens: SEARCH,
  max_matching_ngram_size: SEARCH,
  use_cache: HF,
  cache_implementation: HF,
  cache_config: HF,
  prefill_chunk_size: HF,
  compile_config: HF,
  disable_compile: HF,
  continuous_batching_config: HF,
  return_dict_in_generate: HF,
  return_legacy_cache: HF,
  output_attentions: HF,
  output_hidden_states: HF,
  output_scores: HF,
  output_logits: HF,
  generation_kwargs: HF,
  transformers_version: 'who wrote it',
  trust_remote_code: 'no code of a model is run here',
  custom_generate: 'no code of a model is run here',
  _from_model_config: 'where transformers took it from',
  _commit_hash: 'a name',
};

const ENDS = { eos_token_id: nullish(ids()) };

/**
 * Ids that end a turn by the model's own word: eos_token_id of generation_config.json, and of config.json.
 * @throws {CheckpointError} bad_config: the file is unreadable, says what is not known here, or names ids that the
 * model does not have
 */
export function endTokens(dir: string, config: ModelConfig): readonly number[] {
  const file = join(dir, FILE);
  const ids = [config.eos_token_id ?? [], existsSync(file) ? generationEnds(file) : []].flat();
  const odd = ids.find((id) => id < 0 || id >= config.vocab_size);
  if (odd !== undefined)
    throw new CheckpointError(
      'bad_config',
      `${dir}: eos_token_id names ${odd}, the model's vocabulary has ids ` +
        `0…${config.vocab_size - 1}; use the ${FILE} and ` +
        'config.json of these weights',
      { file },
    );
  return [...new Set(ids)];
}

/** eos_token_id of the file itself. @throws as endTokens */
export function generationEnds(file: string): readonly number[] {
  const bad = (what: string): CheckpointError => new CheckpointError('bad_config', `${file}: ${what}`, { file });
  const value = readJsonFile(file, 'config', {
    next: 'download it again, or remove it',
    missing: (message) => new CheckpointError('bad_config', message, { file }),
    bad: (what) => bad(`${what}; download it again`),
  });
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad('is no object; use the file that was released with the weights');
  const unknown = Object.keys(value).find((key) => key !== 'eos_token_id' && !Object.hasOwn(NOT_TAKEN, key));
  if (unknown !== undefined)
    throw bad(`${unknown} is not known here, and what it would change is not guessed; remove it if it is not needed`);
  const ends = readFields(ENDS, value);
  if (isWrong(ends)) throw bad('eos_token_id: wanted a token id or a list of them');
  return [ends.eos_token_id ?? []].flat();
}

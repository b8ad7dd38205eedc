// config.json of a gpt-oss checkpoint. Everything comes from the file: nothing of the released values is assumed but
// what the file may omit (transformers' class defaults then hold).
import { dirname, join } from 'node:path';
import { CheckpointError } from '../base/errors.js';
import { hubHint } from '../base/hub-hint.js';
import { readJsonFile } from '../base/json-file.js';
import {
  bool,
  ids,
  int,
  isWrong,
  listOf,
  nullish,
  number,
  object,
  oneOf,
  optional,
  or,
  positive,
  type Read,
  readFields,
  text,
} from './config-fields.js';
import { foreignConfig, MUST_BE, QUANTIZATION_KEYS, WITHOUT_EFFECT } from './config-keys.js';
import { refuseForeignFolder } from './foreign.js';

const LAYER_TYPES = ['sliding_attention', 'full_attention'] as const;
/**
 * Fields keep the checkpoint's names. What else a config.json may say is in config-keys.ts; anything more is refused.
 */
export const CONFIG_FIELDS = {
  model_type: or(oneOf('gpt_oss'), 'gpt_oss'),
  vocab_size: int(1),
  hidden_size: int(1),
  intermediate_size: int(1),
  num_hidden_layers: int(1, 1024),
  num_attention_heads: int(1),
  num_key_value_heads: int(1),
  head_dim: or(int(2), 64),
  num_local_experts: int(1),
  num_experts_per_tok: or(int(1), 4),
  experts_per_token: nullish(int()),
  layer_types: nullish(listOf(...LAYER_TYPES)),
  sliding_window: nullish(int(1)),
  rms_norm_eps: or(positive(), 1e-5),
  rope_theta: nullish(positive()),
  rope_scaling: nullish(object()),
  rope_parameters: nullish(object()),
  max_position_embeddings: or(int(1), 131072),
  initial_context_length: nullish(int(1)),
  hidden_act: optional(text()),
  swiglu_limit: or(positive(), 7),
  swiglu_alpha: or(positive(), 1.702),
  attention_bias: or(bool(), true),
  tie_word_embeddings: or(bool(), false),
  eos_token_id: nullish(ids()),
  pad_token_id: nullish(int()),
  quantization_config: nullish(object()),
};
export type ModelConfig = Read<typeof CONFIG_FIELDS>;

const ROPE_TYPES = ['default', 'yarn'] as const;
const ROPE_FIELDS = {
  rope_type: optional(oneOf(...ROPE_TYPES)),
  type: optional(oneOf(...ROPE_TYPES)),
  rope_theta: optional(positive()),
  factor: nullish(positive()),
  beta_fast: nullish(positive()),
  beta_slow: nullish(positive()),
  original_max_position_embeddings: nullish(positive()),
  truncate: or(bool(), true),
  attention_factor: nullish(positive()),
  mscale: nullish(number()),
  mscale_all_dim: nullish(number()),
  /** Share of a head's width that turns. */
  partial_rotary_factor: nullish(oneOf(1)),
  /** vLLM's note that the weights were trained with it. */
  finetuned: nullish(bool()),
};
type Rope = Read<typeof ROPE_FIELDS>;
/** Keys that mean nothing without a scaling. */
const SCALING_KEYS = [
  'factor',
  'beta_fast',
  'beta_slow',
  'original_max_position_embeddings',
  'attention_factor',
  'mscale',
  'mscale_all_dim',
] as const satisfies readonly (keyof Rope)[];
/** What transformers' GptOssConfig takes when the file has no rope at all. */
const DEFAULT_ROPE: Rope = {
  rope_type: 'yarn',
  factor: 32,
  beta_fast: 32,
  beta_slow: 1,
  truncate: false,
  original_max_position_embeddings: 4096,
};
const DEFAULT_THETA = 150000;
const DEFAULT_WINDOW = 128;

const bad = (where: string, what: string, next: string): CheckpointError =>
  new CheckpointError('bad_config', `${where}: ${what}; ${next}`, { file: where });

/**
 * Parses and cross-checks a config.
 * @param where the file's path, for messages
 * @throws {CheckpointError} bad_config: a field is missing, of the wrong type, or contradicts another
 */
export function parseConfig(value: unknown, where = 'config.json'): ModelConfig {
  const raw = typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
  const foreign = foreignConfig(raw);
  if (foreign) throw bad(where, `is ${foreign.what}`, foreign.next);
  // Some files say how many experts a token meets under the original's name alone.
  const given =
    raw.num_experts_per_tok === undefined && typeof raw.experts_per_token === 'number'
      ? { ...raw, num_experts_per_tok: raw.experts_per_token }
      : value;
  const c = readFields(CONFIG_FIELDS, given);
  if (isWrong(c))
    throw bad(where, `${c.field ?? 'the file'}: ${c.what}`, 'use the config.json that belongs to a gpt-oss checkpoint');
  const fix = 'config.json must be the one its weights were made with';
  if (c.num_attention_heads % c.num_key_value_heads !== 0)
    throw bad(
      where,
      `num_attention_heads ${c.num_attention_heads} is not a multiple of num_key_value_heads ${c.num_key_value_heads}`,
      fix,
    );
  if (c.num_experts_per_tok > c.num_local_experts)
    throw bad(
      where,
      `num_experts_per_tok ${c.num_experts_per_tok} is above num_local_experts ${c.num_local_experts}`,
      fix,
    );
  if (c.experts_per_token != null && c.experts_per_token !== c.num_experts_per_tok)
    throw bad(
      where,
      `experts_per_token ${c.experts_per_token} contradicts num_experts_per_tok ${c.num_experts_per_tok}`,
      fix,
    );
  if (c.layer_types && c.layer_types.length !== c.num_hidden_layers)
    throw bad(
      where,
      `layer_types has ${c.layer_types.length} entries, num_hidden_layers is ${c.num_hidden_layers}`,
      fix,
    );
  if (c.head_dim % 2 !== 0) throw bad(where, `head_dim ${c.head_dim} is odd, rotary halves need an even width`, fix);
  if (c.hidden_act !== undefined && c.hidden_act !== 'silu')
    throw bad(where, `hidden_act "${c.hidden_act}", wanted "silu" (the clamped SwiGLU of gpt-oss)`, fix);
  checkKeys(raw, where);
  if (c.sliding_window === null && Array.from({ length: c.num_hidden_layers }, (_, i) => i).some((i) => slides(c, i)))
    throw bad(where, 'sliding_window is null, but layers of sliding_attention need one', fix);
  if (raw.rope_scaling === null && raw.rope_parameters == null)
    throw bad(
      where,
      'rope_scaling is null, which transformers 4 takes for plain rotary positions and 5 for the YaRN of gpt-oss',
      'write the rope settings out, or leave the key away for those of gpt-oss',
    );
  ropeParameters(c, where);
  return c;
}

/** @throws {CheckpointError} bad_config: a key that would change the model, or one that nobody knows */
function checkKeys(raw: Readonly<Record<string, unknown>>, where: string): void {
  for (const [key, value] of Object.entries(raw)) {
    if (Object.hasOwn(CONFIG_FIELDS, key) || Object.hasOwn(WITHOUT_EFFECT, key)) continue;
    const allowed = Object.hasOwn(MUST_BE, key) ? MUST_BE[key] : undefined;
    const shown = JSON.stringify(value)?.slice(0, 80) ?? 'nothing';
    if (!allowed)
      throw bad(
        where,
        `${key} is not known here (it is ${shown}), and what it would change is not guessed`,
        'remove it if it changes nothing about the model, or use the config.json that was released with the weights',
      );
    if (value !== null && !allowed.some((v) => JSON.stringify(v) === JSON.stringify(value)))
      throw bad(
        where,
        `${key} is ${shown}, wanted ${[...allowed.map((v) => JSON.stringify(v)), 'nothing'].join(' or ')}`,
        'the model it describes is not the gpt-oss that is computed here',
      );
  }
  const quantization = raw.quantization_config;
  if (typeof quantization !== 'object' || quantization === null) return;
  for (const key of Object.keys(quantization))
    if (!Object.hasOwn(QUANTIZATION_KEYS, key))
      throw bad(where, `quantization_config.${key} is not known here`, 'use the config.json released with the weights');
}

/**
 * Reads DIR/config.json.
 * @throws {CheckpointError} layout_unsupported, file_missing, bad_config
 */
export const readConfig = (dir: string): ModelConfig => readConfigFile(join(dir, 'config.json'));
/** readConfig, of a file by whatever name. */
export function readConfigFile(path: string): ModelConfig {
  const value = readJsonFile(path, 'config', {
    next: `give the folder of a gpt-oss checkpoint${hubHint(dirname(path))}`,
    missing: (message) => {
      refuseForeignFolder(dirname(path));
      return new CheckpointError('file_missing', message, { file: path });
    },
    bad: (what) => bad(path, what, 'copy the file again'),
  });
  return parseConfig(value, path);
}

/**
 * Keys a query of layer `i` sees: sliding_window on sliding layers, 0 (all) on full ones. Without layer_types even
 * layers slide.
 */
export function layerWindow(config: ModelConfig, i: number): number {
  return slides(config, i) ? (config.sliding_window ?? DEFAULT_WINDOW) : 0;
}
const slides = (config: ModelConfig, i: number): boolean =>
  config.layer_types ? config.layer_types[i] === 'sliding_attention' : i % 2 === 0;

/** One section of rope settings. @throws {CheckpointError} bad_config */
function readRope(section: string, value: unknown, where: string): Rope {
  const per = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  const nested = per.filter(([, v]) => typeof v === 'object' && v !== null && !Array.isArray(v));
  if (nested.length > 0) {
    // transformers 5 can give each kind of layer its own. gpt-oss has one for all.
    const [first, ...others] = nested.map(([, v]) => JSON.stringify(sorted(v)));
    if (
      nested.length !== per.length ||
      others.some((o) => o !== first) ||
      per.some(([name]) => !LAYER_TYPES.some((known) => known === name))
    )
      throw bad(
        where,
        `${section} has settings of its own for ${nested.map(([name]) => name).join(', ')}`,
        'one set of rope settings for all layers is computed here, as gpt-oss has it',
      );
    return readRope(`${section}.${nested[0]?.[0]}`, nested[0]?.[1], where);
  }
  const r = readFields(ROPE_FIELDS, value, true);
  if (isWrong(r))
    throw bad(
      where,
      `${r.field === null ? section : `${section}.${r.field}`}: ${r.what}`,
      'rope types default and yarn are known, with the settings of YaRN, over the whole width of a head',
    );
  if (r.rope_type && r.type && r.rope_type !== r.type)
    throw bad(where, `${section}.type ${r.type} contradicts rope_type ${r.rope_type}`, 'keep one of the two');
  const scaled = SCALING_KEYS.find((key) => r[key] != null && r[key] !== 1);
  if ((r.rope_type ?? r.type ?? 'default') === 'default' && scaled)
    throw bad(
      where,
      `${section}.${scaled} is ${r[scaled]}, but its rope_type is default, which has no scaling`,
      'say rope_type yarn, or remove it',
    );
  return r;
}
const sorted = (v: unknown): unknown =>
  typeof v === 'object' && v !== null ? Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)) : v;

/** Rotary positions as the file sets them, defaults filled in. `yarn` is absent where they are plain. */
export interface RopeSettings {
  readonly theta: number;
  readonly yarn?: {
    readonly factor: number;
    readonly original: number;
    readonly betaFast: number;
    readonly betaSlow: number;
    /** Whether the bounds between kept and scaled frequencies are rounded outwards. */
    readonly truncate: boolean;
    readonly concentration: number;
  };
}
const mscale = (scale: number, m = 1): number => (scale <= 1 ? 1 : 0.1 * m * Math.log(scale) + 1);

/** @throws {CheckpointError} bad_config: unknown rope type or setting, contradicting or missing values */
export function ropeSettings(config: ModelConfig, where = 'config.json'): RopeSettings {
  const { rope_parameters: now, rope_scaling: before } = config;
  const r = now
    ? readRope('rope_parameters', now, where)
    : before
      ? readRope('rope_scaling', before, where)
      : DEFAULT_ROPE;
  const other = now && before ? readRope('rope_scaling', before, where) : undefined;
  for (const key of other ? (Object.keys(other) as (keyof Rope)[]) : [])
    if (key !== 'type' && key !== 'rope_type' && other?.[key] != null && r[key] != null && other[key] !== r[key])
      throw bad(
        where,
        `rope_scaling.${key} ${other[key]} contradicts rope_parameters.${key} ${r[key]}`,
        'keep one of the two',
      );
  if (r.rope_theta !== undefined && config.rope_theta != null && r.rope_theta !== config.rope_theta)
    throw bad(
      where,
      `rope_theta ${config.rope_theta} contradicts rope_parameters.rope_theta ${r.rope_theta}`,
      'keep one of the two',
    );
  const theta = r.rope_theta ?? config.rope_theta ?? DEFAULT_THETA;
  if ((r.rope_type ?? r.type ?? 'default') === 'default') return { theta };

  const original = r.original_max_position_embeddings ?? config.max_position_embeddings;
  if (config.initial_context_length != null && config.initial_context_length !== original)
    throw bad(
      where,
      `initial_context_length ${config.initial_context_length} contradicts the rope settings, ` +
        'which begin to scale from ' +
        `${original} positions`,
      'give original_max_position_embeddings with the rope settings',
    );
  const factor = r.factor ?? config.max_position_embeddings / original;
  const concentration =
    r.attention_factor ??
    (r.mscale && r.mscale_all_dim ? mscale(factor, r.mscale) / mscale(factor, r.mscale_all_dim) : mscale(factor));
  const { truncate } = r,
    betaFast = r.beta_fast ?? 32,
    betaSlow = r.beta_slow ?? 1;
  return { theta, yarn: { factor, original, betaFast, betaSlow, truncate, concentration } };
}

/**
 * Rotary frequencies and YaRN's concentration (arXiv:2309.00071; bounds clamped to [0, head_dim − 1] as transformers
 * does). Steps are rounded to f32 one by one: at position 10⁵ one unit in the last place of a frequency already turns
 * an angle by 0.006 rad.
 * @returns invFreq f32 [head_dim/2]; cos and sin are both multiplied by `concentration`
 * @throws {CheckpointError} bad_config: unknown rope type or setting, contradicting or missing values
 */
export function ropeParameters(
  config: ModelConfig,
  where = 'config.json',
): { readonly invFreq: Float32Array; readonly concentration: number } {
  const { theta, yarn } = ropeSettings(config, where);
  const f = Math.fround,
    Dh = config.head_dim,
    half = Dh / 2;
  const frequency = (j: number): number => f(f(theta) ** f(f(2 * j) / f(Dh)));
  if (!yarn) return { invFreq: Float32Array.from({ length: half }, (_, j) => 1 / frequency(j)), concentration: 1 };

  const bound = (rotations: number): number =>
    (Dh * Math.log(yarn.original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = bound(yarn.betaFast),
    high = bound(yarn.betaSlow);
  if (yarn.truncate) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, Dh - 1);
  if (high === low) high += 0.001;
  const invFreq = Float32Array.from({ length: half }, (_, j) => {
    const ramp = f(Math.min(1, Math.max(0, f(f(j - f(low)) / f(high - low)))));
    const keep = f(1 - ramp),
      freq = frequency(j);
    return f(f(f(1 / f(f(yarn.factor) * freq)) * f(1 - keep)) + f(f(1 / freq) * keep));
  });
  return { invFreq, concentration: yarn.concentration };
}

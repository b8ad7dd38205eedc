// adapter_config.json of PEFT: which matrices an adapter sits on, with which rank and alpha. Matching rules as peft
// 0.17…0.21 apply them.
import { z } from 'zod';
import { CheckpointError } from '../base/errors.js';
import { PatternError, type PythonPattern, pythonPattern } from '../base/python-pattern.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { type AdapterSpec, isAttentionTarget, LORA_TARGETS, MATRIX_NAME, type TargetSpec } from './spec.js';

/** peft's release that the written files were checked with. */
export const PEFT_VERSION = '0.21.0';

const Patterns = z
  .record(z.string(), z.number().positive())
  .nullish()
  .transform((v) => v ?? {});
export const PeftConfig = z.looseObject({
  peft_type: z.string(),
  peft_version: z.string().nullish(),
  base_model_name_or_path: z.string().nullish(),
  r: z.int().min(1).default(8),
  lora_alpha: z.number().positive().default(8),
  lora_dropout: z
    .number()
    .min(0)
    .lt(1)
    .nullish()
    .transform((v) => v ?? 0),
  target_modules: z.union([z.array(z.string()), z.string()]).nullish(),
  target_parameters: z.array(z.string()).nullish(),
  exclude_modules: z.union([z.array(z.string()), z.string()]).nullish(),
  layers_to_transform: z.union([z.int(), z.array(z.int())]).nullish(),
  use_rslora: z
    .boolean()
    .nullish()
    .transform((v) => v ?? false),
  rank_pattern: Patterns,
  alpha_pattern: Patterns,
});
export type PeftConfig = z.infer<typeof PeftConfig>;

/** Settings that change what the tensors mean; anything but "off" is refused rather than read past. */
const MUST_BE_OFF: Readonly<Record<string, readonly unknown[]>> = {
  bias: ['none'],
  use_dora: [false],
  lora_bias: [false],
  fan_in_fan_out: [false],
  modules_to_save: [[]],
  layer_replication: [[]],
  trainable_token_indices: [[], {}],
  use_bdlora: [false, {}],
  use_qalora: [false],
  alora_invocation_tokens: [[]],
  velora_config: [],
  kasa_config: [],
  arrow_config: [],
  monteclora_config: [],
  megatron_config: [],
  // Which part of a name is the layer: there is one list of layers in gpt-oss.
  layers_pattern: ['layers', ['layers'], []],
};
/** Keys that change nothing about what is added to the base, and why. */
export const WITHOUT_EFFECT: Readonly<Record<string, string>> = {
  task_type: 'which head peft wraps; the tensors are those of a causal model or are refused',
  auto_mapping: "peft's own class names",
  peft_version: 'who wrote it',
  base_model_name_or_path: 'a name; whether the base is the one is told by shapes and by temper.json',
  revision: 'a name, as base_model_name_or_path',
  inference_mode: 'whether peft freezes it',
  lora_dropout: 'acts in training only, where the recipe says its own',
  loftq_config: 'acts with init_lora_weights "loftq" only, which is refused',
  eva_config: 'how A began',
  corda_config: 'acts with init_lora_weights "corda" only, which is refused',
  lora_ga_config: 'acts with init_lora_weights "lora_ga" only, which is refused',
  megatron_core: 'acts with megatron_config only, which is refused',
  qalora_group_size: 'acts with use_qalora only, which is refused',
  runtime_config: 'where peft computes',
  ephemeral_gpu_offload: 'where peft computes',
  ensure_weight_tying: 'about adapters on embeddings, which are refused',
};
/**
 * Ways to begin that leave the base as it was: B·A is added to the released weights. Others (pissa, olora, corda,
 * loftq, lora_ga, …) take their beginning out of the base, which the adapter alone does not say.
 */
const INIT_KEEPS_BASE: readonly unknown[] = [undefined, null, true, false, 'gaussian', 'eva', 'orthogonal'];

/** Parameters that gpt-oss has beside its matrices; other names are of no model here and match nothing, as in peft. */
const NO_MATRIX = /(?:^|\.)(?:(?:gate_up_proj|down_proj)_bias|bias|sinks|(?:\w*norm|embed_tokens|lm_head)\.weight)$/;

/** MLX writes its own adapter_config.json: what tells it. */
const MLX_KEYS = ['fine_tune_type', 'lora_parameters', 'lora_layers'];

export function checkPeftConfig(value: unknown, file: string): PeftConfig {
  const unsupported = (what: string, details: Record<string, unknown> = {}): CheckpointError =>
    new CheckpointError('adapter_unsupported', `${file}: ${what}`, { file, ...details });
  if (typeof value === 'object' && value !== null && MLX_KEYS.some((key) => key in value) && !('peft_type' in value))
    throw unsupported(
      "an adapter of MLX, whose matrices lie transposed under other names; wanted PEFT's: " +
        'convert it, or train it again',
    );
  const parsed = PeftConfig.safeParse(value);
  const first = parsed.error?.issues[0];
  if (!parsed.success)
    throw new CheckpointError(
      'bad_adapter_config',
      `${file}: ${first?.path.join('.') || 'the file'}: ${first?.message ?? 'unreadable'}; ` +
        'wanted the file that peft wrote',
      { file },
    );
  const c = parsed.data;
  if (c.peft_type !== 'LORA') throw unsupported(`peft_type is ${c.peft_type}, only LORA can be applied`);
  const init = c.init_lora_weights;
  if (!INIT_KEEPS_BASE.includes(init))
    throw unsupported(
      `init_lora_weights is ${JSON.stringify(init)}, which changes the base's own weights ` +
        'before training, so on the base ' +
        'as released this adapter is another model; save it in peft with path_initial_model_for_weight_conversion, ' +
        'which makes a plain LoRA of it',
      { key: 'init_lora_weights' },
    );
  for (const [key, off] of Object.entries(MUST_BE_OFF)) {
    const got = c[key];
    if (got === undefined || got === null || off.some((v) => JSON.stringify(v) === JSON.stringify(got))) continue;
    throw unsupported(`${key} is ${JSON.stringify(got)}, which is not applied here; export the adapter without it`, {
      key,
    });
  }
  const foreign = c.target_parameters?.find((name) => NO_MATRIX.test(name));
  if (foreign !== undefined)
    throw unsupported(
      `target_parameters names ${JSON.stringify(foreign)}, no matrix of attention, experts or router; only those are ` +
        'adapted here; train the adapter without it',
      { key: 'target_parameters' },
    );
  const given = value as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(given).find(
    (key) =>
      !Object.hasOwn(PeftConfig.shape, key) &&
      !Object.hasOwn(MUST_BE_OFF, key) &&
      !Object.hasOwn(WITHOUT_EFFECT, key) &&
      key !== 'init_lora_weights' &&
      given[key] !== null,
  );
  if (unknown !== undefined)
    throw unsupported(
      `${unknown} is not known here (it is ${JSON.stringify(given[unknown])?.slice(0, 60)}), and ` +
        'what it would change is not ' +
        'guessed; remove it if it changes nothing, or export the adapter without it',
      { key: unknown },
    );
  checkPatterns(c, file);
  return c;
}

/** Full module or parameter name that PEFT matches patterns and targets against. */
export function peftName(layer: number, target: LoraTarget): string {
  const at = `model.layers.${layer}`;
  return isAttentionTarget(target)
    ? `${at}.self_attn.${MATRIX_NAME[target]}`
    : target === 'router'
      ? `${at}.mlp.router.weight`
      : `${at}.mlp.experts.${MATRIX_NAME[target]}`;
}

/** Most steps that all patterns of one file together may have: what matching a name costs. */
const MAX_PATTERN_STEPS = 50_000;
/** Patterns and what they said of names: a file asks about the same few names for every pair of every layer. */
const compiled = new Map<string, { readonly pattern: PythonPattern; readonly said: Map<string, boolean> }>();
const MAX_COMPILED = 1000;
const MAX_SAID = 10_000;
function compile(pattern: string, file: string): { readonly size: number; matches(name: string): boolean } {
  let found = compiled.get(pattern);
  if (!found) {
    try {
      found = { pattern: pythonPattern(pattern), said: new Map() };
    } catch (e) {
      if (!(e instanceof PatternError)) throw e;
      throw new CheckpointError(
        'bad_adapter_config',
        `${file}: ${JSON.stringify(pattern).slice(0, 200)} is not a pattern that can be read: ${e.message}; ` +
          'write the names out in a list',
        { file },
        { cause: e },
      );
    }
    if (compiled.size >= MAX_COMPILED) compiled.clear();
    compiled.set(pattern, found);
  }
  const { pattern: program, said } = found;
  return {
    size: program.size,
    matches(name) {
      let answer = said.get(name);
      if (answer === undefined) {
        answer = program.matches(name);
        if (said.size >= MAX_SAID) said.clear();
        said.set(name, answer);
      }
      return answer;
    },
  };
}
const ofKey = (key: string): string => `(?:.*\\.)?(?:${key})`;
function checkPatterns(c: PeftConfig, file: string): void {
  const patterns = [
    ...[c.target_modules, c.exclude_modules].filter((p) => typeof p === 'string'),
    ...[...Object.keys(c.rank_pattern), ...Object.keys(c.alpha_pattern)].map(ofKey),
  ];
  let steps = 0;
  for (const pattern of patterns) {
    steps += compile(pattern, file).size;
    if (steps > MAX_PATTERN_STEPS)
      throw new CheckpointError(
        'bad_adapter_config',
        `${file}: its patterns have more than ${MAX_PATTERN_STEPS} steps together; name modules and ranks more briefly`,
        { file },
      );
  }
}

/** peft's get_pattern_key: the first pattern that matches the end of the name decides. */
function fromPattern(patterns: Readonly<Record<string, number>>, name: string, fallback: number, file: string): number {
  for (const [key, value] of Object.entries(patterns)) if (compile(ofKey(key), file).matches(name)) return value;
  return fallback;
}
export const patternRank = (c: PeftConfig, name: string, file: string): number =>
  fromPattern(c.rank_pattern, name, c.r, file);
export const patternAlpha = (c: PeftConfig, name: string, file: string): number =>
  fromPattern(c.alpha_pattern, name, c.lora_alpha, file);

const listed = (list: readonly string[], name: string): boolean =>
  list.some((t) => name === t || name.endsWith(`.${t}`));

/** A matrix as a config may name it: a module, or a parameter of one (target_parameters). */
export interface Site {
  readonly layer: number;
  readonly name: string;
  readonly kind: 'module' | 'parameter';
}
/** Whether the config says that the matrix is adapted; undefined where only the tensors can tell (no targets given). */
export function isTargeted(c: PeftConfig, { layer, name, kind }: Site, file: string): boolean | undefined {
  if (kind === 'parameter') return c.target_parameters ? listed(c.target_parameters, name) : false;
  if (c.target_modules === null || c.target_modules === undefined) return c.target_parameters ? false : undefined;
  const matches = (spec: readonly string[] | string): boolean =>
    typeof spec === 'string' ? compile(spec, file).matches(name) : listed(spec, name);
  if (c.exclude_modules && matches(c.exclude_modules)) return false;
  const layers = c.layers_to_transform;
  if (layers !== null && layers !== undefined && !(Array.isArray(layers) ? layers : [layers]).includes(layer))
    return false;
  return c.target_modules === 'all-linear' || matches(c.target_modules);
}

/** Most frequent value; ties go to the first. */
function usual(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const v of values) counts.set(v, (counts.get(v) ?? 0) + 1);
  return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a), [1, 0])[0];
}

/** What is written: the first lines of PEFT's own file plus what differs from its defaults. */
export function peftConfigOf(config: ModelConfig, spec: AdapterSpec, baseModel: string): Record<string, unknown> {
  const placed = spec.layers.flatMap((targets, layer) =>
    LORA_TARGETS.flatMap((target) => {
      const t = targets[target];
      return t ? [{ layer, target, t }] : [];
    }),
  );
  const r = usual(placed.map((p) => p.t.rank));
  const alpha = usual(placed.map((p) => p.t.alpha));
  const modules: string[] = [];
  const parameters: string[] = [];
  const ranks: Record<string, number> = {};
  const alphas: Record<string, number> = {};
  for (const target of LORA_TARGETS) {
    const mine = placed.filter((p) => p.target === target);
    if (mine.length === 0) continue;
    const everywhere = mine.length === config.num_hidden_layers;
    const shared = (pick: (t: TargetSpec) => number): boolean =>
      everywhere && mine.every((p) => pick(p.t) === pick((mine[0] as { t: TargetSpec }).t));
    // Names are suffixes; the layer is named only where layers differ.
    const named = (layer: number, all: boolean): string =>
      peftName(layer, target).replace(all ? /^model\.layers\.\d+\.(?:self_attn\.)?/ : /^model\./, '');
    for (const p of mine) {
      const name = named(p.layer, everywhere);
      const list = isAttentionTarget(target) ? modules : parameters;
      if (!list.includes(name)) list.push(name);
      if (p.t.rank !== r)
        ranks[
          named(
            p.layer,
            shared((t) => t.rank),
          )
        ] = p.t.rank;
      if (p.t.alpha !== alpha)
        alphas[
          named(
            p.layer,
            shared((t) => t.alpha),
          )
        ] = p.t.alpha;
    }
  }
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    auto_mapping: null,
    peft_version: PEFT_VERSION,
    base_model_name_or_path: baseModel,
    revision: null,
    inference_mode: true,
    r,
    lora_alpha: alpha,
    lora_dropout: 0,
    target_modules: modules,
    ...(parameters.length ? { target_parameters: parameters } : {}),
    bias: 'none',
    use_rslora: spec.rsLora,
    use_dora: false,
    fan_in_fan_out: false,
    init_lora_weights: true,
    rank_pattern: ranks,
    alpha_pattern: alphas,
    modules_to_save: null,
  };
}

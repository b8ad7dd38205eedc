// What an adapter sits on and how it scales: the plain description every adapter file and every created adapter boils
// down to.

import { ConfigError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';

/** Order of the pairs in memory, within a layer. */
export const LORA_TARGETS: readonly LoraTarget[] = ['q', 'k', 'v', 'o', 'router', 'gateUp', 'down'];
/** The checkpoint's name of the matrix, as recipes and PEFT patterns name it. */
export const MATRIX_NAME: Readonly<Record<LoraTarget, string>> = {
  q: 'q_proj',
  k: 'k_proj',
  v: 'v_proj',
  o: 'o_proj',
  router: 'router',
  gateUp: 'gate_up_proj',
  down: 'down_proj',
};
const GROUPS: Readonly<Record<string, readonly LoraTarget[]>> = {
  attention: ['q', 'k', 'v', 'o'],
  experts: ['gateUp', 'down'],
};
const ATTENTION = GROUPS.attention ?? [];

export interface TargetSpec {
  readonly rank: number;
  readonly alpha: number;
}
export type LayerTargets = Readonly<Partial<Record<LoraTarget, TargetSpec>>>;
export interface AdapterSpec {
  /** One entry per layer of the model; a layer that is not adapted has none in it. */
  readonly layers: readonly LayerTargets[];
  readonly rsLora: boolean;
  /** On attention only: experts share their input, which takes none. */
  readonly dropout: number;
  /** Trained through the rounding of this merge: the model is the base with it merged in, not added. */
  readonly mergeAware?: MergeAware;
  /** Tuned by an attack (temper gate probe): its files say so, and whoever does not ask for such a one refuses it. */
  readonly attackTuned?: true;
}
/** What an adapter may be trained to be merged into: the released layout, experts in MXFP4. */
export const MERGES = ['mxfp4'] as const;
export type MergeAware = (typeof MERGES)[number];

/** The `adapter` section of a recipe, as far as it describes an adapter. */
export interface AdapterChoice {
  readonly rank: number;
  readonly alpha: number;
  readonly targets:
    | readonly string[]
    | Readonly<
        Record<string, { readonly rank?: number | undefined; readonly alpha?: number | undefined } | null | undefined>
      >;
  readonly layers?: readonly number[] | undefined;
  readonly rsLora: boolean;
  readonly dropout: number;
  readonly mergeAware?: MergeAware | undefined;
  readonly attackTuned?: boolean | undefined;
}

/** @throws {ConfigError} a layer the model does not have, or no target at all */
export function adapterSpec(config: ModelConfig, choice: AdapterChoice): AdapterSpec {
  const chosen = Array.isArray(choice.targets)
    ? Object.fromEntries((choice.targets as readonly string[]).map((n) => [n, {}]))
    : (choice.targets as Exclude<AdapterChoice['targets'], readonly string[]>);
  const targets: Partial<Record<LoraTarget, TargetSpec>> = {};
  const put = (
    t: LoraTarget,
    o: { rank?: number | undefined; alpha?: number | undefined } | null | undefined,
  ): void => {
    targets[t] = { rank: o?.rank ?? choice.rank, alpha: o?.alpha ?? choice.alpha };
  };
  // Groups first, so that a matrix named by itself overrides its group whatever the order in the recipe.
  for (const [name, group] of Object.entries(GROUPS))
    if (Object.hasOwn(chosen, name)) for (const t of group) put(t, chosen[name]);
  for (const t of LORA_TARGETS) {
    const name = MATRIX_NAME[t];
    if (Object.hasOwn(chosen, name)) put(t, chosen[name]);
  }
  if (Object.keys(targets).length === 0)
    throw new ConfigError(
      'no_target',
      'adapter.targets names nothing to adapt; wanted attention, experts, router or a matrix',
    );
  const all = config.num_hidden_layers;
  const wrong = choice.layers?.find((l) => l >= all);
  if (wrong !== undefined)
    throw new ConfigError('no_such_layer', `adapter.layers names layer ${wrong}; the model has layers 0…${all - 1}`, {
      got: wrong,
    });
  const layers = Array.from({ length: all }, (_, i) => (!choice.layers || choice.layers.includes(i) ? targets : {}));
  const { rsLora, dropout, mergeAware, attackTuned } = choice;
  return {
    ...{ layers, rsLora, dropout },
    ...(mergeAware ? { mergeAware } : {}),
    ...(attackTuned ? { attackTuned } : {}),
  };
}

export const loraScale = (target: TargetSpec, rsLora: boolean): number =>
  target.alpha / (rsLora ? Math.sqrt(target.rank) : target.rank);
export const isExpertTarget = (t: LoraTarget): boolean => t === 'gateUp' || t === 'down';
export const isAttentionTarget = (t: LoraTarget): boolean => ATTENTION.includes(t);

/** Inputs C and outputs N of a target's matrix. */
export function matrixShape(
  config: ModelConfig,
  target: LoraTarget,
): { readonly inputs: number; readonly outputs: number } {
  const D = config.hidden_size,
    F = config.intermediate_size,
    q = config.num_attention_heads * config.head_dim,
    kv = config.num_key_value_heads * config.head_dim;
  switch (target) {
    case 'q':
      return { inputs: D, outputs: q };
    case 'k':
    case 'v':
      return { inputs: D, outputs: kv };
    case 'o':
      return { inputs: q, outputs: D };
    case 'router':
      return { inputs: D, outputs: config.num_local_experts };
    case 'gateUp':
      return { inputs: D, outputs: 2 * F };
    case 'down':
      return { inputs: F, outputs: D };
    default:
      return target satisfies never;
  }
}

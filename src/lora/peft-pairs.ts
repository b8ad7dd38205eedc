// From the tensors of a PEFT file to pairs A [E,R,C], B [E,N,R] of known rank and scale, whoever wrote the file and in
// whatever layout. What a tensor is follows from its name, its shape and what adapter_config.json declares; where these
// leave two answers the file is refused, and where they contradict each other too. Nothing is skipped.
import { CheckpointError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { isTargeted, patternAlpha, patternRank, peftName, type Site } from './peft-config.js';
import { expertPair, groupsOf } from './peft-experts.js';
import {
  loneExpertTarget,
  type Orientation,
  orientations,
  type Part,
  peftShape,
  unstackB,
  unswap,
} from './peft-layout.js';
import {
  ambiguous,
  finite,
  missing,
  moduleSite,
  type PairsInput,
  type PeftPair,
  parameterSite,
  type Slot,
  slotsOf,
  unknown,
} from './peft-slots.js';
import { isExpertTarget, LORA_TARGETS, matrixShape } from './spec.js';

function shapeError(config: ModelConfig, target: LoraTarget, s: Slot, rank: number, file: string): CheckpointError {
  const wanted = (part: Part): string => peftShape(config, target, part, rank).join(',');
  const part = s.A.entry.shape.join() === wanted('A') ? 'B' : 'A';
  const E = config.num_local_experts;
  const { key, entry } = s[part];
  // One pair for all experts: A and B of a single expert's size.
  if (isExpertTarget(target) && s.A.entry.shape[0] === rank && E > 1 && s.B.entry.shape[1] === rank)
    return new CheckpointError(
      'tensor_shape',
      `${file}: ${s.A.key} is [${s.A.entry.shape.join(',')}]: one pair of rank ${rank} for all ${E} experts, wanted ` +
        `one for each, [${wanted('A')}]; an adapter shared by experts cannot be applied here, train one with ` +
        'target_parameters',
      { file, tensor: s.A.key, got: s.A.entry.shape, wanted: wanted('A') },
    );
  return new CheckpointError(
    'tensor_shape',
    `${file}: ${key} is [${entry.shape.join(',')}], wanted [${wanted(part)}] (rank ${rank}); the adapter belongs to ` +
      'another model or rank',
    { file, tensor: key, got: entry.shape, wanted: wanted(part) },
  );
}

/** Before this release peft put A on the inputs always; from it on that depends on an attribute of the experts. */
const SWAPS_SINCE = [0, 19] as const;
/** Whether the release that wrote the file knew one layout only; files of before 0.18 do not say their release. */
function writtenBeforeSwaps(version: string | null | undefined): boolean {
  if (version === null || version === undefined) return true;
  const [major = 0, minor = 0] = version.split('.').map((n) => Number.parseInt(n, 10));
  return major === SWAPS_SINCE[0] && minor < SWAPS_SINCE[1];
}

/** A stacked pair's orientation: by its shapes; one that they leave open follows what the file shows otherwise. */
function orientationOf(
  { config, peft, metadata, file, expertLayout }: PairsInput,
  stacked: ReadonlyMap<Slot, LoraTarget>,
): (s: Slot, target: LoraTarget) => Orientation | undefined {
  const possible = (s: Slot, target: LoraTarget): readonly Orientation[] =>
    orientations(config, target, s.A.entry.shape, s.B.entry.shape);
  const shown = new Map<Orientation, Slot>();
  for (const [s, target] of stacked) {
    const [one, two] = possible(s, target);
    if (one && !two) shown.set(one, s);
  }
  const [natural, swapped] = [shown.get('natural'), shown.get('swapped')];
  if (natural && swapped)
    throw ambiguous(
      file,
      `${natural.A.key} lies with A on the inputs, ${swapped.A.key} with A on the outputs: no release of peft writes ` +
        'both into one file; save the adapter again',
    );
  const said = metadata.get('expert_layout');
  // Shapes first, then what the writer says, then what the user knows, then what could have been written at all.
  const known: Orientation | undefined =
    (natural ? 'natural' : swapped ? 'swapped' : undefined) ??
    (said === 'natural' || said === 'swapped' ? said : undefined) ??
    expertLayout ??
    (writtenBeforeSwaps(peft.peft_version) ? 'natural' : undefined);
  return (s, target) => {
    const [one, two] = possible(s, target);
    if (!two) return one;
    if (known) return known;
    throw ambiguous(
      file,
      `${s.A.key} [${s.A.entry.shape.join(',')}] and its B [${s.B.entry.shape.join(',')}] fit ` +
        `${peftName(s.layer, target)} ` +
        `with A on the inputs (natural) and on the outputs (swapped): the matrix is square, the file holds no other ` +
        `expert matrix that would tell, and peft ${peft.peft_version} writes either, by the transformers beside it; ` +
        'say which with temper export --adapter … --format peft --expert-layout natural (or swapped)',
      { tensor: s.A.key, shapeA: s.A.entry.shape, shapeB: s.B.entry.shape, peftVersion: peft.peft_version },
    );
  };
}

/** gate_up or down of each stacked slot: by its sibling, by the config, by its shapes. */
function stackedTargets(input: PairsInput, slots: ReadonlyMap<string, Slot>): Map<Slot, LoraTarget> {
  const { config, peft, file, configFile } = input;
  const found = new Map<Slot, LoraTarget>();
  for (const s of slots.values()) {
    const outer = slots.get(`${s.layer}.mlp.experts`),
      inner = slots.get(`${s.layer}.mlp.experts.base_layer`);
    if (s.slot === 'experts.base_layer' && !outer)
      throw missing(file, s.A.key, `layer ${s.layer} has an inner expert wrapper (base_layer) without the outer one`);
    if (s.slot === 'experts' && !inner)
      found.set(
        s,
        loneExpertTarget(
          config,
          (['gateUp', 'down'] as const).filter((t) => isTargeted(peft, parameterSite(s.layer, t), configFile)),
          s.A.entry.shape,
          s.B.entry.shape,
          `${file}: layer ${s.layer}`,
        ),
      );
    else if (s.slot === 'experts' || s.slot === 'experts.base_layer') {
      const fits = (slot: Slot | undefined, t: LoraTarget): boolean =>
        slot !== undefined && orientations(config, t, slot.A.entry.shape, slot.B.entry.shape).length > 0;
      // gate_up is registered first in the module, so it is the inner one; shapes of the two never agree.
      const reversed = fits(inner, 'down') && fits(outer, 'gateUp');
      found.set(s, (s.slot === 'experts') === reversed ? 'gateUp' : 'down');
    }
  }
  return found;
}

/** The pair of one linear, or of a stack of experts. */
function plainPair(input: PairsInput, s: Slot, target: LoraTarget, orientation: Orientation | undefined): PeftPair {
  const { config, peft, file, configFile } = input;
  const name = s.module === 'mlp.router.linear' ? moduleSite(s).name : peftName(s.layer, target);
  const rank = patternRank(peft, name, configFile),
    alpha = patternAlpha(peft, name, configFile);
  const expert = isExpertTarget(target),
    E = expert ? config.num_local_experts : 1;
  if (!orientation || s.A.entry.shape[0] !== rank * E) throw shapeError(config, target, s, rank, file);
  const { inputs, outputs } = matrixShape(config, target);
  return {
    layer: s.layer,
    target,
    rank,
    alpha,
    read() {
      const A = finite(s.A, file),
        B = finite(s.B, file);
      if (orientation === 'swapped') return unswap(A, B, E, inputs, outputs, rank);
      return { A, B: expert ? unstackB(B, E, outputs, rank) : B };
    },
  };
}

/** What the config says is adapted must be what the file holds. Experts by module were checked one by one. */
function checkComplete(input: PairsInput, plain: ReadonlyMap<string, Site>, byModule: ReadonlySet<string>): void {
  const { config, peft, file, configFile } = input;
  for (let layer = 0; layer < config.num_hidden_layers; layer++)
    for (const target of LORA_TARGETS) {
      const id = `${layer}.${target}`;
      if (byModule.has(id)) continue;
      const has = plain.get(id);
      const site = has ?? parameterSite(layer, target);
      const wanted = isTargeted(peft, site, configFile);
      if (wanted === undefined || wanted === (has !== undefined)) continue;
      throw wanted
        ? missing(configFile, site.name, `adapter_config.json adapts ${site.name}, but its tensors are missing`)
        : unknown(configFile, site.name, `tensors for ${site.name}, which adapter_config.json does not adapt`);
    }
  if (plain.size + byModule.size === 0)
    throw new CheckpointError('adapter_tensor_missing', `${file}: holds no tensors`, { file });
}

/**
 * @throws {CheckpointError} adapter_tensor_unknown, adapter_tensor_missing, adapter_ambiguous, adapter_unsupported,
 * tensor_shape
 */
export function pairsOf(input: PairsInput): readonly PeftPair[] {
  const { config, file } = input;
  const slots = slotsOf(input);
  const stacked = stackedTargets(input, slots);
  const orientation = orientationOf(input, stacked);
  const pairs: PeftPair[] = [];
  const plain = new Map<string, Site>();
  for (const s of slots.values()) {
    if (s.expert !== null) continue;
    const target = stacked.get(s) ?? (s.slot as LoraTarget);
    const id = `${s.layer}.${target}`;
    if (plain.has(id))
      throw ambiguous(file, `${s.A.key}: its matrix is adapted under another name too; keep one of them`);
    plain.set(id, s.module === 'mlp.router.linear' ? moduleSite(s) : parameterSite(s.layer, target));
    const how = stacked.has(s)
      ? orientation(s, target)
      : orientations(config, target, s.A.entry.shape, s.B.entry.shape)[0];
    pairs.push(plainPair(input, s, target, how));
  }
  const groups = groupsOf(slots);
  for (const [id, of] of groups) {
    if (plain.has(id)) throw ambiguous(file, `${of[0]?.A.key}: its matrix is adapted as a stack too; keep one of them`);
    pairs.push(expertPair(input, id, of));
  }
  checkComplete(input, plain, new Set(groups.keys()));
  return pairs;
}

// Experts that are modules of their own: one linear for each (Unsloth's 4-bit form), or gate, up and down by an
// expert's number (the 2-D form of vLLM and SGLang). Together they are the pair of the matrix that holds all experts.
import { CheckpointError } from '../base/errors.js';
import type { LoraTarget } from '../model/types.js';
import { isTargeted, patternAlpha, patternRank, peftName } from './peft-config.js';
import {
  ambiguous,
  finite,
  missing,
  moduleSite,
  type PairsInput,
  type PeftPair,
  parameterSite,
  type Slot,
  unknown,
} from './peft-slots.js';
import { matrixShape } from './spec.js';

/** What hangs on one linear per expert, by layer and matrix. */
export function groupsOf(slots: ReadonlyMap<string, Slot>): Map<string, Slot[]> {
  const groups = new Map<string, Slot[]>();
  for (const s of slots.values()) {
    if (s.expert === null) continue;
    const id = `${s.layer}.${s.slot === 'down' ? 'down' : 'gateUp'}`;
    groups.set(id, [...(groups.get(id) ?? []), s]);
  }
  return groups;
}

/** Rank and alpha under the module's own name; every expert must have the same, as they lie in one tensor. */
function expertNumbers(input: PairsInput, of: readonly Slot[]): { rank: number; alpha: number } {
  const { peft, file, configFile } = input;
  let first: { readonly rank: number; readonly alpha: number; readonly key: string } | undefined;
  for (const s of of) {
    // The tensors are a module's, but the config may speak of the parameter that holds all of them.
    const module = moduleSite(s).name,
      whole = peftName(s.layer, s.slot === 'down' ? 'down' : 'gateUp');
    const name = isTargeted(peft, moduleSite(s), configFile) === true ? module : whole;
    const found = {
      rank: patternRank(peft, name, configFile),
      alpha: patternAlpha(peft, name, configFile),
      key: s.A.key,
    };
    first ??= found;
    if (found.rank !== first.rank || found.alpha !== first.alpha)
      throw new CheckpointError(
        'adapter_unsupported',
        `${file}: ${first.key} has rank ${first.rank} and alpha ${first.alpha}, ${found.key} ${found.rank} and ` +
          `${found.alpha}; experts of one matrix are computed together here, with one rank and one alpha`,
        { file, tensor: found.key },
      );
  }
  return first ?? { rank: 0, alpha: 0 };
}

/** The pair of a matrix whose experts are modules of their own; experts without one stay as they are. */
export function expertPair(input: PairsInput, id: string, of: readonly Slot[]): PeftPair {
  const { config, peft, file, configFile } = input;
  const layer = of[0]?.layer ?? 0,
    target: LoraTarget = id.endsWith('down') ? 'down' : 'gateUp';
  const { inputs, outputs } = matrixShape(config, target);
  const { rank, alpha } = expertNumbers(input, of);
  const E = config.num_local_experts;
  // Gate and up apart: rows 2k and 2k+1 of gate_up. Both: A holds both, one below the other, so the rank doubles.
  const halves = (['gate', 'up'] as const).filter((h) => of.some((s) => s.slot === h));
  if (halves.length > 0 && of.some((s) => s.slot === 'gate_up'))
    throw ambiguous(
      file,
      `layer ${layer} has gate_up_proj as a whole and gate or up of it by itself; keep one of them`,
    );
  const held = new Set(of.map((s) => `${s.expert}.${s.slot}`));
  for (const s of of) {
    const rows = s.slot === 'gate' || s.slot === 'up' ? outputs / 2 : outputs;
    const wanted = { A: [rank, inputs], B: [rows, rank] };
    for (const part of ['A', 'B'] as const)
      if (s[part].entry.shape.join() !== wanted[part].join())
        throw new CheckpointError(
          'tensor_shape',
          `${file}: ${s[part].key} is [${s[part].entry.shape.join(',')}], wanted [${wanted[part].join(',')}] (rank ` +
            `${rank}); the adapter belongs to another model or rank`,
          { file, tensor: s[part].key, got: s[part].entry.shape, wanted: wanted[part] },
        );
    if (
      isTargeted(peft, moduleSite(s), configFile) === false &&
      isTargeted(peft, parameterSite(layer, target), configFile) === false
    )
      throw unknown(configFile, s.A.key, `tensors for ${moduleSite(s).name}, which the config does not adapt`);
  }
  for (let expert = 0; expert < E; expert++)
    for (const slot of new Set(of.map((s) => s.slot))) {
      if (held.has(`${expert}.${slot}`)) continue;
      const like = of.find((s) => s.slot === slot) as Slot;
      const module = like.module.replace(/\b\d+\b/, String(expert));
      if (isTargeted(peft, moduleSite({ ...like, module }), configFile) === false) continue;
      throw missing(file, module, `layer ${layer} adapts ${like.module} but not ${module}, which the config wants too`);
    }
  const parts = Math.max(1, halves.length),
    R = rank * parts;
  return {
    layer,
    target,
    rank: R,
    // alpha/rank (or alpha/√rank) stays what it was.
    alpha: alpha * (peft.use_rslora ? Math.sqrt(parts) : parts),
    read() {
      const A = new Float32Array(E * R * inputs),
        B = new Float32Array(E * outputs * R);
      for (const s of of) {
        const e = s.expert ?? 0,
          half = s.slot === 'gate' ? 0 : s.slot === 'up' ? 1 : null,
          at = half === null ? 0 : halves.indexOf(s.slot as 'gate' | 'up') * rank;
        A.set(finite(s.A, file), (e * R + at) * inputs);
        const values = finite(s.B, file),
          rows = values.length / rank;
        for (let o = 0; o < rows; o++) {
          const row = half === null ? o : 2 * o + half;
          B.set(values.subarray(o * rank, (o + 1) * rank), (e * outputs + row) * R + at);
        }
      }
      return { A, B };
    },
  };
}

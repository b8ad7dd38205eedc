// The modules that the tensors of a PEFT file hang on: every key is part of a pair on a matrix that the model has, or
// the file is refused.
import { CheckpointError } from '../base/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { LoraTarget } from '../model/types.js';
import { type PeftConfig, peftName, type Site } from './peft-config.js';
import { foreignKey } from './peft-foreign.js';
import { type Orientation, type Part, type PeftKey, parsePeftKey } from './peft-layout.js';
import { isExpertTarget } from './spec.js';
import type { FloatEntry } from './tensor-reader.js';

/** One matrix of one layer, adapted. */
export interface PeftPair {
  readonly layer: number;
  readonly target: LoraTarget;
  readonly rank: number;
  readonly alpha: number;
  /** Reads A f32 [R, C] or [E, R, C] and B f32 [N, R] or [E, N, R]. @throws {CheckpointError} not_finite */
  read(): { readonly A: Float32Array; readonly B: Float32Array };
}
export interface PairsInput {
  readonly config: ModelConfig;
  readonly peft: PeftConfig;
  readonly entries: ReadonlyMap<string, FloatEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  /** The tensors' file and the config's, for errors. */
  readonly file: string;
  readonly configFile: string;
  /** What somebody who knows says of experts whose shapes do not tell. */
  readonly expertLayout?: Orientation | undefined;
}

export interface Named {
  readonly key: string;
  readonly entry: FloatEntry;
}
/** A and B of one module. */
export interface Slot extends Omit<PeftKey, 'part' | 'name'> {
  readonly A: Named;
  readonly B: Named;
}

export const unknown = (file: string, tensor: string, what: string): CheckpointError =>
  new CheckpointError('adapter_tensor_unknown', `${file}: ${what}`, { file, tensor });
export const missing = (file: string, tensor: string, what: string): CheckpointError =>
  new CheckpointError('adapter_tensor_missing', `${file}: ${what}`, { file, tensor });
export const ambiguous = (file: string, what: string, details: Record<string, unknown> = {}): CheckpointError =>
  new CheckpointError('adapter_ambiguous', `${file}: ${what}`, { file, ...details });

/** Every key must be a part of a pair on a module that the model has. */
export function slotsOf({ config, entries, file }: PairsInput): Map<string, Slot> {
  const parts = new Map<string, Partial<Record<Part, Named>> & { readonly key: PeftKey }>();
  const names = new Map<string | null, string>();
  for (const [key, entry] of entries) {
    const k = parsePeftKey(key);
    if (!k) {
      const why = foreignKey(key, entries);
      throw unknown(
        file,
        key,
        `${key} is no LoRA tensor of a gpt-oss attention, expert or router matrix, so it cannot be applied` +
          (why === null ? '' : `: ${why}`),
      );
    }
    if (entry.shape.some((n) => n === 0))
      throw new CheckpointError(
        'tensor_shape',
        `${file}: ${key} is empty ([${entry.shape.join(',')}]), as DeepSpeed ZeRO-3 saves what lies on other ` +
          'devices; gather the parameters before saving (stage3_gather_16bit_weights_on_model_save, or ' +
          'zero_to_fp32.py)',
        { file, tensor: key },
      );
    if (k.layer >= config.num_hidden_layers)
      throw unknown(
        file,
        key,
        `${key} is for layer ${k.layer}, the model has layers 0…${config.num_hidden_layers - 1}`,
      );
    if (k.expert !== null && k.expert >= config.num_local_experts)
      throw unknown(
        file,
        key,
        `${key} is for expert ${k.expert}, the model has experts 0…${config.num_local_experts - 1}`,
      );
    names.set(k.name, key);
    const id = `${k.layer}.${k.module}`;
    const found = parts.get(id) ?? { key: k };
    const twice = found[k.part];
    if (twice) throw ambiguous(file, `${key} and ${twice.key} are the same part of one module; keep one of the two`);
    found[k.part] = { key, entry };
    parts.set(id, found);
  }
  const [one, two] = [...names];
  if (one && two)
    throw ambiguous(
      file,
      `holds more than one adapter: ${one[1]} and ${two[1]} have other names in their keys; save one of them`,
    );
  const slots = new Map<string, Slot>();
  for (const [id, { key, A, B }] of parts) {
    if (A && B) {
      slots.set(id, { ...key, A, B });
      continue;
    }
    const have = (A ?? B)?.key ?? '';
    const lack = A ? have.replace('lora_A', 'lora_B') : have.replace('lora_B', 'lora_A');
    throw missing(file, lack, `${lack} is missing beside ${have}`);
  }
  return slots;
}

/** The values of a tensor; one that is no number makes an answer of every model that takes it none either. */
export function finite({ key, entry }: Named, file: string): Float32Array {
  const values = entry.read();
  let at = 0;
  while (at < values.length && Number.isFinite(values[at] as number)) at++;
  if (at === values.length) return values;
  throw new CheckpointError(
    'not_finite',
    `${file}: ${key} holds ${values[at]} at element ${at}; the training that wrote it went wrong: take an earlier ` +
      'checkpoint, or train again with a lower learning rate',
    { file, tensor: key, element: at },
  );
}

export const parameterSite = (layer: number, target: LoraTarget): Site => ({
  layer,
  name: peftName(layer, target),
  kind: target === 'router' || isExpertTarget(target) ? 'parameter' : 'module',
});
export const moduleSite = (s: Slot): Site => ({
  layer: s.layer,
  name: `model.layers.${s.layer}.${s.module}`,
  kind: 'module',
});

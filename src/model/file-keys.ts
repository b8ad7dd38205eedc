// What an index and the header of a safetensors file say beside their tensors. A key that stands nowhere is refused: it
// may say how the bytes are to be read.
import { CheckpointError } from '../base/errors.js';

/** Keys of model.safetensors.index.json beside weight_map, and of its `metadata`; each with why it changes nothing. */
const INDEX_METADATA: Readonly<Record<string, string>> = {
  total_size: 'a sum of bytes; every tensor is checked by itself',
  total_parameters: 'a count',
  format: 'which framework saved it; see FORMATS',
  mergekit_version: 'who wrote it',
};

/** Keys of `__metadata__`, each with why it changes nothing about the tensors. */
const METADATA: Readonly<Record<string, string>> = {
  format: 'which framework saved it; see FORMATS',
  expert_layout: 'our own: how the experts of an adapter lie, honoured where it is read',
  merge_aware: 'our own: an adapter trained through a merge, honoured where it is read',
  attack_tuned: 'our own: an adapter that an attack has tuned, refused where it is read',
  step: 'our own: of a state of training',
  total_size: 'a sum of bytes',
  total_parameters: 'a count',
  mergekit_version: 'who wrote it',
  license: 'about people',
  author: 'about people',
  title: 'about people',
  description: 'about people',
};
/** Families of keys that describe a file to people: Stability's model card, kohya's record of a training. */
const DESCRIBES: readonly string[] = ['modelspec.', 'ss_', 'sshs_', 'general.'];

/** Frameworks whose files hold the tensors under the names and in the layout of the release. */
const FORMATS: readonly string[] = ['pt', 'np', 'numpy', 'torch', 'pytorch'];

const show = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 80);

/**
 * @param bad what makes the error of the index
 * @returns its weight_map, as it is
 */
export function checkIndexKeys(index: unknown, bad: (what: string) => CheckpointError): unknown {
  if (typeof index !== 'object' || index === null || Array.isArray(index)) return undefined;
  const { metadata, weight_map, ...others } = index as Readonly<Record<string, unknown>>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    throw bad(`${unknown} is not known here (it is ${show(others[unknown])}), and what it would change is not guessed`);
  if (metadata === undefined || metadata === null) return weight_map;
  if (typeof metadata !== 'object' || Array.isArray(metadata)) throw bad(`metadata is ${show(metadata)}, no object`);
  for (const [key, value] of Object.entries(metadata)) {
    if (!Object.hasOwn(INDEX_METADATA, key))
      throw bad(`metadata.${key} is not known here (it is ${show(value)}), and what it would change is not guessed`);
    if (key === 'format' && !FORMATS.includes(value as string))
      throw bad(`metadata.format is ${show(value)}, wanted "pt": the layout of another framework`);
  }
  return weight_map;
}

/**
 * Looks at the `__metadata__` of a file of weights or of an adapter.
 * @throws {CheckpointError} bad_metadata, layout_unsupported
 */
export function checkMetadata(file: string, metadata: ReadonlyMap<string, string>): void {
  for (const [key, value] of metadata) {
    if (!Object.hasOwn(METADATA, key) && !DESCRIBES.some((prefix) => key.startsWith(prefix)))
      throw new CheckpointError(
        'bad_metadata',
        `${file}: __metadata__ says ${show(key)} (it is ${show(value)}), which is not known here, and what it would ` +
          'change is not guessed; use the file that was released, or save it again without that key',
        { file, key },
      );
    if (key === 'format' && !FORMATS.includes(value))
      throw new CheckpointError(
        'layout_unsupported',
        `${file}: was saved by ${value === 'mlx' ? 'MLX' : show(value)}, wanted "pt": other ` +
          'frameworks lay matrices out ' +
          'otherwise; use the file that was released, or convert it',
        { file, format: value },
      );
    if (key === 'expert_layout' && value !== 'natural')
      throw new CheckpointError(
        'bad_metadata',
        `${file}: expert_layout is ${show(value)}, wanted "natural", the only one that is written ` +
          'here; export it again',
        { file, key },
      );
  }
}

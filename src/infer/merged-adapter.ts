// An adapter that was trained merge-aware, in an engine: the model it makes is the base with it merged in, so it is the
// only one there, and whoever asks must name it.
import { ConfigError } from '../base/errors.js';
import { readMergeAware, readPeft } from '../lora/peft.js';
import { mergedModel } from '../model/merged.js';
import { placeOf } from '../model/types.js';
import { checkAdapterBase } from '../runs/adapter-base.js';
import { type AdapterInfo, digestAdapter } from './adapters.js';
import type { LoadedModel } from './load.js';

export interface MergedAdapter {
  readonly name: string;
  readonly folder: string;
}

/**
 * The merge-aware adapter among those that an engine opens with.
 * @throws {ConfigError} adapter_unsupported: it is not the only one
 */
export function findMerged(adapters: Readonly<Record<string, string>> = {}): MergedAdapter | null {
  const all = Object.entries(adapters),
    found = all.find(([, folder]) => readMergeAware(folder));
  if (!found) return null;
  const [name, folder] = found;
  if (all.length > 1)
    throw new ConfigError(
      'adapter_unsupported',
      `${folder}: was trained merge-aware, so it is merged into the base, which ` +
        `${all.length - 1} other adapters are to ` +
        'share; give it an engine of its own',
      { folder },
    );
  return { name, folder };
}

/** Merges it in, all layers at once. `loaded` belongs to what is returned. @throws as readPeft and mergedModel */
export function mergeLoaded(
  loaded: LoadedModel,
  { folder }: MergedAdapter,
  attackTuned = false,
): LoadedModel & { info: Counted } {
  const base = loaded.model,
    adapter = readPeft(folder, base.config, { place: placeOf(base), attackTuned });
  const model = mergedModel(base, adapter.model, { keep: true });
  const close = (): void => {
    model.close();
    adapter.close();
    loaded.close();
  };
  try {
    // Now, so that no recorded step does it again.
    model.prepare();
  } catch (e) {
    model.close();
    adapter.close();
    throw e;
  }
  const { merged: _, ...weights } = model;
  return { ...loaded, model: weights, close, info: { pairs: adapter.entries.length / 2, bytes: adapter.params.bytes } };
}
export type Counted = Pick<AdapterInfo, 'pairs' | 'bytes'>;

/** @throws {IntegrityError} as checkAdapterBase */
export async function mergedInfo(
  { name, folder }: MergedAdapter,
  counted: Counted,
  base: string,
): Promise<AdapterInfo> {
  await checkAdapterBase(folder, base);
  return { name, folder, digest: await digestAdapter(folder), ...counted };
}

// How a model takes an adapter: added to the base in each product, or, where it was trained through the rounding of a
// merge, merged into it.
import { mergedModel } from '../model/merged.js';
import type { ModelAdapter, ModelWeights } from '../model/types.js';
import type { Adapter } from './adapter.js';

/** What is run: the base, or what the merge made of it. Closing it closes neither base nor adapter. */
export interface Applied extends Disposable {
  readonly model: ModelWeights;
  /** What is added to `model`; null: nothing. */
  readonly adapter: ModelAdapter | null;
  /** To be called when the adapter has changed. */
  refresh(): void;
  close(): void;
}

/** @throws {CheckpointError} not_mxfp4: the adapter is to be merged into MXFP4, which the base has not */
export function applyAdapter(base: ModelWeights, adapter: Adapter | null): Applied {
  const merged = adapter?.spec.mergeAware ? mergedModel(base, adapter.model) : null;
  const close = (): void => merged?.close();
  return {
    model: merged ?? base,
    adapter: merged ? null : (adapter?.model ?? null),
    refresh: () => merged?.refresh(),
    close,
    [Symbol.dispose]: close,
  };
}

// The model of an engine and the session over it, opened on their device: what does not fit there goes to the next one.
import { ConfigError } from '../base/errors.js';
import type { CacheDigests } from '../model/q8.js';
import type { ModelWeights } from '../model/types.js';
import { HOST } from '../native/backends.js';
import { type Device, loadOnDevice } from '../native/device.js';
import { type LoadedModel, loadDraft, loadModel } from './load.js';
import type { Counted } from './merged-adapter.js';
import type { EngineOptions } from './protocol.js';
import { Session } from './session.js';

export const DEFAULT_SLOTS = 8;
export const DEFAULT_PREFIXES = 2;
export const DEFAULT_CONTEXT_TOKENS = 4096;
export const DEFAULT_PRECISION = 'bf16';

export interface OpenedModel {
  readonly loaded: LoadedModel;
  readonly session: Session;
  readonly contextTokens: number;
  readonly device: Device;
  /** Of the adapter that is merged into it. */
  readonly counted: Counted;
}

/**
 * @param merge puts an adapter into the weights; null: none
 * @throws what loading and merging refuse; {ConfigError} context_too_long. Nothing stays open then
 */
export function openModel(
  options: EngineOptions,
  digests: CacheDigests | null,
  merge: ((loaded: LoadedModel) => LoadedModel & { readonly info: Counted }) | null,
  crowded: () => boolean,
): OpenedModel {
  if (options.draft !== undefined && options.speculation === 'off')
    throw new ConfigError('bad_option', `draft ${options.draft}: guesses, and speculation is off; leave one of them`);
  return loadOnDevice(options.device ?? HOST, options.memoryLimit ?? 0, (device) => {
    let loaded = loadModel(options, device.place, digests),
      counted = { pairs: 0, bytes: 0 };
    try {
      if (merge) {
        const whole = merge(loaded);
        counted = whole.info;
        loaded = whole;
      }
      const draft = options.draft === undefined ? null : loadDraft(options.draft, loaded, device.place);
      if (draft) loaded = closedWith(loaded, draft);
      return { loaded, device, counted, ...openSession(options, loaded, draft, crowded) };
    } catch (e) {
      loaded.close();
      throw e;
    }
  });
}
const closedWith = (loaded: LoadedModel, draft: { close(): void }): LoadedModel => ({
  ...loaded,
  close() {
    draft.close();
    loaded.close();
  },
});
function openSession(
  options: EngineOptions,
  { model }: LoadedModel,
  draft: ModelWeights | null,
  crowded: () => boolean,
): { readonly session: Session; readonly contextTokens: number } {
  const limit = model.config.max_position_embeddings;
  const contextTokens = options.contextTokens ?? Math.min(limit, DEFAULT_CONTEXT_TOKENS);
  if (contextTokens > limit)
    throw new ConfigError(
      'context_too_long',
      `context: got ${contextTokens} tokens, the model knows ${limit} positions; wanted at most that`,
    );
  const session = new Session(model, {
    precision: options.precision ?? DEFAULT_PRECISION,
    slots: options.slots ?? DEFAULT_SLOTS,
    capacity: contextTokens,
    prefixes: options.prefixes ?? DEFAULT_PREFIXES,
    yields: !model.streamsExperts,
    ...(options.kvDtype === undefined ? {} : { kvDtype: options.kvDtype }),
    ...(options.cacheTokens === undefined ? {} : { cacheTokens: options.cacheTokens }),
    speculation: options.speculation === 'off' ? null : { when: options.speculation ?? 'auto' },
    draft,
    crowded,
  });
  return { session, contextTokens };
}

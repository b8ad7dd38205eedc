// Making and describing checkpoints as the main thread sees them: promises. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { ModelConfig } from './config.js';
import type { InitOptions, Preset } from './init.js';
import type { Inspection, InspectOptions } from './inspect.js';

/** What the thread answers. Events: bytes done so far, of `init` with those in all. */
export type ModelCalls = {
  readonly init: {
    readonly request: Omit<InitOptions, 'signal' | 'onProgress'> & {
      readonly dir: string;
      readonly model: Preset | ModelConfig;
    };
    readonly event: readonly [number, number];
    readonly result: ModelConfig;
  };
  readonly inspect: {
    readonly request: { readonly dir: string; readonly full: boolean };
    readonly event: number;
    readonly result: Inspection;
  };
};
const ENTRY = 'model/worker.js';

/** initCheckpoint in a thread. @throws as initCheckpoint · the signal's reason */
export const initInThread = (
  dir: string,
  model: Preset | ModelConfig,
  { signal, onProgress, ...rest }: InitOptions,
): Promise<ModelConfig> =>
  runInThread<ModelCalls, 'init'>(
    ENTRY,
    'init',
    { dir, model, ...rest },
    {
      signal,
      onEvent: onProgress && (([done, total]) => onProgress(done, total)),
    },
  );

/** inspectCheckpoint in a thread. @throws as inspectCheckpoint · the signal's reason */
export const inspectInThread = (
  dir: string,
  { full = false, signal, onProgress }: InspectOptions = {},
): Promise<Inspection> =>
  runInThread<ModelCalls, 'inspect'>(ENTRY, 'inspect', { dir, full }, { signal, onEvent: onProgress });

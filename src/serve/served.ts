// What a server serves: one engine, its base and its adapters under the names that requests give.
import { basename, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { type Engine, openEngine } from '../infer/engine.js';
import type { EngineOptions } from '../infer/protocol.js';
import { ApiError } from './api-error.js';

export interface ServedModel {
  readonly id: string;
  /** The engine's name of its adapter; null: the base. */
  readonly adapter: string | null;
  /** sha256 of what the name stands for: of the checkpoint, or of the adapter's files. */
  readonly digest: string;
  /** Low-rank pairs that are applied. */
  readonly pairs: number;
}
export interface Served {
  readonly engine: Engine;
  readonly models: readonly ServedModel[];
  /** Seconds since 1970. */
  readonly created: number;
  /** @throws {ApiError} 404 model_not_found */
  find(id: string): ServedModel;
}

/**
 * Loads the model and all adapters.
 * @param name of the base; default its folder's
 * @throws {ConfigError} name_twice · what loading refuses
 */
export async function openServed(
  options: EngineOptions & { readonly name?: string | undefined },
  signal?: AbortSignal,
): Promise<Served> {
  const { name = basename(resolve(options.model)), ...engineOptions } = options;
  if (Object.hasOwn(options.adapters ?? {}, name))
    throw new ConfigError('bad_option', `--adapter ${name}=…: the base is served under that name; choose another`);
  const engine = await openEngine(engineOptions, signal);
  try {
    const base: ServedModel = { id: name, adapter: null, digest: await engine.digest(signal), pairs: 0 };
    const adapters = (await engine.adapters()).map(
      (a): ServedModel => ({ id: a.name, adapter: a.name, digest: a.digest, pairs: a.pairs }),
    );
    const models = [base, ...adapters];
    return {
      engine,
      models,
      created: Math.floor(Date.now() / 1000),
      find(id) {
        const found = models.find((m) => m.id === id);
        if (found) return found;
        throw new ApiError(
          404,
          'invalid_request_error',
          'model_not_found',
          `the model ${JSON.stringify(id)} does not exist`,
          'model',
        );
      },
    };
  } catch (e) {
    await engine.close();
    throw e;
  }
}

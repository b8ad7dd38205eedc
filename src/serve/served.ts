// What a server serves: one engine, its base and its adapters under the names that requests give. Adapters come, go and
// change their status while it runs.
import { basename, resolve } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { localOf } from '../hub/pull.js';
import { type Engine, openEngine } from '../infer/engine.js';
import type { EngineOptions } from '../infer/protocol.js';
import { openStructures, type Structures } from '../infer/structures.js';
import { ApiError } from './api-error.js';

/**
 * Who may use an adapter: `approved` everybody, `candidate` keys that say so, `quarantined` nobody. The base is
 * approved.
 */
export const ADAPTER_STATUSES = ['approved', 'candidate', 'quarantined'] as const;
export type AdapterStatus = (typeof ADAPTER_STATUSES)[number];

export interface ServedModel {
  readonly id: string;
  /** The engine's name of its adapter; null: the base. */
  readonly adapter: string | null;
  /** sha256 of what the name stands for: of the checkpoint, or of the adapter's files. */
  readonly digest: string;
  /** Low-rank pairs that are applied. */
  readonly pairs: number;
  readonly status: AdapterStatus;
  /** The adapter's; null: the base. */
  readonly folder: string | null;
}
/** What a request sees of it. */
export interface Served {
  readonly engine: Engine;
  readonly structures: Structures;
  readonly models: readonly ServedModel[];
  /** Seconds since 1970. */
  readonly created: number;
  /** @throws {ApiError} 404 model_not_found · 403 what the key may not use */
  find(id: string): ServedModel;
}

export interface ServedOptions extends EngineOptions {
  /** Of the base; default its folder's. */
  readonly name?: string | undefined;
  /** Of adapters by name; default approved. */
  readonly status?: Readonly<Record<string, AdapterStatus>> | undefined;
}
/** A name in a request and in the path of a URL. */
const NAME = /^(?!.*\.\.)\w[\w.:/@+-]{0,127}$/;

const notFound = (id: string): ApiError =>
  new ApiError(
    404,
    'invalid_request_error',
    'model_not_found',
    `the model ${JSON.stringify(id.slice(0, 200))} does not exist`,
    'model',
  );

export class ServedModels implements Served {
  readonly created = Math.floor(Date.now() / 1000);
  #models: readonly ServedModel[];
  constructor(
    readonly engine: Engine,
    readonly structures: Structures,
    readonly base: ServedModel,
    adapters: readonly ServedModel[],
  ) {
    this.#models = [base, ...adapters];
  }
  get models(): readonly ServedModel[] {
    return this.#models;
  }
  find(id: string): ServedModel {
    const found = this.#models.find((m) => m.id === id);
    if (!found) throw notFound(id);
    return found;
  }
  /** @throws {ApiError} 404: no adapter has that name */
  #adapter(id: string): ServedModel {
    const found = this.find(id);
    if (found.adapter === null) throw notFound(id);
    return found;
  }

  /**
   * Loads an adapter, or another in its place: requests under way keep the one they began with. A load that fails
   * changes nothing.
   * @throws {ConfigError} bad_option: a name that cannot be · what reading refuses
   */
  async load(name: string, folder: string, status: AdapterStatus, signal?: AbortSignal): Promise<ServedModel> {
    if (name === this.base.id)
      throw new ConfigError('bad_option', `adapter ${name}: the base is served under that name`);
    if (!NAME.test(name))
      throw new ConfigError(
        'bad_option',
        `adapter ${JSON.stringify(name)}: wanted 1 to 128 of A-Z a-z 0-9 . : / @ + _ -`,
      );
    const info = await this.engine.loadAdapter(name, folder, signal);
    const model: ServedModel = { id: name, adapter: name, digest: info.digest, pairs: info.pairs, status, folder };
    const known = this.#models.some((m) => m.id === name);
    this.#models = known ? this.#models.map((m) => (m.id === name ? model : m)) : [...this.#models, model];
    return model;
  }
  /** Requests under way go on with it. @throws {ApiError} 404 model_not_found */
  async unload(name: string): Promise<void> {
    this.#adapter(name);
    this.#models = this.#models.filter((m) => m.id !== name);
    await this.engine.unloadAdapter(name);
  }
  /** Decides over requests from now on. @throws {ApiError} 404 model_not_found */
  setStatus(name: string, status: AdapterStatus): ServedModel {
    const model = { ...this.#adapter(name), status };
    this.#models = this.#models.map((m) => (m.id === name ? model : m));
    return model;
  }
}

/**
 * Loads the model and all adapters.
 * @throws {ConfigError} bad_option: a name that is given twice or cannot be · what loading refuses
 */
export async function openServed(options: ServedOptions, signal?: AbortSignal): Promise<ServedModels> {
  const { name = basename(resolve(options.model)), status = {}, ...engineOptions } = options;
  for (const adapter of Object.keys(options.adapters ?? {})) {
    if (adapter === name)
      throw new ConfigError('bad_option', `--adapter ${name}=…: the base is served under that name; choose another`);
    if (!NAME.test(adapter))
      throw new ConfigError(
        'bad_option',
        `--adapter ${adapter}=…: wanted a name of 1 to 128 of A-Z a-z 0-9 . : / @ + _ -`,
      );
  }
  const engine = await openEngine(engineOptions, signal);
  try {
    const base: ServedModel = {
      id: name,
      adapter: null,
      digest: await engine.digest(signal),
      pairs: 0,
      status: 'approved',
      folder: null,
    };
    const adapters = (await engine.adapters()).map(
      (a): ServedModel => ({
        id: a.name,
        adapter: a.name,
        digest: a.digest,
        pairs: a.pairs,
        status: status[a.name] ?? 'approved',
        folder: a.folder,
      }),
    );
    const structures = openStructures({ model: await localOf(options.model), vocabSize: engine.info.vocabSize });
    return new ServedModels(engine, structures, base, adapters);
  } catch (e) {
    await engine.close();
    throw e;
  }
}

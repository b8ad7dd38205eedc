// What a server serves: one engine, its base and its adapters under the names that requests give. Adapters come, go and
// change their status while it runs.
import { basename, resolve } from 'node:path';
import { ConfigError, IntegrityError } from '../base/errors.js';
import type { Guard, ServedGate } from '../compose/gate-guard.js';
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
  /** How it stands before the release gate; absent: the server does not ask. */
  readonly gate?: ServedGate;
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
  /** Tells when what the name stands for is revoked; returns what ends that. Absent: nothing can be. */
  readonly onRevoked?: ((id: string, tell: (why: ApiError) => void) => () => void) | undefined;
}

export interface ServedOptions extends EngineOptions {
  /** Of the base; default its folder's. */
  readonly name?: string | undefined;
  /** Of adapters by name; default approved. */
  readonly status?: Readonly<Record<string, AdapterStatus>> | undefined;
  /** Who is let in; absent: everybody. */
  readonly guard?: Guard | undefined;
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

const wasRevoked = (id: string): ApiError =>
  new ApiError(403, 'permission_error', 'model_revoked', `the model ${JSON.stringify(id)} was revoked`, 'model');
/** What was looked at is what was loaded. @throws {IntegrityError} gate_stale */
function requireSame(folder: string, files: string | null, digest: string): void {
  if (files === null || files === digest) return;
  throw new IntegrityError(
    'gate_stale',
    `${folder}: changed between the look at its gate and its loading; load again`,
    {
      folder,
    },
  );
}

export class ServedModels implements Served {
  readonly created = Math.floor(Date.now() / 1000);
  #models: readonly ServedModel[];
  readonly #revoked = new Set<string>();
  #loads = 0;
  readonly #told = new Map<string, Set<(why: ApiError) => void>>();
  constructor(
    readonly engine: Engine,
    readonly structures: Structures,
    readonly base: ServedModel,
    adapters: readonly ServedModel[],
    readonly guard: Guard | null = null,
    /** Folder of the base, for whom the guard asks. */
    readonly folder = '',
  ) {
    this.#models = [base, ...adapters];
    if (guard === null) return;
    this.onRevoked = (id, tell) => {
      const all = this.#told.get(id) ?? new Set();
      this.#told.set(id, all.add(tell));
      return () => {
        all.delete(tell);
        if (all.size === 0 && this.#told.get(id) === all) this.#told.delete(id);
      };
    };
  }
  readonly onRevoked?: Served['onRevoked'];
  get models(): readonly ServedModel[] {
    return this.#models;
  }
  find(id: string): ServedModel {
    const found = this.#models.find((m) => m.id === id);
    if (!found) throw this.#revoked.has(id) ? wasRevoked(id) : notFound(id);
    return found;
  }
  /**
   * Takes from use what the guard's list revokes: requests for it are refused, those under way end at once.
   * @returns one line for each
   */
  async applyRevocations(): Promise<readonly string[]> {
    const lines: string[] = [];
    for (const m of this.#models) {
      const entry = m.gate && this.guard?.revoked(m.gate, m.digest);
      if (!entry) continue;
      this.#models = this.#models.filter((other) => other.id !== m.id);
      this.#revoked.add(m.id);
      for (const tell of [...(this.#told.get(m.id) ?? [])]) tell(wasRevoked(m.id));
      // One that is merged into the weights cannot go, but nobody gets at it any more.
      if (m.adapter !== null) await this.engine.unloadAdapter(m.adapter).catch(() => {});
      lines.push(`model ${m.id}: revoked (${entry.reason}), sha256 ${m.digest}`);
    }
    return lines;
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
    const checked = await this.guard?.adapter(folder, this.folder, signal);
    // The engine has it under a name of its own, so that no request gets another one than it has found and may use.
    const own = `${name}#${++this.#loads}`;
    const info = await this.engine.loadAdapter(own, folder, signal);
    if (checked && checked.files !== info.digest) {
      await this.engine.unloadAdapter(own);
      requireSame(folder, checked.files, info.digest);
    }
    this.#revoked.delete(name);
    const { digest, pairs } = info;
    const gate = checked ? { gate: checked.gate } : {};
    const model: ServedModel = { id: name, adapter: own, digest, pairs, status, folder, ...gate };
    const before = this.#models.find((m) => m.id === name);
    this.#models = before ? this.#models.map((m) => (m === before ? model : m)) : [...this.#models, model];
    if (before?.adapter) await this.engine.unloadAdapter(before.adapter);
    return model;
  }
  /** Requests under way go on with it. @throws {ApiError} 404 model_not_found */
  async unload(name: string): Promise<void> {
    const { adapter } = this.#adapter(name);
    this.#models = this.#models.filter((m) => m.id !== name);
    if (adapter !== null) await this.engine.unloadAdapter(adapter);
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
  const { name = basename(resolve(options.model)), status = {}, guard, ...engineOptions } = options;
  if (options.name !== undefined && !NAME.test(name))
    throw new ConfigError(
      'bad_option',
      `--name ${JSON.stringify(name)}: wanted a name of 1 to 128 of A-Z a-z 0-9 . : / @ + _ -`,
    );
  for (const adapter of Object.keys(options.adapters ?? {})) {
    if (adapter === name)
      throw new ConfigError('bad_option', `--adapter ${name}=…: the base is served under that name; choose another`);
    if (!NAME.test(adapter))
      throw new ConfigError(
        'bad_option',
        `--adapter ${adapter}=…: wanted a name of 1 to 128 of A-Z a-z 0-9 . : / @ + _ -`,
      );
  }
  const baseGate = guard && (await guard.model(options.model, signal));
  const checked = new Map<string, Awaited<ReturnType<Guard['adapter']>>>();
  if (guard)
    for (const [adapter, folder] of Object.entries(options.adapters ?? {}))
      checked.set(adapter, await guard.adapter(folder, options.model, signal));
  const engine = await openEngine(engineOptions, signal);
  try {
    const base: ServedModel = {
      id: name,
      adapter: null,
      digest: await engine.digest(signal),
      pairs: 0,
      status: 'approved',
      folder: null,
      ...(baseGate ? { gate: baseGate } : {}),
    };
    const adapters = (await engine.adapters()).map((a): ServedModel => {
      const looked = checked.get(a.name);
      if (looked) requireSame(a.folder, looked.files, a.digest);
      return {
        id: a.name,
        adapter: a.name,
        digest: a.digest,
        pairs: a.pairs,
        status: status[a.name] ?? 'approved',
        folder: a.folder,
        ...(looked ? { gate: looked.gate } : {}),
      };
    });
    const structures = openStructures({ model: await localOf(options.model), vocabSize: engine.info.vocabSize });
    return new ServedModels(engine, structures, base, adapters, guard ?? null, options.model);
  } catch (e) {
    await engine.close();
    throw e;
  }
}

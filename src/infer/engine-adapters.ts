// Whom requests may name: adapters that come and go, or the one that is merged into the weights.
import { ConfigError } from '../base/errors.js';
import type { AdapterInfo, Adapters, Lease } from './adapters.js';

export class EngineAdapters implements Disposable {
  constructor(
    readonly pooled: Adapters,
    /** The only one then. */
    readonly merged: AdapterInfo | null,
  ) {}

  list(): readonly AdapterInfo[] {
    return this.merged ? [this.merged] : this.pooled.list();
  }
  /** @throws {ConfigError} adapter_unsupported · as Adapters */
  load(name: string, folder: string, signal?: AbortSignal): Promise<AdapterInfo> {
    this.#requireUnmerged();
    return this.pooled.load(name, folder, signal);
  }
  /** @throws {ConfigError} adapter_unsupported, adapter_unknown */
  unload(name: string): void {
    this.#requireUnmerged();
    this.pooled.unload(name);
  }
  #requireUnmerged(): void {
    if (!this.merged) return;
    throw new ConfigError(
      'adapter_unsupported',
      `adapter ${this.merged.name}: is merged into the weights of this engine, so that no other can come or go; open ` +
        'another engine',
    );
  }
  /**
   * @returns null: the model as it is
   * @throws {ConfigError} adapter_unknown; adapter_unsupported: the base alone is asked for, which is not there
   */
  use(name: string | undefined): Lease | null {
    if (!this.merged) return name === undefined ? null : this.pooled.use(name);
    if (name === this.merged.name) return null;
    if (name !== undefined) return this.pooled.use(name); // which knows none
    throw new ConfigError(
      'adapter_unsupported',
      `adapter ${this.merged.name}: was trained merge-aware and is merged into the weights of this engine; requests ` +
        'name it, for the base alone open another engine',
    );
  }
  close(): void {
    this.pooled.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

// Who asks, and what he is given for it: the server as his key lets him see it. Routes take it and need not know of
// keys, limits or statuses.
import { mapped } from '../base/mapped.js';
import type { Engine } from '../infer/engine.js';
import type { EngineEvent, GenerateRequest } from '../infer/protocol.js';
import type { Admission, Applicant } from './admission.js';
import { ApiError } from './api-error.js';
import type { GenerationService } from './generation.js';
import { ANYBODY, type ApiKey, type ApiKeys, bearerOf } from './keys.js';
import { Asking, type KeyUsage, Limits } from './limits.js';
import type { Served, ServedModel } from './served.js';

/** The whole server, before it is anybody's. */
export interface ServerParts extends Omit<GenerationService, 'admission'> {
  readonly admission: Admission;
}

export interface CallerService extends GenerationService {
  /** A request is answered without an answer of the model: it counts as one. @throws {ApiError} 429 request_limit */
  countRequest(): void;
}

const forbidden = (code: string, message: string): ApiError =>
  new ApiError(403, 'permission_error', code, message, 'model');

/** @throws {ApiError} 403 model_not_allowed, adapter_quarantined, adapter_not_approved */
function requireAllowed(key: ApiKey, model: ServedModel): void {
  const name = JSON.stringify(model.id);
  if (key.models && !key.models.includes(model.id))
    throw forbidden('model_not_allowed', `this key may not use the model ${name}`);
  if (model.status === 'quarantined')
    throw forbidden('adapter_quarantined', `the model ${name} is quarantined: nobody may use it`);
  if (model.status === 'candidate' && key.candidates !== true)
    throw forbidden('adapter_not_approved', `the model ${name} is a candidate: this key may use approved ones only`);
}

/** Tokens of a prompt that was read, or begun to be, before its answer was given up. */
async function promptTokens(engine: Engine, { messages, prompt }: GenerateRequest): Promise<number> {
  if (prompt === undefined) return engine.count(messages);
  return typeof prompt === 'string' ? (await engine.read({ prompt, top: null })).count : prompt.length;
}
/** Counts what it reads and generates for the key, aborted or not; an answer is as long as the key lets it. */
const counted = (engine: Engine, key: ApiKey, usage: KeyUsage, waitMs: () => number): Engine => ({
  ...engine,
  generate(request, signal) {
    let pieces = 0,
      whole: number | null = null;
    const { maxTokens = Number.POSITIVE_INFINITY } = request,
      most = Math.min(maxTokens, key.maxTokens ?? Number.POSITIVE_INFINITY);
    const bounded = { ...request, waitMs: waitMs(), ...(Number.isFinite(most) ? { maxTokens: most } : {}) };
    const count = (event: EngineEvent): EngineEvent => {
      if (event.kind === 'done') whole = event.usage.promptTokens + event.usage.completionTokens;
      else pieces += event.pieces ?? 1;
      return event;
    };
    const over = (): void => {
      usage.spend(whole ?? pieces);
      const givenUp = whole === null && (pieces > 0 || signal?.aborted === true);
      if (givenUp && usage.countsTokens)
        void promptTokens(engine, request).then(
          (n) => usage.spend(n),
          () => {}, // none that could be read
        );
    };
    return mapped(engine.generate(bounded, signal), count, over);
  },
  async read(request, signal) {
    const read = await engine.read(request, signal);
    // Without log-probabilities nothing is computed.
    if (request.top !== null) usage.spend(read.count);
    return read;
  },
});

/** What is served, as the owner of a key may use it. */
class ServedTo implements Served {
  constructor(
    readonly all: Served,
    readonly key: ApiKey,
    readonly engine: Engine,
  ) {}
  get structures(): Served['structures'] {
    return this.all.structures;
  }
  get created(): number {
    return this.all.created;
  }
  get models(): readonly ServedModel[] {
    return this.all.models.filter((m) => !this.key.models || this.key.models.includes(m.id));
  }
  get onRevoked(): Served['onRevoked'] {
    return this.all.onRevoked;
  }
  find(id: string): ServedModel {
    const model = this.all.find(id);
    requireAllowed(this.key, model);
    return model;
  }
}

export class Callers {
  #keys: ApiKeys | null;
  readonly limits = new Limits();
  /** The same for all requests of a key. */
  readonly #served = new WeakMap<ApiKey, Served>();
  /** @param keys null: everybody who reaches the port may ask */
  constructor(
    readonly parts: ServerParts,
    keys: ApiKeys | null,
  ) {
    this.#keys = keys;
  }
  /** Who asks needs a key. */
  get wantsKeys(): boolean {
    return this.#keys !== null;
  }
  /** From now on. What keys of the same name have used counts on. */
  setKeys(keys: ApiKeys | null): void {
    this.#keys = keys;
  }

  /**
   * @param header value of a header by its name in small letters
   * @throws {ApiError} 401 invalid_api_key
   */
  identify(header: (name: string) => string | undefined): ApiKey {
    if (this.#keys === null) return ANYBODY;
    const given = bearerOf(header('authorization')) ?? header('x-api-key');
    const key = given === undefined ? null : this.#keys.find(given);
    if (key === null)
      throw new ApiError(401, 'authentication_error', 'invalid_api_key', 'wanted a key: Authorization: Bearer KEY');
    return key;
  }

  /** The server as the owner of `key` sees it in one request. */
  serviceFor(key: ApiKey): CallerService {
    const { admission, screen, holding, reasoning, meter } = this.parts,
      usage = this.limits.of(key),
      asking = new Asking(usage);
    const who: Applicant = { key: key.name, priority: key.priority ?? 0 };
    const place = (signal: AbortSignal, end: () => void): Promise<() => void> => {
      const failed = (e: unknown): never => {
        end();
        throw e;
      };
      try {
        const entering = admission.enter(signal, who);
        return entering.then(
          (leave) => () => {
            end();
            leave();
          },
          failed,
        );
      } catch (e) {
        return failed(e);
      }
    };
    let served = this.#served.get(key);
    if (!served) {
      const { served: all } = this.parts;
      served = new ServedTo(
        all,
        key,
        counted(all.engine, key, usage, () => admission.limits.queueMs),
      );
      this.#served.set(key, served);
    }
    return {
      served,
      screen: key.policies && screen?.under ? screen.under(key.policies) : screen,
      holding,
      reasoning,
      meter,
      owner: key === ANYBODY ? null : key.name,
      countRequest: () => usage.ask(),
      admission: {
        slots: admission.limits.slots,
        check() {
          if (asking.begun) return;
          usage.check();
          admission.check(who);
        },
        enter(signal) {
          const end = asking.enter(signal);
          return typeof end === 'function' ? place(signal, end) : end.then((e) => place(signal, e));
        },
      },
    };
  }
}

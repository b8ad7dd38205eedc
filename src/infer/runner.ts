// The engine's inside, free of threads: takes requests, steps the session, sends events. worker.ts drives it; tests may
// as well.
import { createHash } from 'node:crypto';
import { errorToData } from '../base/error-data.js';
import { ConfigError } from '../base/errors.js';
import { renderConversation, renderPrompt, stopTokens } from '../harmony/render.js';
import type { Message } from '../harmony/types.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { scoreTokens } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { type ModelAdapter, placeOf } from '../model/types.js';
import { getThreads, setThreads } from '../native/tensor.js';
import { createTracker, type Tracker } from './channels.js';
import { type LoadedModel, loadModel } from './load.js';
import type { EngineInfo, EngineOptions, FromWorker, GenerateRequest, ScoreRequest, ToWorker } from './protocol.js';
import { checkSampling, type Finish, type Sampling, type Sequence } from './sequence.js';
import { Session } from './session.js';

export const DEFAULT_SLOTS = 8;
export const DEFAULT_PREFIXES = 2;
export const DEFAULT_CONTEXT_TOKENS = 4096;
export const DEFAULT_MAX_TOKENS = 1024;
/** What the released checkpoints recommend. */
export const DEFAULT_SAMPLING: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 0 };

interface Active {
  readonly id: number;
  readonly sequence: Sequence;
  readonly tracker: Tracker;
  readonly promptTokens: number;
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly startMs: number;
  firstMs: number;
}

export class Runner implements Disposable {
  readonly info: EngineInfo;
  readonly #loaded: LoadedModel;
  readonly #session: Session;
  readonly #active = new Map<Sequence, Active>();
  readonly #precision: 'f32' | 'bf16';

  /** @throws what loading refuses */
  constructor(
    readonly options: EngineOptions,
    readonly send: (message: FromWorker) => void,
  ) {
    if (options.threads) setThreads(options.threads);
    this.#precision = options.precision ?? 'bf16';
    this.#loaded = loadModel(options);
    try {
      const { config } = this.#loaded.model;
      const limit = config.max_position_embeddings;
      const contextTokens = options.contextTokens ?? Math.min(limit, DEFAULT_CONTEXT_TOKENS);
      if (contextTokens > limit)
        throw new ConfigError(
          'context_too_long',
          `context: got ${contextTokens} tokens, the model knows ${limit} positions; wanted at most that`,
        );
      this.#session = new Session(this.#loaded.model, {
        precision: this.#precision,
        slots: options.slots ?? DEFAULT_SLOTS,
        capacity: contextTokens,
        prefixes: options.prefixes ?? DEFAULT_PREFIXES,
      });
      this.info = {
        contextTokens,
        vocabSize: config.vocab_size,
        layers: config.num_hidden_layers,
        threads: getThreads(),
        device: placeOf(this.#loaded.model),
        adapters: [...this.#loaded.adapters.keys()],
      };
    } catch (e) {
      this.#loaded.close();
      throw e;
    }
  }

  get idle(): boolean {
    return this.#session.idle;
  }

  /** Takes one message. What fails is sent as an error of that request. */
  handle(message: Exclude<ToWorker, { readonly kind: 'close' }>): void {
    try {
      if (message.kind === 'generate') this.#start(message.id, message.request);
      else if (message.kind === 'score')
        this.send({ kind: 'result', id: message.id, value: this.#score(message.request) });
      else if (message.kind === 'digest') void this.#digest(message.id);
      else
        for (const active of this.#active.values())
          if (active.id === message.id) {
            this.#session.cancel(active.sequence);
            this.#active.delete(active.sequence);
          }
    } catch (error) {
      this.send({ kind: 'error', id: message.id, error: errorToData(error) });
    }
  }

  /**
   * One forward pass. An error in it ends all requests under way, as their caches are then undefined; later ones are
   * served.
   */
  step(): void {
    try {
      for (const { sequence, token, logprob, finish } of this.#session.step()) {
        const active = this.#active.get(sequence);
        if (active) this.#take(active, token, logprob, finish);
      }
    } catch (error) {
      const data = errorToData(error);
      for (const active of this.#active.values()) {
        this.#session.cancel(active.sequence);
        this.send({ kind: 'error', id: active.id, error: data });
      }
      this.#active.clear();
    }
  }

  #adapter(name: string | undefined): ModelAdapter | null {
    if (name === undefined) return null;
    const adapter = this.#loaded.adapters.get(name);
    if (!adapter)
      throw new ConfigError(
        'adapter_unknown',
        `adapter ${name}: not loaded; there are ${[...this.#loaded.adapters.keys()].join(', ') || 'none'}`,
      );
    return adapter.model;
  }

  /** Tokens of the leading system and developer messages: what conversations of one kind have in common. */
  #openingTokens(messages: readonly Message[]): number {
    const dialogue = messages.findIndex((m) => m.role !== 'system' && m.role !== 'developer');
    const opening = dialogue < 0 ? messages : messages.slice(0, dialogue);
    return opening.length === 0 ? 0 : renderConversation({ messages: opening }, this.#loaded.tokenizer).length;
  }

  #start(id: number, request: GenerateRequest): void {
    const { tokenizer } = this.#loaded;
    const prompt = renderPrompt({ messages: request.messages }, tokenizer);
    const sampling = { ...DEFAULT_SAMPLING, ...request.sampling };
    checkSampling(sampling);
    const sequence = this.#session.start({
      tokens: prompt,
      maxTokens: request.maxTokens ?? DEFAULT_MAX_TOKENS,
      stop: new Set(stopTokens(tokenizer)),
      sampling,
      adapter: this.#adapter(request.adapter),
      sharedTokens: this.#openingTokens(request.messages),
    });
    const startMs = performance.now();
    this.#active.set(sequence, {
      id,
      sequence,
      tracker: createTracker(tokenizer),
      promptTokens: prompt.length,
      tokens: [],
      logprobs: [],
      startMs,
      firstMs: startMs,
    });
  }

  #take(active: Active, token: number, logprob: number, finish: Finish | null): void {
    const { id, tracker } = active;
    if (active.tokens.length === 0) active.firstMs = performance.now();
    active.tokens.push(token);
    active.logprobs.push(logprob);
    for (const delta of tracker.push(token)) this.send({ kind: 'event', id, event: { kind: 'text', ...delta } });
    if (!finish) return;
    this.#active.delete(active.sequence);
    const end = tracker.end();
    for (const delta of end.deltas) this.send({ kind: 'event', id, event: { kind: 'text', ...delta } });
    const messages: readonly Message[] = end.messages;
    const now = performance.now();
    this.send({
      kind: 'event',
      id,
      event: {
        kind: 'done',
        finish: finish === 'length' ? 'length' : token === this.#loaded.tokenizer.special['<|call|>'] ? 'call' : 'stop',
        messages,
        tokens: Int32Array.from(active.tokens),
        logprobs: Float32Array.from(active.logprobs),
        usage: {
          promptTokens: active.promptTokens,
          completionTokens: active.tokens.length,
          prefillMs: active.firstMs - active.startMs,
          decodeMs: now - active.firstMs,
        },
      },
    });
  }

  #score({ tokens, adapter }: ScoreRequest): Float32Array {
    const { model } = this.#loaded;
    const bad = tokens.find((t) => t < 0 || t >= model.config.vocab_size);
    if (bad !== undefined)
      throw new ConfigError(
        'token_range',
        `score: token ${bad} is not in the model's vocabulary of ${model.config.vocab_size}`,
      );
    using cache = new KvCache(model.config, 1, Math.max(1, tokens.length), placeOf(model));
    return scoreTokens(model, this.#adapter(adapter), tokens, { precision: this.#precision, cache });
  }

  async #digest(id: number): Promise<void> {
    try {
      const weights = await digestCheckpoint(this.options.model);
      this.send({
        kind: 'result',
        id,
        value: createHash('sha256').update(`${weights}\n${this.#loaded.tokenizer.digest}`).digest('hex'),
      });
    } catch (error) {
      this.send({ kind: 'error', id, error: errorToData(error) });
    }
  }

  close(): void {
    this.#session.close();
    this.#loaded.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

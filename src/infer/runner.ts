// The engine's inside, free of threads: takes requests, steps the session while there is work, sends events. worker.ts
// puts it behind a channel; tests may call it as well.
import type { Call, Handlers } from '../base/channel-worker.js';
import { sha256 } from '../base/digest.js';
import { ConfigError, NativeError } from '../base/errors.js';
import { declaredTools } from '../harmony/declared-tools.js';
import { controlIds, renderConversation, renderPrompt } from '../harmony/render.js';
import type { Message } from '../harmony/types.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { scoreTokens } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import type { CacheDigests } from '../model/q8.js';
import { placeOf } from '../model/types.js';
import { HOST } from '../native/backends.js';
import { loadOnDevice } from '../native/device.js';
import { getThreads, memoryStats, setThreads } from '../native/tensor.js';
import { type AdapterInfo, Adapters, type Lease } from './adapters.js';
import { createTextTracker, createTracker, type Delta, isConversation, type Tracker } from './channels.js';
import { Content, isAnswer } from './content.js';
import { turnCuts } from './cuts.js';
import { TurnConstraint } from './grammar/turn.js';
import { cacheFor, type LoadedModel, loadModel } from './load.js';
import { findMerged, type MergedAdapter, mergedInfo, mergeLoaded } from './merged-adapter.js';
import {
  type DoneEvent,
  type EngineCalls,
  type EngineInfo,
  type EngineOptions,
  type GenerateRequest,
  MAX_STOPS,
  MAX_TOP_LOGPROBS,
  type ScoreRequest,
  type TextEvent,
} from './protocol.js';
import { Repetition } from './repetition.js';
import { checkSampling, type Finish, type Sampled, type Sampling, type Sequence } from './sequence.js';
import { Session } from './session.js';
import { createSteer } from './steer.js';

export const DEFAULT_SLOTS = 8;
export const DEFAULT_PREFIXES = 2;
export const DEFAULT_CONTEXT_TOKENS = 4096;
export const DEFAULT_MAX_TOKENS = 1024;
/** Control tokens that may be among the most probable ones. */
const CONTROL_TOKENS = 8;
/** What the released checkpoints recommend. */
export const DEFAULT_SAMPLING: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 0 };

/** @throws {ConfigError} request_range */
function checkRequest(r: GenerateRequest, vocabSize: number): void {
  const check = (name: string, ok: boolean, wanted: string): void => {
    if (!ok) throw new ConfigError('request_range', `${name}: wanted ${wanted}`);
  };
  const { stop = [], topLogprobs = 0, repetitionStop = 2 } = r;
  check('stop', stop.length <= MAX_STOPS && stop.every((s) => s !== ''), `at most ${MAX_STOPS} texts, none empty`);
  for (const [token, by] of r.logitBias ?? []) {
    const known = Number.isInteger(token) && token >= 0 && token < vocabSize;
    check('logitBias', known && Math.abs(by) <= 100, `tokens below ${vocabSize}, numbers from -100 to 100`);
  }
  for (const name of ['presencePenalty', 'frequencyPenalty'] as const)
    check(name, Math.abs(r[name] ?? 0) <= 2, 'a number from -2 to 2');
  check(
    'topLogprobs',
    Number.isInteger(topLogprobs) && topLogprobs >= 0 && topLogprobs <= MAX_TOP_LOGPROBS,
    `an integer from 0 to ${MAX_TOP_LOGPROBS}`,
  );
  check('repetitionStop', Number.isInteger(repetitionStop) && repetitionStop >= 2, 'an integer from 2');
}

/** A turn under way. */
interface Active {
  readonly emit: (event: TextEvent) => void;
  readonly done: (event: DoneEvent) => void;
  readonly fail: (error: unknown) => void;
  readonly sequence: Sequence;
  readonly adapter: Lease | null;
  readonly tracker: Tracker;
  readonly content: Content;
  readonly repetition: Repetition | null;
  readonly turn: TurnConstraint | null;
  readonly promptTokens: number;
  readonly tokens: number[];
  readonly logprobs: number[];
  readonly startMs: number;
  firstMs: number;
  /** Tokens of analysis messages. */
  reasoning: number;
  /** The last piece of the answer, some of which may wait. */
  last: Delta | null;
  /** Of prompt tokens. */
  cached: number;
  /** Until it has begun. */
  late: NodeJS.Timeout | undefined;
}

export class Runner implements Disposable {
  readonly info: EngineInfo;
  readonly #loaded: LoadedModel;
  readonly #session: Session;
  readonly #adapters: Adapters;
  /** Of an adapter that is merged into the model; null: there is none. */
  #merged: AdapterInfo | null = null;
  #counted = { pairs: 0, bytes: 0 };
  readonly #active = new Map<Sequence, Active>();
  readonly #precision: 'f32' | 'bf16';

  /** @throws what loading refuses */
  static async open(options: EngineOptions): Promise<Runner> {
    const merged = findMerged(options.adapters);
    const runner = new Runner(options, await cacheFor(options), merged);
    try {
      if (merged) runner.#merged = await mergedInfo(merged, runner.#counted, options.model);
      else
        for (const [name, folder] of Object.entries(options.adapters ?? {})) await runner.#adapters.load(name, folder);
      return runner;
    } catch (e) {
      runner.close();
      throw e;
    }
  }
  private constructor(
    readonly options: EngineOptions,
    digests: CacheDigests | null,
    merged: MergedAdapter | null,
  ) {
    if (options.threads) setThreads(options.threads);
    this.#precision = options.precision ?? 'bf16';
    const { loaded, session, contextTokens, device } = loadOnDevice(
      options.device ?? HOST,
      options.memoryLimit ?? 0,
      (on) => {
        let opened = loadModel(options, on.place, digests);
        try {
          if (merged) {
            const whole = mergeLoaded(opened, merged);
            this.#counted = whole.info;
            opened = whole;
          }
          return { loaded: opened, device: on, ...this.#open(opened) };
        } catch (e) {
          opened.close();
          throw e;
        }
      },
    );
    this.#loaded = loaded;
    this.#session = session;
    const { config } = loaded.model;
    this.#adapters = new Adapters(
      config,
      device.place,
      {
        gone: (adapter) => session.forget(adapter),
        moving: () => session.forgetSteps(),
      },
      options.model,
    );
    this.info = {
      contextTokens,
      vocabSize: config.vocab_size,
      layers: config.num_hidden_layers,
      threads: getThreads(),
      device,
      adapters: Object.keys(options.adapters ?? {}),
    };
  }
  #open({ model }: LoadedModel): { readonly session: Session; readonly contextTokens: number } {
    const { options } = this,
      limit = model.config.max_position_embeddings;
    const contextTokens = options.contextTokens ?? Math.min(limit, DEFAULT_CONTEXT_TOKENS);
    if (contextTokens > limit)
      throw new ConfigError(
        'context_too_long',
        `context: got ${contextTokens} tokens, the model knows ${limit} positions; wanted at most that`,
      );
    const session = new Session(model, {
      precision: this.#precision,
      slots: options.slots ?? DEFAULT_SLOTS,
      capacity: contextTokens,
      prefixes: options.prefixes ?? DEFAULT_PREFIXES,
      yields: !model.streamsExperts,
      ...(options.kvDtype === undefined ? {} : { kvDtype: options.kvDtype }),
      ...(options.cacheTokens === undefined ? {} : { cacheTokens: options.cacheTokens }),
    });
    return { session, contextTokens };
  }

  readonly handlers: Handlers<EngineCalls> = {
    generate: (request, call) => this.#generate(request, call),
    score: (request) => this.#score(request),
    count: (messages) => renderPrompt({ messages }, this.#loaded.tokenizer).length,
    state: () => ({
      ...this.#session.usage,
      adapters: this.#adapters.list().length,
      nativeBytes: memoryStats().totalLive,
      heapBytes: process.memoryUsage().heapUsed,
    }),
    digest: async (_, { signal }) =>
      sha256(`${await digestCheckpoint(this.options.model, { signal })}\n${this.#loaded.tokenizer.digest}`),
    load: ({ name, folder }) => {
      this.#requireUnmerged();
      return this.#adapters.load(name, folder);
    },
    unload: (name) => {
      this.#requireUnmerged();
      this.#adapters.unload(name);
      return null;
    },
    adapters: () => (this.#merged ? [this.#merged] : this.#adapters.list()),
  };

  #requireUnmerged(): void {
    if (!this.#merged) return;
    throw new ConfigError(
      'adapter_unsupported',
      `adapter ${this.#merged.name}: is merged into the weights of this engine, so that no ` +
        'other can come or go; open ' +
        'another engine',
    );
  }
  /** @throws {ConfigError} adapter_unknown; adapter_unsupported: the base alone is asked for, which is not there */
  #use(name: string | undefined): Lease | null {
    if (!this.#merged) return name === undefined ? null : this.#adapters.use(name);
    if (name === this.#merged.name) return null;
    if (name !== undefined) return this.#adapters.use(name); // which knows none
    throw new ConfigError(
      'adapter_unsupported',
      `adapter ${this.#merged.name}: was trained merge-aware and is merged into the weights of this engine; requests ` +
        'name it, for the base alone open another engine',
    );
  }

  /** Steps until nothing is left to do, and lets messages in between two steps. */
  #run = (): void => {
    this.#step();
    this.#running = !this.#session.idle;
    if (this.#running) setImmediate(this.#run);
  };
  #running = false;

  /**
   * One forward pass. An error in it ends all requests under way, as their caches are then undefined; later ones are
   * served.
   */
  #step(): void {
    try {
      for (const sampled of this.#session.step()) {
        const active = this.#active.get(sampled.sequence);
        if (active) this.#take(active, sampled);
      }
    } catch (error) {
      for (const active of this.#active.values()) {
        this.#end(active);
        active.fail(error);
      }
    }
  }
  #end(active: Active): void {
    clearTimeout(active.late);
    this.#session.cancel(active.sequence);
    this.#active.delete(active.sequence);
    active.adapter?.release();
  }

  /** Tokens of the leading system and developer messages: what conversations of one kind have in common. */
  #openingTokens(messages: readonly Message[]): number {
    const dialogue = messages.findIndex((m) => m.role !== 'system' && m.role !== 'developer');
    const opening = dialogue < 0 ? messages : messages.slice(0, dialogue);
    return opening.length === 0 ? 0 : renderConversation({ messages: opening }, this.#loaded.tokenizer).length;
  }

  /** What a request makes of its conversation, its text or its tokens, and how what is written is read. */
  #read({ messages, prompt: given }: GenerateRequest): {
    readonly prompt: Int32Array;
    readonly shared: number;
    readonly stop: ReadonlySet<number>;
    readonly tracker: Tracker;
  } {
    const { tokenizer, ends } = this.#loaded;
    if (given === undefined)
      return {
        prompt: renderPrompt({ messages }, tokenizer),
        shared: this.#openingTokens(messages),
        stop: ends,
        tracker: createTracker(tokenizer, declaredTools(messages)),
      };
    // No text: as a document begins.
    const prompt =
      typeof given !== 'string'
        ? given
        : given === ''
          ? Int32Array.of(controlIds(tokenizer).endoftext)
          : tokenizer.encode(given);
    if (isConversation(prompt, tokenizer))
      return { prompt, shared: 0, stop: ends, tracker: createTracker(tokenizer, [], prompt) };
    this.#controls ??= new Set(
      Array.from({ length: this.info.vocabSize }, (_, id) => id).filter((id) => tokenizer.isSpecial(id)),
    );
    return { prompt, shared: 0, stop: this.#controls, tracker: createTextTracker(tokenizer) };
  }
  /** Every id that is no text. */
  #controls: ReadonlySet<number> | null = null;

  #generate(request: GenerateRequest, { signal, emit }: Call<TextEvent>): Promise<DoneEvent> {
    signal.throwIfAborted();
    const { tokenizer } = this.#loaded;
    const { prompt, shared, stop, tracker } = this.#read(request);
    const sampling = { ...DEFAULT_SAMPLING, ...request.sampling };
    checkSampling(sampling);
    checkRequest(request, this.info.vocabSize);
    const turn = request.structure ? new TurnConstraint(request.structure, tokenizer) : null;
    const adapter = this.#use(request.adapter);
    let sequence: Sequence;
    try {
      sequence = this.#session.start({
        tokens: prompt,
        maxTokens: request.maxTokens ?? DEFAULT_MAX_TOKENS,
        stop,
        sampling,
        adapter: adapter?.adapter ?? null,
        sharedTokens: shared,
        steer: createSteer(tokenizer, {
          bias: request.logitBias,
          presencePenalty: request.presencePenalty,
          frequencyPenalty: request.frequencyPenalty,
          // Some of them may be control tokens, which are not told.
          top: request.topLogprobs ? request.topLogprobs + CONTROL_TOKENS : 0,
          constraint: turn ?? undefined,
        }),
        cuts: turnCuts(prompt, tokenizer, shared),
      });
    } catch (e) {
      adapter?.release();
      throw e;
    }
    if (!this.#running) {
      this.#running = true;
      setImmediate(this.#run);
    }
    const startMs = performance.now();
    return new Promise((done, fail) => {
      const active: Active = {
        emit,
        done,
        fail,
        sequence,
        adapter,
        tracker,
        content: new Content(tokenizer, request.stop ?? [], request.topLogprobs ?? null),
        repetition: request.repetitionStop === undefined ? null : new Repetition(request.repetitionStop),
        turn,
        promptTokens: prompt.length,
        tokens: [],
        logprobs: [],
        startMs,
        firstMs: startMs,
        reasoning: 0,
        last: null,
        cached: 0,
        late: undefined,
      };
      this.#active.set(sequence, active);
      signal.addEventListener('abort', () => {
        if (!this.#active.has(sequence)) return;
        this.#end(active);
        fail(signal.reason);
      });
      if (request.waitMs !== undefined) active.late = setTimeout(() => this.#requireBegun(active), request.waitMs);
    });
  }
  /** Ends a request that nothing was computed for yet. */
  #requireBegun(active: Active): void {
    if (!this.#active.has(active.sequence) || this.#session.progress(active.sequence).begun) return;
    this.#end(active);
    active.fail(new NativeError('cache_busy', 'no room became free for prompt and answer in time; try again later'));
  }

  #take(active: Active, { token, logprob, finish, top = [] }: Sampled): void {
    const { tracker, content } = active;
    if (active.tokens.length === 0) {
      active.firstMs = performance.now();
      active.cached = this.#session.progress(active.sequence).cached;
      clearTimeout(active.late);
    }
    active.tokens.push(token);
    active.logprobs.push(logprob);
    // Whatever ends the turn ends its message, and is no text: an end by the model's own word may be any token.
    const { special } = this.#loaded.tokenizer;
    const read = finish !== 'stop' || token === special['<|call|>'] ? token : (special['<|return|>'] ?? token);
    if (tracker.thinking) active.reasoning++;
    if (tracker.current && isAnswer(tracker.current)) content.token(token, logprob, top);
    for (const delta of tracker.push(read)) this.#emit(active, delta);
    const stuck = active.turn?.stuck === true;
    const cut = content.stopped
      ? 'stop_string'
      : stuck
        ? 'stuck'
        : !finish && active.repetition?.push(token)
          ? 'repetition'
          : null;
    if (finish || cut) this.#done(active, token, finish, cut);
  }
  /** Text leaves as far as no ending may have begun in it. */
  #emit(active: Active, delta: Delta): void {
    const { emit, content } = active;
    if (content.stopped) return;
    if (active.last !== null && active.last.message !== delta.message) this.#flush(active);
    if (!isAnswer(delta)) {
      emit({ kind: 'text', ...delta });
      return;
    }
    active.last = delta;
    const now = content.delta(delta);
    if (now.text !== '' || now.tokens) emit({ kind: 'text', ...now });
  }
  #flush(active: Active): void {
    if (active.last === null || active.content.stopped) return;
    const rest = active.content.rest(active.last);
    active.last = null;
    if (rest.text !== '' || 'tokens' in rest) active.emit({ kind: 'text', ...rest });
  }
  #done(active: Active, token: number, finish: Finish | null, cut: DoneEvent['cut']): void {
    const { tracker, content } = active;
    const { special } = this.#loaded.tokenizer;
    this.#end(active);
    const rest = tracker.end();
    for (const delta of rest.deltas) this.#emit(active, delta);
    this.#flush(active);
    const ended = cut === 'stop_string' ? 'stop' : cut !== null || finish === 'length' ? 'length' : 'stop';
    active.done({
      kind: 'done',
      finish: ended === 'stop' && cut === null && token === special['<|call|>'] ? 'call' : ended,
      cut,
      messages: content.cut(rest.messages),
      ...(content.top === null ? {} : { answer: content.tokens }),
      tokens: Int32Array.from(active.tokens),
      logprobs: Float32Array.from(active.logprobs),
      usage: {
        promptTokens: active.promptTokens,
        cachedTokens: active.cached,
        completionTokens: active.tokens.length,
        reasoningTokens: active.reasoning,
        prefillMs: active.firstMs - active.startMs,
        decodeMs: performance.now() - active.firstMs,
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
    const lease = this.#use(adapter);
    try {
      using cache = new KvCache(model.config, 1, Math.max(1, tokens.length), placeOf(model));
      return scoreTokens(model, lease?.adapter ?? null, tokens, { precision: this.#precision, cache });
    } finally {
      lease?.release();
    }
  }

  close(): void {
    this.#adapters.close();
    this.#session.close();
    this.#loaded.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

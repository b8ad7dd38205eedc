// The engine's inside, free of threads: takes requests, steps the session while there is work, sends events. worker.ts
// puts it behind a channel; tests may call it as well.
import { availableParallelism } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Call, Handlers } from '../base/channel-worker.js';
import { sha256 } from '../base/digest.js';
import { ConfigError, NativeError } from '../base/errors.js';
import { digestCheckpoint } from '../model/checkpoint.js';
import { scoreTokens } from '../model/gpt-oss.js';
import { KvCache } from '../model/kv-cache.js';
import { placeOf } from '../model/types.js';
import { getThreads, memoryStats, setThreads, useAtMost } from '../native/tensor.js';
import { ActiveTurn } from './active-turn.js';
import { Adapters, type Lease } from './adapters.js';
import { BrakeWatch } from './brake.js';
import { turnCuts } from './cuts.js';
import { EngineAdapters } from './engine-adapters.js';
import type { TurnConstraint } from './grammar/turn.js';
import { cacheFor, type LoadedModel } from './load.js';
import { DEFAULT_PRECISION, type OpenedModel, openModel } from './open-model.js';
import type { PackedTokens } from './pack-tokens.js';
import type { PrefixDisk } from './prefix-disk.js';
import type {
  DoneEvent,
  EngineCalls,
  EngineInfo,
  EngineOptions,
  GenerateRequest,
  PromptInfo,
  ReadRequest,
  ScoreRequest,
  TextEvent,
} from './protocol.js';
import { readPrompt } from './read-prompt.js';
import { remembering } from './remembered.js';
import { checkRequest, DEFAULT_MAX_TOKENS, DEFAULT_SAMPLING, type Prompt, PromptReader } from './request.js';
import { checkSampling, type Sampled, type Sequence } from './sequence.js';
import type { Session } from './session.js';
import { createSteer } from './steer.js';

/** Control tokens that may be among the most probable ones. */
const CONTROL_TOKENS = 8;

/** Does some work a part at a time: streams go on. @throws the signal's reason */
async function beside<T>(work: Generator<void, T>, signal: AbortSignal): Promise<T> {
  for (let part = work.next(); ; part = work.next()) {
    if (part.done) return part.value;
    await nextTurn();
    signal.throwIfAborted();
  }
}

/** What a request is made of. */
interface Parts {
  readonly prompt: Prompt;
  /** null: its answer is free. */
  readonly constraint: TurnConstraint | null;
  /** Released when it ends. */
  readonly adapter: Lease | null;
}
/** A request under way. */
interface Active {
  readonly turn: ActiveTurn;
  readonly sequence: Sequence;
  readonly adapter: Lease | null;
  readonly done: (event: DoneEvent) => void;
  readonly fail: (error: unknown) => void;
  /** Until it has begun. */
  late: NodeJS.Timeout | undefined;
}

export class Runner implements Disposable {
  readonly info: EngineInfo;
  readonly #loaded: LoadedModel;
  readonly #session: Session;
  readonly #prompts: PromptReader;
  readonly #adapters: EngineAdapters;
  /** Where openings outlive the engine; null: nowhere. */
  readonly #disk: PrefixDisk | null;
  readonly #active = new Map<Sequence, Active>();

  /**
   * @param crowded whether a core that this one's threads compute on has other work of this process just now
   * @throws what loading refuses
   */
  static async open(options: EngineOptions, crowded: () => boolean = () => false): Promise<Runner> {
    const merging = Object.keys(options.adapters ?? {}).length > 0 ? await import('./merged-adapter.js') : null,
      merged = merging?.findMerged(options.adapters) ?? null,
      digests = await cacheFor(options);
    if (options.alone) useAtMost(1);
    else if (options.threads) setThreads(options.threads);
    const put = merging && merged && ((base: LoadedModel) => merging.mergeLoaded(base, merged, options.attackTuned));
    const opened = openModel(options, digests, put, getThreads() < availableParallelism() ? () => false : crowded);
    const { session, loaded, device } = opened;
    const pooled = new Adapters(
      loaded.model.config,
      device.place,
      { gone: (adapter) => session.forget(adapter), moving: () => session.forgetSteps() },
      options.model,
      options.precision ?? DEFAULT_PRECISION,
      options.attackTuned,
    );
    let disk: PrefixDisk | null = null;
    try {
      const info = merging && merged ? await merging.mergedInfo(merged, opened.counted, options.model) : null;
      if (!merged) for (const [name, folder] of Object.entries(options.adapters ?? {})) await pooled.load(name, folder);
      if (options.prefixCache) {
        const { openPrefixDisk } = await import('./prefix-disk.js');
        disk = await openPrefixDisk(options.prefixCache, options, opened, pooled, info?.digest ?? null);
      }
      return new Runner(options, opened, new EngineAdapters(pooled, info), disk);
    } catch (e) {
      pooled.close();
      session.close();
      loaded.close();
      throw e;
    }
  }
  private constructor(
    readonly options: EngineOptions,
    { loaded, session, contextTokens, device }: OpenedModel,
    adapters: EngineAdapters,
    disk: PrefixDisk | null,
  ) {
    this.#loaded = loaded;
    this.#session = session;
    this.#adapters = adapters;
    this.#disk = disk;
    session.failed = (sequence, error) => {
      const active = this.#active.get(sequence);
      if (!active) return;
      this.#end(active);
      active.fail(error);
    };
    const { config } = loaded.model;
    this.#prompts = new PromptReader(remembering(loaded.tokenizer), loaded.ends, config.vocab_size, contextTokens);
    this.info = {
      contextTokens,
      vocabSize: config.vocab_size,
      mostText: contextTokens * (loaded.tokenizer.longestToken ?? Number.POSITIVE_INFINITY),
      layers: config.num_hidden_layers,
      threads: getThreads(),
      device,
      adapters: Object.keys(options.adapters ?? {}),
    };
  }

  readonly handlers: Handlers<EngineCalls> = {
    generate: (request, call) => this.#generate(request, call),
    score: (request) => this.#score(request),
    read: (request, call) => this.#readPrompt(request, call),
    count: (messages, { signal }) => beside(this.#prompts.count(messages), signal),
    state: () => ({
      ...this.#session.usage,
      adapters: this.#adapters.pooled.list().length,
      nativeBytes: memoryStats().totalLive,
      heapBytes: process.memoryUsage().heapUsed,
      ...(this.#disk ? { prefixFiles: this.#disk.counts } : {}),
    }),
    digest: async (_, { signal }) =>
      sha256(`${await digestCheckpoint(this.options.model, { signal })}\n${this.#loaded.tokenizer.digest}`),
    load: ({ name, folder }, { signal }) => this.#adapters.load(name, folder, signal),
    unload: (name) => {
      this.#adapters.unload(name);
      return null;
    },
    adapters: () => this.#adapters.list(),
  };

  /** Steps until nothing is left to do, and lets messages in between two steps. */
  #run = (): void => {
    this.#step();
    const brakes = this.#session.heldBy;
    this.#running = !this.#session.idle && brakes === null;
    if (this.#running) setImmediate(this.#run);
    else if (brakes) this.#brakes.watch(brakes, this.#goOn);
  };
  #running = false;
  readonly #brakes = new BrakeWatch();
  readonly #goOn = (): void => {
    if (this.#running || this.#session.idle) return;
    this.#running = true;
    setImmediate(this.#run);
  };

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

  async #generate(request: GenerateRequest, call: Call<TextEvent>): Promise<DoneEvent> {
    call.signal.throwIfAborted();
    await beside(this.#prompts.learn(request), call.signal);
    const constraint = request.structure ? await this.#constraintOf(request.structure) : null;
    call.signal.throwIfAborted();
    return this.#begin(request, constraint, call);
  }
  /** Schemas are asked for by few, and what keeps to them is much code. */
  async #constraintOf(structure: NonNullable<GenerateRequest['structure']>): Promise<TurnConstraint> {
    const { TurnConstraint } = await import('./grammar/turn.js');
    return new TurnConstraint(structure, this.#loaded.tokenizer);
  }
  #begin(request: GenerateRequest, constraint: TurnConstraint | null, call: Call<TextEvent>): Promise<DoneEvent> {
    const prompt = this.#prompts.read(request);
    checkSampling({ ...DEFAULT_SAMPLING, ...request.sampling });
    checkRequest(request, this.info.vocabSize);
    const adapter = this.#adapters.use(request.adapter);
    const parts = { prompt, constraint, adapter };
    if (!this.#disk) return this.#start(request, parts, call);
    const { tokens, shared } = prompt;
    return this.#disk.bring(tokens, shared, adapter?.adapter ?? null, call.signal).then(
      () => this.#start(request, parts, call),
      (e) => {
        adapter?.release();
        throw e;
      },
    );
  }
  #start(
    request: GenerateRequest,
    { prompt, constraint, adapter }: Parts,
    { signal, emit }: Call<TextEvent>,
  ): Promise<DoneEvent> {
    const { tokenizer } = this.#loaded;
    let sequence: Sequence;
    try {
      sequence = this.#session.start({
        tokens: prompt.tokens,
        maxTokens: request.maxTokens ?? DEFAULT_MAX_TOKENS,
        stop: prompt.stop,
        sampling: { ...DEFAULT_SAMPLING, ...request.sampling },
        adapter: adapter?.adapter ?? null,
        sharedTokens: prompt.shared,
        steer: createSteer(tokenizer, {
          bias: request.logitBias,
          presencePenalty: request.presencePenalty,
          frequencyPenalty: request.frequencyPenalty,
          // Some of them may be control tokens, which are not told.
          top: request.topLogprobs ? request.topLogprobs + CONTROL_TOKENS : 0,
          constraint: constraint ?? undefined,
          plain: prompt.stop !== this.#loaded.ends,
        }),
        cuts: request.shared === undefined ? turnCuts(prompt.tokens, tokenizer, prompt.shared) : [],
        growing: request.growing === true && request.quiet === true,
        brake: request.brake,
        foreseen: this.#prompts.foreseen(request),
        patient: request.quiet === true,
      });
    } catch (e) {
      adapter?.release();
      throw e;
    }
    this.#goOn();
    const { tracker, tokens } = prompt;
    const told = request.quiet ? null : emit;
    const turn = new ActiveTurn(tokenizer, { request, promptTokens: tokens.length, tracker, constraint, emit: told });
    return new Promise((done, fail) => {
      const active: Active = { turn, sequence, adapter, done, fail, late: undefined };
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

  #take(active: Active, sampled: Sampled): void {
    const { turn } = active;
    if (turn.fresh) {
      turn.begin(this.#session.progress(active.sequence).cached);
      clearTimeout(active.late);
    }
    const done = turn.take(sampled, this.#session.progress(active.sequence));
    if (!done) return;
    this.#end(active);
    active.done(done);
  }

  async #readPrompt(request: ReadRequest, { signal, emit }: Call<PackedTokens>): Promise<Omit<PromptInfo, 'tokens'>> {
    const lease = request.top === null ? null : this.#adapters.use(request.adapter);
    const { tokenizer } = this.#prompts;
    try {
      await beside(this.#prompts.learn({ prompt: request.prompt, messages: [] }), signal);
      return await readPrompt(request, {
        ...this.#loaded,
        tokenizer,
        adapter: lease?.adapter ?? null,
        precision: this.options.precision ?? DEFAULT_PRECISION,
        contextTokens: this.info.contextTokens,
        signal,
        tell: emit,
      });
    } finally {
      lease?.release();
    }
  }

  #score({ tokens, adapter }: ScoreRequest): Float32Array {
    const { model } = this.#loaded;
    const bad = tokens.find((t) => t < 0 || t >= model.config.vocab_size);
    if (bad !== undefined)
      throw new ConfigError(
        'token_range',
        `score: token ${bad} is not in the model's vocabulary of ${model.config.vocab_size}`,
      );
    const lease = this.#adapters.use(adapter);
    try {
      using cache = new KvCache(model.config, 1, Math.max(1, tokens.length), placeOf(model));
      return scoreTokens(model, lease?.adapter ?? null, tokens, {
        precision: this.options.precision ?? DEFAULT_PRECISION,
        cache,
      });
    } finally {
      lease?.release();
    }
  }

  /** What is kept of openings is on disk, and then all is closed. */
  async settle(): Promise<void> {
    await this.#disk?.settle();
    this.close();
  }
  close(): void {
    this.#disk?.close();
    this.#adapters.close();
    this.#session.close();
    this.#loaded.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

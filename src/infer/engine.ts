// The engine as the main thread sees it: a thread of its own holds the model, requests go over a channel and come back
// as streams. Nothing here computes, so a server or a progress bar beside it never stalls.
import { type ChannelOptions, openChannel } from '../base/channel.js';
import type { Message } from '../harmony/types.js';
import { localOf } from '../hub/pull.js';
import type { AdapterInfo } from './adapters.js';
import { type PackedText, unpackText } from './gather-text.js';
import { type PackedTokens, type TokenBytes, unpackTokens } from './pack-tokens.js';
import type {
  EngineEvent,
  EngineInfo,
  EngineOptions,
  EngineState,
  GenerateRequest,
  PackedCalls,
  PackedDone,
  PromptInfo,
  ReadRequest,
  ScoreRequest,
  TextEvent,
  TokenInfo,
} from './protocol.js';
import { ENGINE_FILE, ENGINE_THREAD } from './thread.js';

export interface Engine {
  readonly info: EngineInfo;
  /** Streams one turn; leaving the loop or aborting stops it. @throws typed errors, `AbortError` */
  generate(request: GenerateRequest, signal?: AbortSignal): AsyncIterable<EngineEvent>;
  /** Element i: log p(tokens[i+1] | tokens[0…i]), nats; the trainer's bits, unless denseDtype is q8. */
  score(request: ScoreRequest, signal?: AbortSignal): Promise<Float32Array>;
  /**
   * What a prompt says, and its log-probabilities in pieces that others' streams go on between.
   * @throws {ConfigError} token_range, prompt_too_long
   */
  read(request: ReadRequest, signal?: AbortSignal): Promise<PromptInfo>;
  /** Tokens of the prompt that a conversation makes. @throws {DataError} bad_header */
  count(messages: readonly Message[], signal?: AbortSignal): Promise<number>;
  /** Slots, pages and memory that are taken now. */
  state(): Promise<EngineState>;
  /** sha256 over weights, config and tokenizer, hex; computed at the first call. */
  digest(signal?: AbortSignal): Promise<string>;
  /**
   * Reads a PEFT adapter folder. Requests that name it from now on get it; where the name is taken, those under way go
   * on with the adapter they began with. A load that fails or is given up changes nothing.
   * @throws {CheckpointError} what reading refuses
   */
  loadAdapter(name: string, folder: string, signal?: AbortSignal): Promise<AdapterInfo>;
  /** Requests under way go on with it; its memory goes with the last. @throws {ConfigError} adapter_unknown */
  unloadAdapter(name: string): Promise<void>;
  adapters(): Promise<readonly AdapterInfo[]>;
  /** Ends running requests with `AbortError`. A second close does nothing. */
  close(): Promise<void>;
}

/**
 * By hand, as `mapped` is (mapped.ts): its source's result is its last event.
 * @param told log-probabilities are
 */
function turnOf(
  packed: AsyncGenerator<PackedText, PackedDone, void>,
  bytes: TokenBytes,
  told: boolean,
): AsyncIterableIterator<EngineEvent, void, void> {
  let last: TextEvent | null = null,
    over = false;
  const answer: TokenInfo[] = [];
  const failed = (error: unknown): never => {
    over = true;
    throw error;
  };
  const took = ({ done, value }: IteratorResult<PackedText, PackedDone>): IteratorResult<EngineEvent, void> => {
    // Its reader left while it was waited for.
    if (over) return { done: true, value: undefined };
    if (done) {
      over = true;
      const { told: late, ...end } = value;
      return { done: false, value: told ? { ...end, answer: late ? unpackTokens(late, bytes) : answer } : end };
    }
    try {
      last = unpackText(value, last, bytes);
    } catch (error) {
      void packed.return(undefined as never).catch(() => {});
      return failed(error);
    }
    if (last.tokens) answer.push(...last.tokens);
    return { done: false, value: last };
  };
  return {
    next: () => (over ? Promise.resolve({ done: true, value: undefined }) : packed.next().then(took, failed)),
    async return() {
      over = true;
      await packed.return(undefined as never);
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/**
 * Loads a model in its own thread; one that is named by hf:// is brought into the cache first.
 * @param signal ends the loading
 * @param thread how its thread is made
 * @throws {CheckpointError} {ConfigError} what loading refuses
 */
export async function openEngine(
  options: EngineOptions,
  signal?: AbortSignal,
  thread: ChannelOptions = ENGINE_THREAD,
): Promise<Engine> {
  const model = await localOf(options.model, { signal }),
    draft = options.draft === undefined ? undefined : await localOf(options.draft, { signal });
  const channel = await openChannel<PackedCalls, EngineInfo>(
    ENGINE_FILE,
    { ...options, model, ...(draft === undefined ? {} : { draft }) },
    { ...thread, signal },
  );
  let digest: string | undefined;
  const bytes: TokenBytes = new Map();
  return {
    info: channel.info,
    generate: (request, stop) =>
      turnOf(channel.stream('generate', request, stop), bytes, request.topLogprobs !== undefined),
    score: (request, stop) => channel.call('score', request, { signal: stop }),
    async read(request, stop) {
      const tokens: TokenInfo[] = [];
      const onEvent = (some: PackedTokens): void => void tokens.push(...unpackTokens(some, bytes));
      return { ...(await channel.call('read', request, { signal: stop, onEvent })), tokens };
    },
    count: (messages, stop) => channel.call('count', messages, { signal: stop }),
    state: () => channel.call('state', null),
    digest: async (stop) => (digest ??= await channel.call('digest', null, { signal: stop })),
    async loadAdapter(name, folder, stop) {
      stop?.throwIfAborted();
      // Until it is known whether it came in all the same: nobody else would ever take it out.
      return channel.call('load', { name, folder }, { signal: stop, waits: true });
    },
    async unloadAdapter(name) {
      await channel.call('unload', name);
    },
    adapters: () => channel.call('adapters', null),
    close: () => channel.close(),
  };
}

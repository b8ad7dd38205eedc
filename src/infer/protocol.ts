// What passes between the main thread and the inference thread, and what a caller of the engine sees.
import type { Message, Role } from '../harmony/types.js';
import type { Device } from '../native/device.js';
import type { AdapterInfo } from './adapters.js';
import type { PackedText } from './gather-text.js';
import type { Structure } from './grammar/turn.js';
import type { PackedTokens } from './pack-tokens.js';
import type { PrefixCounts } from './prefix-files.js';
import type { Sampling } from './sequence.js';
import type { SessionUsage } from './session-options.js';

export interface EngineOptions {
  /** Checkpoint folder. */
  readonly model: string;
  /** PEFT adapter folders by name, loaded at once. Others may come and go later. */
  readonly adapters?: Readonly<Record<string, string>>;
  /** Threads of the CPU pool; default: what the machine has. */
  readonly threads?: number;
  /** Its own thread computes, whatever the pool has: for one of several that run side by side (side-by-side.ts). */
  readonly alone?: boolean;
  readonly precision?: 'f32' | 'bf16';
  /**
   * 'cpu' (default), 'cuda' (the machine's only kind of GPU), 'cuda:N', or 'auto': a GPU that opens and holds model and
   * caches, else the CPU.
   */
  readonly device?: string;
  /** Most bytes to take of the device's memory, 0 or absent: all there is. */
  readonly memoryLimit?: number;
  /**
   * Weights of attention and head: as the file has them, or in 8 bits made at load. Scores are then no longer the
   * trainer's bits. Default bf16.
   */
  readonly denseDtype?: 'bf16' | 'q8';
  /** Keeps the 8-bit weights in a file beside the model, and uses it while it is of these weights. */
  readonly denseCache?: boolean;
  /**
   * What keys and values of full layers are kept in: bf16 halves the cache and rounds them to nearest even; on a GPU at
   * precision bf16, which rounds them anyway, it changes no bit. Default f32.
   */
  readonly kvDtype?: 'f32' | 'bf16';
  /** Tokens that the cache holds of all sequences together; default: enough for each to be as long as it may. */
  readonly cacheTokens?: number;
  /** Sequences that run at once. */
  readonly slots?: number;
  /** Openings of conversations (system and developer messages) that are kept computed. */
  readonly prefixes?: number;
  /**
   * Folder where openings are kept, for the next engine with the same model, adapter and settings; and the most bytes
   * of all of them. Default: in memory alone.
   */
  readonly prefixCache?: { readonly folder: string; readonly bytes: number };
  /** Most tokens of one sequence, prompt and answer; default the model's own limit, at most 4096. */
  readonly contextTokens?: number;
  /**
   * Next tokens are guessed by what prompt and answer have already, and checked several at a time; no token and no bit
   * depends on it. auto (default): where measured times say that it is faster; always: wherever there is a guess.
   */
  readonly speculation?: 'auto' | 'always' | 'off';
  /** Checkpoint folder of a smaller model of the same vocabulary, which guesses too. */
  readonly draft?: string;
  /** Takes adapters that an attack has tuned, which are refused else: for whoever measures the attack. */
  readonly attackTuned?: boolean;
}
export interface EngineInfo {
  readonly contextTokens: number;
  readonly vocabSize: number;
  /** Characters of a text that are more tokens than the context holds, however it is cut into them. */
  readonly mostText: number;
  readonly layers: number;
  readonly threads: number;
  readonly device: Device;
  /** Names of those that it was opened with. */
  readonly adapters: readonly string[];
}

export const MAX_STOPS = 16;
export const MAX_TOP_LOGPROBS = 20;

export interface GenerateRequest {
  /**
   * The whole conversation, system message included (harmony/chat.ts makes it from OpenAI's form); the assistant's next
   * turn is generated.
   */
  readonly messages: readonly Message[];
  /**
   * In place of `messages`, which are not read then: a text to go on with, ended by the first control token; or tokens.
   * Tokens with harmony's own among them are a conversation, and what is written is read as one.
   */
  readonly prompt?: string | Int32Array;
  /**
   * How the last message begins in other requests too, which are no turns of one conversation: kept computed with what
   * stands before it, and nothing beyond. Absent: openings and conversations are kept.
   */
  readonly shared?: string;
  /**
   * Others that are `shared` alike are likely to go on from where this one's last message ends, but for its last words:
   * it is kept computed as a whole. For quiet ones.
   */
  readonly growing?: boolean;
  /** Nobody reads along: its end alone is told, and its tokens wait while prompts are read. */
  readonly quiet?: boolean;
  /** Of a Brake, with which whoever reads lets the stream wait. It is not waited for while others need its room. */
  readonly brake?: Int32Array;
  readonly adapter?: string;
  readonly maxTokens?: number;
  readonly sampling?: Partial<Sampling>;
  /** Texts that end the turn where its answer has one; it is cut off before that. At most MAX_STOPS. */
  readonly stop?: readonly string[];
  /** Added to the logits of tokens. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /** Taken off the logit of a token that the turn's text has: once, and once for each time it has it. */
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  /** Log-probabilities of the answer's tokens are told, and so many of the most probable ones beside each. */
  readonly topLogprobs?: number;
  /** The turn ends when the last tokens are one block so many times in a row (repetition.ts). */
  readonly repetitionStop?: number;
  /** What the turn must be: answers and calls that keep to schemas, calls that must come. */
  readonly structure?: Structure;
  /**
   * What the answer is thought to say, for the most part; or whole turns, one of which it is thought to be: next tokens
   * are guessed by it where they are guessed at all (`speculation`); no token depends on it.
   */
  readonly prediction?: string | readonly ForeseenTurn[];
  /** Longest wait for a slot and for room in the cache, ms; then it is `cache_busy`. Absent: as long as it takes. */
  readonly waitMs?: number;
}
/** Messages of a turn, one after the other, as it is foreseen. */
export type ForeseenTurn = readonly { readonly channel: string; readonly content: string }[];
/** A token of an answer, with log-softmax of the raw logits. */
export interface TokenInfo {
  readonly token: number;
  readonly bytes: Uint8Array;
  readonly logprob: number;
  readonly top: readonly { readonly token: number; readonly bytes: Uint8Array; readonly logprob: number }[];
}
/** Log-probabilities of a text given as tokens. */
export interface ScoreRequest {
  readonly tokens: Int32Array;
  readonly adapter?: string;
}

/** A prompt, as `GenerateRequest` has it. */
export interface ReadRequest {
  readonly prompt: string | Int32Array;
  /** So many of the most probable tokens beside each; null: no log-probabilities. */
  readonly top: number | null;
  readonly adapter?: string;
}
/** What a prompt says. */
export interface PromptInfo {
  readonly text: string;
  /** How many tokens it has. */
  readonly count: number;
  /** With log-probabilities: all of them, NaN for the first. */
  readonly tokens: readonly TokenInfo[];
}

/** New text on a channel; whole characters only. Empty where a message with a recipient begins. */
export interface TextEvent {
  readonly kind: 'text';
  /** Which message of the turn, from 0: two of one channel are two texts. */
  readonly message: number;
  readonly role: Role;
  readonly channel: string;
  readonly recipient: string | null;
  readonly text: string;
  /** Steps that it is the text of; absent: one. */
  readonly pieces?: number;
  /** With `topLogprobs`: tokens since the last event, of the answer alone; the text may have waited for more. */
  readonly tokens?: readonly TokenInfo[];
}
/**
 * The turn is over. `call`: it ended by a tool call. `cut`: something else than the model ended it; `stuck`: no token
 * was left that its structure allows.
 */
export interface DoneEvent {
  readonly kind: 'done';
  readonly finish: 'stop' | 'call' | 'length';
  readonly cut: 'stop_string' | 'repetition' | 'stuck' | null;
  /** The text that ended it, of those of the request. */
  readonly stop?: string;
  /** With `topLogprobs`: the tokens of its answer. */
  readonly answer?: readonly TokenInfo[];
  readonly messages: readonly Message[];
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
  readonly usage: {
    readonly promptTokens: number;
    /** Of them, those that were computed before for another request. */
    readonly cachedTokens: number;
    readonly completionTokens: number;
    /** Of them, those of analysis messages: the text and what ends it. */
    readonly reasoningTokens: number;
    /** Tokens that were guessed, and those of them that came. Absent: none were. */
    readonly draftedTokens?: number;
    readonly acceptedTokens?: number;
    readonly prefillMs: number;
    readonly decodeMs: number;
  };
}
export type EngineEvent = TextEvent | DoneEvent;

/** What is taken now. */
export interface EngineState extends SessionUsage {
  readonly adapters: number;
  /** Native memory that is held, and JavaScript's of the engine's thread, bytes. */
  readonly nativeBytes: number;
  readonly heapBytes: number;
  /** Openings that came from files, went to files, and files that were not used. */
  readonly prefixFiles?: PrefixCounts;
}

/** What the inference thread answers. */
export type EngineCalls = {
  readonly generate: { readonly request: GenerateRequest; readonly event: TextEvent; readonly result: DoneEvent };
  readonly score: { readonly request: ScoreRequest; readonly event: never; readonly result: Float32Array };
  readonly read: {
    readonly request: ReadRequest;
    /** Some more of the tokens. */
    readonly event: PackedTokens;
    readonly result: Omit<PromptInfo, 'tokens'>;
  };
  /** Tokens that a conversation is read as. */
  readonly count: { readonly request: readonly Message[]; readonly event: never; readonly result: number };
  readonly state: { readonly request: null; readonly event: never; readonly result: EngineState };
  readonly digest: { readonly request: null; readonly event: never; readonly result: string };
  readonly load: {
    readonly request: { readonly name: string; readonly folder: string };
    readonly event: never;
    readonly result: AdapterInfo;
  };
  readonly unload: { readonly request: string; readonly event: never; readonly result: null };
  readonly adapters: { readonly request: null; readonly event: never; readonly result: readonly AdapterInfo[] };
};
/** The end of a turn between the threads: the answer's tokens were told before, but to who reads the end alone. */
export type PackedDone = Omit<DoneEvent, 'answer'> & { readonly told?: PackedTokens };
/** The same as it goes between the threads. */
export type PackedCalls = Omit<EngineCalls, 'generate'> & {
  readonly generate: {
    readonly request: GenerateRequest;
    readonly event: PackedText;
    readonly result: PackedDone;
  };
};

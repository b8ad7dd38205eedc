// What a request asks for, checked, and the prompt that its conversation, its text or its tokens make.
import { ConfigError } from '../base/errors.js';
import { declaredTools } from '../harmony/declared-tools.js';
import { controlIds, keptMessages, renderConversation, renderPrompt } from '../harmony/render.js';
import type { Message } from '../harmony/types.js';
import { createTextTracker, createTracker, isConversation, type Tracker } from './channels.js';
import { APART } from './lookup.js';
import { type ForeseenTurn, type GenerateRequest, MAX_STOPS, MAX_TOP_LOGPROBS } from './protocol.js';
import type { Remembering } from './remembered.js';
import type { Sampling } from './sequence.js';

export const DEFAULT_MAX_TOKENS = 1024;
/** What the released checkpoints recommend. */
export const DEFAULT_SAMPLING: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 0 };

/** @throws {ConfigError} request_range */
export function checkRequest(r: GenerateRequest, vocabSize: number): void {
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

/** UTF-16 units of a prediction that are looked at. */
const MOST_FORESEEN = 1 << 17;
const seen = (prediction: string): string => prediction.slice(0, MOST_FORESEEN).toWellFormed();

export interface Prompt {
  readonly tokens: Int32Array;
  /** Of them, those of the leading system and developer messages: what conversations of one kind have in common. */
  readonly shared: number;
  /** What ends the turn. */
  readonly stop: ReadonlySet<number>;
  /** How what is written is read. */
  readonly tracker: Tracker;
}

export class PromptReader {
  /** Every id that is no text. */
  #controls: ReadonlySet<number> | null = null;

  constructor(
    readonly tokenizer: Remembering,
    /** Tokens that end a turn. */
    readonly ends: ReadonlySet<number>,
    readonly vocabSize: number,
    /** Tokens that prompt and answer may have. */
    readonly contextTokens: number,
  ) {}

  /**
   * Encodes what is long of a request, a part at a time: `read` then takes no longer than for short ones. Several long
   * ones may go on by turns.
   * @throws {ConfigError} prompt_too_long: for certain, however its text is cut into tokens
   */
  *learn({ messages, prompt, prediction }: GenerateRequest): Generator<void, void> {
    const kept = prompt === undefined ? keptMessages(messages, 'earlier-turns', true) : [];
    const texts = typeof prompt === 'string' ? [prompt] : kept.map((i) => messages[i]!.content);
    const { tokenizer, contextTokens } = this,
      least = Math.ceil(texts.reduce((n, t) => n + t.length, 0) / (tokenizer.longestToken ?? Number.POSITIVE_INFINITY));
    if (least > contextTokens)
      throw new ConfigError(
        'prompt_too_long',
        `prompt: at least ${least} tokens, the context holds ${contextTokens} with the answer; shorten the prompt or ` +
          'raise the context',
        { tokens: least, context: contextTokens },
      );
    for (const text of typeof prediction === 'string' && prediction !== '' ? [...texts, seen(prediction)] : texts)
      yield* tokenizer.learn(text);
  }
  /** Tokens that a conversation is read as, a part of a long text at a time. @throws {DataError} bad_header */
  *count(messages: readonly Message[]): Generator<void, number> {
    for (const { content } of messages) yield* this.tokenizer.learn(content);
    return renderPrompt({ messages }, this.tokenizer).length;
  }
  /** @throws {DataError} bad_header */
  read({ messages, prompt: given, shared }: GenerateRequest): Prompt {
    const { tokenizer, ends } = this;
    if (given === undefined) {
      const tokens = renderPrompt({ messages }, tokenizer);
      return {
        tokens,
        shared: shared === undefined ? this.#openingTokens(messages) : this.#sharedTokens(messages, shared, tokens),
        stop: ends,
        tracker: createTracker(tokenizer, declaredTools(messages)),
      };
    }
    // No text: as a document begins.
    const tokens =
      typeof given !== 'string'
        ? given
        : given === ''
          ? Int32Array.of(controlIds(tokenizer).endoftext)
          : tokenizer.encode(given);
    if (isConversation(tokens, tokenizer))
      return { tokens, shared: 0, stop: ends, tracker: createTracker(tokenizer, [], tokens) };
    this.#controls ??= new Set(
      Array.from({ length: this.vocabSize }, (_, id) => id).filter((id) => tokenizer.isSpecial(id)),
    );
    return { tokens, shared: 0, stop: this.#controls, tracker: createTextTracker(tokenizer) };
  }
  /** The answer that a request foresees, as a turn would have it. undefined: none */
  foreseen({ prediction, messages }: GenerateRequest): Int32Array | undefined {
    if (!prediction || prediction.length === 0) return undefined;
    const { tokenizer } = this;
    if (typeof prediction === 'string') {
      const said = tokenizer.encode(seen(prediction));
      if (messages.length === 0) return said;
      const { channel, message } = controlIds(tokenizer);
      return Int32Array.from([channel, ...tokenizer.encode('final'), message, ...said]);
    }
    return this.#turns(prediction);
  }
  /** As they would be sampled, behind what ends a prompt. Turns that end alike have those texts in common. */
  #turns(turns: readonly ForeseenTurn[]): Int32Array {
    const ids = controlIds(this.tokenizer),
      role = this.tokenizer.encode('assistant'),
      known = new Map<string, Int32Array>(),
      out: number[] = [];
    const add = (tokens: Int32Array): void => {
      for (let i = 0; i < tokens.length; i++) out.push(tokens[i] as number);
    };
    const encode = (text: string): Int32Array => {
      const tokens = known.get(text) ?? this.tokenizer.encode(seen(text));
      known.set(text, tokens);
      return tokens;
    };
    turns.forEach((turn, t) => {
      if (t > 0) out.push(APART);
      turn.forEach(({ channel, content }, i) => {
        out.push(ids.start);
        add(role);
        out.push(ids.channel);
        add(encode(channel));
        out.push(ids.message);
        add(encode(content));
        out.push(i + 1 < turn.length ? ids.end : ids.return);
      });
    });
    return Int32Array.from(out);
  }
  /** The prompt's as far as they are those of the same with nothing else in its last message. */
  #sharedTokens(messages: readonly Message[], shared: string, tokens: Int32Array): number {
    const last = messages.at(-1);
    if (!last) return 0;
    const head = renderConversation(
      { messages: [...messages.slice(0, -1), { ...last, content: shared }] },
      this.tokenizer,
    );
    let n = 0;
    while (n < head.length && n < tokens.length && head[n] === tokens[n]) n++;
    return n;
  }
  #openingTokens(messages: readonly Message[]): number {
    const dialogue = messages.findIndex((m) => m.role !== 'system' && m.role !== 'developer');
    const opening = dialogue < 0 ? messages : messages.slice(0, dialogue);
    return opening.length === 0 ? 0 : renderConversation({ messages: opening }, this.tokenizer).length;
  }
}

// What is released of a turn in the shape of chat completions: whole, or as chunks of a stream.
import { isUtf8 } from 'node:buffer';
import type { DoneEvent, TokenInfo } from '../infer/protocol.js';
import type { Answer, FinishReason, Released } from './generation.js';
import { type LazyList, listOf } from './json-pieces.js';
import type { Part, PartHead, PartKind } from './parts.js';

export interface Head {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
  /** The request came with a prediction: its guesses are counted. */
  readonly predicted: boolean;
  /** A last chunk tells the tokens; all before it say that they do not. */
  readonly tellsUsage: boolean;
}
type Body = Record<string, unknown>;

/** Of one call: the id of the answer and the place of its message, so that a stream and its whole agree. */
const callId = ({ id }: Head, { index }: PartHead, choice: number): string =>
  `call_${id.replace(/^chatcmpl-/, '').slice(0, 24)}${choice === 0 ? '' : `c${choice}m`}${index}`;

/** Of all answers; the prompt is read once. */
function usageOf({ predicted }: Head, answers: readonly Answer[]): Body {
  const sum = (of: (usage: DoneEvent['usage']) => number): number => answers.reduce((n, a) => n + of(a.usage), 0);
  const prompt = answers[0]?.usage.promptTokens ?? 0;
  const completion = sum((u) => u.completionTokens);
  // Of what is withheld nobody is told how well it was guessed.
  const guesses = answers.filter((a) => a.finish !== 'content_filter').map((a) => a.usage);
  const drafted = guesses.reduce((n, u) => n + (u.draftedTokens ?? 0), 0),
    accepted = guesses.reduce((n, u) => n + (u.acceptedTokens ?? 0), 0);
  // Guesses of all kinds: what was predicted is not told apart from what was looked up.
  const guessed =
    predicted && drafted > 0
      ? { accepted_prediction_tokens: accepted, rejected_prediction_tokens: drafted - accepted }
      : {};
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: answers[0]?.usage.cachedTokens ?? 0 },
    completion_tokens_details: { reasoning_tokens: sum((u) => u.reasoningTokens), ...guessed },
  };
}
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
/** A token that is no text by itself is told by its bytes. */
export function tokenText(bytes: Uint8Array): string {
  // To be thrown at costs as much as a hundred of them, and there may be thousands.
  if (isUtf8(bytes)) return utf8.decode(bytes);
  return `bytes:${Array.from(bytes, (b) => `\\x${b.toString(16).padStart(2, '0')}`).join('')}`;
}
type Likely = Pick<TokenInfo, 'bytes' | 'logprob'>;
const likely = ({ bytes, logprob }: Likely): Body => ({ token: tokenText(bytes), logprob, bytes: Array.from(bytes) });
const logprobOf = (t: TokenInfo): Body => ({ ...likely(t), top_logprobs: t.top.map(likely) });
/** How many a token has with it, itself among them. */
export const weightOf = (tokens: readonly TokenInfo[]): number => 1 + (tokens.at(-1)?.top.length ?? 0);
export const logprobsOf = (tokens: readonly TokenInfo[]): readonly unknown[] | LazyList =>
  listOf(tokens, logprobOf, weightOf(tokens));
const choiceLogprobsOf = (tokens: readonly TokenInfo[]): Body => ({ content: logprobsOf(tokens), refusal: null });
const callOf = (head: Head, part: Part, choice: number): Body => ({
  id: callId(head, part, choice),
  type: 'function',
  function: { name: part.name, arguments: part.text },
});
/** Messages of one kind each begin on a line of their own. */
const textOf = (parts: readonly Part[], kind: PartKind): string =>
  parts
    .filter((p) => p.kind === kind)
    .map((p) => p.text)
    .join('\n');
const reasoningFields = (text: string): Body => ({ reasoning: text, reasoning_content: text });
const screeningFields = ({ screening }: Answer): Body => (screening ? { temper: screening } : {});

function choiceOf(head: Head, answer: Answer, index: number, logprobs: boolean): Body {
  const { parts, refusal, finish } = answer;
  const reasoning = textOf(parts, 'reasoning');
  const calls = parts.filter((p) => p.kind === 'call').map((p) => callOf(head, p, index));
  const message = {
    role: 'assistant',
    content: textOf(parts, 'content') || null,
    refusal,
    ...(reasoning === '' ? {} : reasoningFields(reasoning)),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  };
  return { index, message, logprobs: logprobs ? choiceLogprobsOf(answer.tokens) : null, finish_reason: finish };
}
export function completionBody(head: Head, answers: readonly Answer[], logprobs: boolean): Body {
  const screened = answers.length === 1 && answers[0] ? screeningFields(answers[0]) : {};
  const all = answers.length > 1 && answers.some((a) => a.screening);
  return {
    id: head.id,
    object: 'chat.completion',
    created: head.created,
    model: head.model,
    choices: answers.map((a, i) => choiceOf(head, a, i, logprobs)),
    usage: usageOf(head, answers),
    ...(all ? { temper: { choices: answers.map((a) => a.screening) } } : screened),
  };
}

const chunkBase = (head: Head): Body => ({
  id: head.id,
  object: 'chat.completion.chunk',
  created: head.created,
  model: head.model,
  ...(head.tellsUsage ? { usage: null } : {}),
});
export const usageChunk = (head: Head, answers: readonly Answer[]): Body => ({
  ...chunkBase(head),
  choices: [],
  usage: usageOf(head, answers),
});

/** Chunks of one answer, as bodies or as their JSON; joined, they are what `completionBody` says of the whole. */
export class Chunks {
  readonly #calls = new Map<number, number>();
  readonly #last = new Map<PartKind, number>();
  /** What stands before and after the delta of a plain chunk. */
  #around: readonly [string, string] | null = null;
  constructor(
    readonly head: Head,
    /** Which of the answers it is. */
    readonly index: number,
  ) {}

  of(event: Released): readonly (Body | string)[] {
    if (event.kind === 'begin') return [this.#chunk({ role: 'assistant', content: '' })];
    if (event.kind === 'piece') {
      const delta = this.#delta(event.part, event.text);
      return [event.tokens ? this.#chunk(delta, null, event.tokens) : this.#plain(delta)];
    }
    if (event.kind === 'sealed') return []; // has no place in this form, and is not asked for
    const { refusal, finish } = event.answer;
    return [
      ...(refusal === null ? [] : [this.#chunk({ refusal })]),
      { ...this.#chunk({}, finish), ...screeningFields(event.answer) },
    ];
  }
  /** Most chunks are: all but the delta is written once. */
  #plain(delta: Body): string {
    if (!this.#around) {
      const [before = '', after = ''] = JSON.stringify(this.#chunk({})).split('"delta":{}');
      this.#around = [`${before}"delta":`, after];
    }
    return this.#around[0] + JSON.stringify(delta) + this.#around[1];
  }
  #chunk(delta: Body, finish: FinishReason | null = null, tokens: readonly TokenInfo[] | null = null): Body {
    const logprobs = tokens && tokens.length > 0 ? choiceLogprobsOf(tokens) : null;
    const chunk = chunkBase(this.head);
    chunk.choices = [{ index: this.index, delta, logprobs, finish_reason: finish }];
    return chunk;
  }
  #delta(part: PartHead, text: string): Body {
    if (part.kind === 'call') return { tool_calls: [this.#call({ ...part, text })] };
    const last = this.#last.get(part.kind);
    this.#last.set(part.kind, part.index);
    const apart = last !== undefined && last !== part.index ? `\n${text}` : text;
    return part.kind === 'reasoning' ? reasoningFields(apart) : { content: apart };
  }
  #call(part: Part): Body {
    const known = this.#calls.get(part.index);
    if (known !== undefined) return { index: known, function: { arguments: part.text } };
    const index = this.#calls.size;
    this.#calls.set(part.index, index);
    return { index, ...callOf(this.head, part, this.index) };
  }
}

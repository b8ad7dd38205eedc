// What is released of a turn in the shape of chat completions: whole, or as chunks of a stream.
import type { DoneEvent } from '../infer/protocol.js';
import type { Answer, FinishReason, Released } from './generation.js';
import type { Part, PartHead, PartKind } from './parts.js';

export interface Head {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
}
type Body = Record<string, unknown>;

/** Of one call: the id of the answer and the place of its message, so that a stream and its whole agree. */
const callId = ({ id }: Head, { index }: PartHead): string =>
  `call_${id.replace(/^chatcmpl-/, '').slice(0, 24)}${index}`;

const usageOf = (usage: DoneEvent['usage']): Body => ({
  prompt_tokens: usage.promptTokens,
  completion_tokens: usage.completionTokens,
  total_tokens: usage.promptTokens + usage.completionTokens,
  prompt_tokens_details: { cached_tokens: usage.cachedTokens },
  completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
});
const callOf = (head: Head, part: Part): Body => ({
  id: callId(head, part),
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

export function completionBody(head: Head, answer: Answer): Body {
  const { parts, refusal, finish, usage } = answer;
  const reasoning = textOf(parts, 'reasoning');
  const calls = parts.filter((p) => p.kind === 'call').map((p) => callOf(head, p));
  const message = {
    role: 'assistant',
    content: textOf(parts, 'content') || null,
    refusal,
    ...(reasoning === '' ? {} : reasoningFields(reasoning)),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  };
  return {
    id: head.id,
    object: 'chat.completion',
    created: head.created,
    model: head.model,
    choices: [{ index: 0, message, logprobs: null, finish_reason: finish }],
    usage: usageOf(usage),
    ...screeningFields(answer),
  };
}

const chunk = (head: Head, delta: Body, finish: FinishReason | null = null): Body => ({
  id: head.id,
  object: 'chat.completion.chunk',
  created: head.created,
  model: head.model,
  choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
});

/** Chunks of one answer; joined, they are what `completionBody` says of the whole. */
export class Chunks {
  readonly #calls = new Map<number, number>();
  readonly #last = new Map<PartKind, number>();
  constructor(
    readonly head: Head,
    /** A last chunk tells the tokens of the whole. */
    readonly usage: boolean,
  ) {}

  of(event: Released): readonly Body[] {
    if (event.kind === 'begin') return [chunk(this.head, { role: 'assistant', content: '' })];
    if (event.kind === 'piece') return [chunk(this.head, this.#delta(event.part, event.text))];
    if (event.kind === 'sealed') return []; // has no place in this form, and is not asked for
    const { refusal, finish, usage } = event.answer;
    return [
      ...(refusal === null ? [] : [chunk(this.head, { refusal })]),
      { ...chunk(this.head, {}, finish), ...screeningFields(event.answer) },
      ...(this.usage ? [{ ...chunk(this.head, {}), choices: [], usage: usageOf(usage) }] : []),
    ];
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
    return { index, ...callOf(this.head, part) };
  }
}

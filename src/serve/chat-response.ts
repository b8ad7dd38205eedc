// What a turn is in OpenAI's shape: whole, or as chunks of a stream.
import type { Message } from '../harmony/types.js';
import type { DoneEvent, TextEvent } from '../infer/protocol.js';

export interface Head {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
}
export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter';
export interface ToolCall {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; readonly arguments: string };
}

/** `functions.get_weather` is called get_weather abroad. */
export const toolName = (recipient: string): string => recipient.replace(/^functions\./, '');
/** Of one call: the id of the answer and the place of its message, so that a stream and its whole agree. */
const callId = ({ id }: Head, message: number): string => `call_${id.replace(/^chatcmpl-/, '').slice(0, 24)}${message}`;

export const usageOf = ({ usage }: DoneEvent): Record<string, unknown> => ({
  prompt_tokens: usage.promptTokens,
  completion_tokens: usage.completionTokens,
  total_tokens: usage.promptTokens + usage.completionTokens,
  completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
});

/** Why it ended, as a client needs to know it. */
export const finishOf = ({ finish }: DoneEvent): FinishReason => (finish === 'call' ? 'tool_calls' : finish);

/** What a client sees of a message: thoughts, what is said, or a call. Other roles' messages are nobody's to see. */
type Kind = 'reasoning' | 'content' | 'call';
const kindOf = (m: { readonly channel?: string; readonly recipient?: string | null }): Kind =>
  m.recipient !== undefined && m.recipient !== null ? 'call' : m.channel === 'analysis' ? 'reasoning' : 'content';

export interface Parts {
  readonly reasoning: string;
  readonly content: string;
  readonly calls: readonly ToolCall[];
}
/** Messages of one kind each begin on a line of their own. */
export function partsOf(head: Head, messages: readonly Message[]): Parts {
  const of = (kind: Kind): readonly string[] =>
    messages.filter((m) => m.role === 'assistant' && kindOf(m) === kind && m.content !== '').map((m) => m.content);
  return {
    reasoning: of('reasoning').join('\n'),
    content: of('content').join('\n'),
    calls: messages.flatMap((m, i): ToolCall[] =>
      m.role === 'assistant' && m.recipient !== undefined
        ? [{ id: callId(head, i), type: 'function', function: { name: toolName(m.recipient), arguments: m.content } }]
        : [],
    ),
  };
}

export interface Whole {
  readonly parts: Parts;
  /** In place of what was withheld. */
  readonly refusal: string | null;
  readonly finish: FinishReason;
}
const message = ({ parts, refusal }: Whole): Record<string, unknown> => ({
  role: 'assistant',
  content: parts.content === '' ? null : parts.content,
  refusal,
  ...(parts.reasoning === '' ? {} : { reasoning: parts.reasoning, reasoning_content: parts.reasoning }),
  ...(parts.calls.length > 0 ? { tool_calls: parts.calls } : {}),
});

export const completionBody = (
  head: Head,
  whole: Whole,
  usage: Record<string, unknown>,
  more: Record<string, unknown>,
): Record<string, unknown> => ({
  id: head.id,
  object: 'chat.completion',
  created: head.created,
  model: head.model,
  choices: [{ index: 0, message: message(whole), logprobs: null, finish_reason: whole.finish }],
  usage,
  ...more,
});

const chunk = (
  head: Head,
  delta: Record<string, unknown>,
  finish: FinishReason | null = null,
): Record<string, unknown> => ({
  id: head.id,
  object: 'chat.completion.chunk',
  created: head.created,
  model: head.model,
  choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
});
export const firstChunk = (head: Head): Record<string, unknown> => chunk(head, { role: 'assistant', content: '' });
export const lastChunk = (
  head: Head,
  finish: FinishReason,
  more: Record<string, unknown>,
): Record<string, unknown> => ({
  ...chunk(head, {}, finish),
  ...more,
});
export const usageChunk = (head: Head, usage: Record<string, unknown>): Record<string, unknown> => ({
  id: head.id,
  object: 'chat.completion.chunk',
  created: head.created,
  model: head.model,
  choices: [],
  usage,
});

/** Makes chunks of text as it comes. Joined, they are what `partsOf` says of the whole. */
export class Deltas {
  readonly #calls = new Map<number, number>();
  readonly #last = new Map<Kind, number>();
  constructor(readonly head: Head) {}

  chunk(event: TextEvent): Record<string, unknown> {
    const kind = kindOf(event);
    if (kind === 'call') return chunk(this.head, { tool_calls: [this.#call(event)] });
    const last = this.#last.get(kind);
    this.#last.set(kind, event.message);
    const text = last !== undefined && last !== event.message ? `\n${event.text}` : event.text;
    return chunk(this.head, kind === 'reasoning' ? { reasoning: text, reasoning_content: text } : { content: text });
  }
  #call({ message: at, recipient, text }: TextEvent): Record<string, unknown> {
    const known = this.#calls.get(at);
    if (known !== undefined) return { index: known, function: { arguments: text } };
    const index = this.#calls.size;
    this.#calls.set(at, index);
    return {
      index,
      id: callId(this.head, at),
      type: 'function',
      function: { name: toolName(recipient ?? ''), arguments: text },
    };
  }
  /** A call without arguments has no text: it is told at the end. */
  rest(parts: Parts): readonly Record<string, unknown>[] {
    return parts.calls
      .slice(this.#calls.size)
      .map((call, i) => chunk(this.head, { tool_calls: [{ index: this.#calls.size + i, ...call }] }));
  }
}
/** A whole as chunks, for what is given out after its verdicts. */
export function wholeChunks(head: Head, { parts, refusal }: Whole): readonly Record<string, unknown>[] {
  return [
    ...(parts.reasoning === '' ? [] : [{ reasoning: parts.reasoning, reasoning_content: parts.reasoning }]),
    ...(parts.content === '' ? [] : [{ content: parts.content }]),
    ...parts.calls.map((call, index) => ({ tool_calls: [{ index, ...call }] })),
    ...(refusal === null ? [] : [{ refusal }]),
  ].map((delta) => chunk(head, delta));
}

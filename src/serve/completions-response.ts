// What is released of a text that is gone on with, as `text_completion` objects.
import { randomUUID } from 'node:crypto';
import type { DoneEvent, TokenInfo } from '../infer/protocol.js';
import { tokenText, weightOf } from './chat-response.js';
import type { Answer, FinishReason } from './generation.js';
import { LazyList, LONG, listOf } from './json-pieces.js';

type Body = Record<string, unknown>;
export interface Head {
  readonly id: string;
  readonly object: 'text_completion';
  readonly created: number;
  readonly model: string;
}
export const newHead = (model: string): Head => ({
  id: `cmpl-${randomUUID().replaceAll('-', '')}`,
  object: 'text_completion',
  created: Math.floor(Date.now() / 1000),
  model,
});

/** Log-probabilities as this form has had them from of old; offsets go on from `from`, in UTF-16 units. */
function logprobsOf(tokens: readonly TokenInfo[], from: number): Body {
  // The first token of a prompt has none.
  const known = (t: TokenInfo): boolean => !Number.isNaN(t.logprob);
  const offsets = function* (): Generator<number> {
    let at = from;
    for (const t of tokens) {
      yield at;
      at += tokenText(t.bytes).length;
    }
  };
  return {
    tokens: listOf(tokens, (t) => tokenText(t.bytes)),
    token_logprobs: listOf(tokens, (t) => (known(t) ? t.logprob : null)),
    top_logprobs: listOf(
      tokens,
      (t) => (known(t) ? Object.fromEntries(t.top.map((o) => [tokenText(o.bytes), o.logprob])) : null),
      weightOf(tokens),
    ),
    text_offset: tokens.length > LONG ? new LazyList(offsets) : [...offsets()],
  };
}

/** Thoughts have no place in this form, nor have calls. */
export const finishOf = ({ finish }: Answer): FinishReason => (finish === 'tool_calls' ? 'stop' : finish);
export const textOf = ({ parts }: Answer): string =>
  parts
    .filter((p) => p.kind === 'content')
    .map((p) => p.text)
    .join('');
export const screeningFields = ({ screening }: Answer): Body => (screening ? { temper: screening } : {});

/** The choices of one answer, whole or in pieces. */
export class Choices {
  #told = 0;
  constructor(
    readonly index: number,
    readonly logprobs: boolean,
  ) {}
  of(text: string, finish: FinishReason | null, tokens: readonly TokenInfo[] = []): Body {
    const logprobs = this.logprobs && tokens.length > 0 ? logprobsOf(tokens, this.#told) : null;
    this.#told += text.length;
    return { index: this.index, text, logprobs, finish_reason: finish };
  }
}

/** @param prompts tokens of each prompt, by one of its answers */
export function usageOf(prompts: readonly DoneEvent['usage'][], answers: readonly DoneEvent['usage'][]): Body {
  const sum = (
    of: readonly DoneEvent['usage'][],
    key: 'promptTokens' | 'cachedTokens' | 'completionTokens' | 'reasoningTokens',
  ) => of.reduce((n, u) => n + u[key], 0);
  const [prompt, completion] = [sum(prompts, 'promptTokens'), sum(answers, 'completionTokens')];
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum(prompts, 'cachedTokens') },
    completion_tokens_details: { reasoning_tokens: sum(answers, 'reasoningTokens') },
  };
}

/** Mean log-probability of what is said; an answer without tokens is the last to be given. */
export const likelihoodOf = ({ tokens }: Answer): number =>
  tokens.length === 0 ? -Infinity : tokens.reduce((sum, t) => sum + t.logprob, 0) / tokens.length;

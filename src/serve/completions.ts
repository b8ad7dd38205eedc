// POST /v1/completions: goes on with a text, or with tokens.
import { randomUUID } from 'node:crypto';
import type { DoneEvent, TokenInfo } from '../infer/protocol.js';
import type { Api, ApiService } from './api.js';
import { asApiError, errorBody } from './api-error.js';
import { tokenText } from './chat-response.js';
import { CompletionBody, type CompletionRequest } from './completions-request.js';
import { type Answer, answer, type FinishReason, generate } from './generation.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

const fields = { prompt: 'prompt', maxTokens: 'max_tokens', answer: 'prompt' };

/** Log-probabilities as this form has had them from of old; offsets go on from `from`, in UTF-16 units. */
function logprobsOf(tokens: readonly TokenInfo[], from: number): Record<string, unknown> {
  const texts = tokens.map((t) => tokenText(t.bytes));
  let at = from;
  return {
    tokens: texts,
    token_logprobs: tokens.map((t) => t.logprob),
    top_logprobs: tokens.map((t) => Object.fromEntries(t.top.map((o) => [tokenText(o.bytes), o.logprob]))),
    text_offset: texts.map((text) => {
      at += text.length;
      return at - text.length;
    }),
  };
}

const usageOf = (usage: DoneEvent['usage']): Record<string, unknown> => ({
  prompt_tokens: usage.promptTokens,
  completion_tokens: usage.completionTokens,
  total_tokens: usage.promptTokens + usage.completionTokens,
  completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
});
/** Thoughts have no place in this form, nor have calls. */
const finishOf = ({ finish }: Answer): FinishReason => (finish === 'tool_calls' ? 'stop' : finish);

/** Bodies of one answer: `text_completion` objects, whole or in pieces. */
function bodies(model: string) {
  const head = {
    id: `cmpl-${randomUUID().replaceAll('-', '')}`,
    object: 'text_completion',
    created: Math.floor(Date.now() / 1000),
    model,
  };
  let told = 0;
  return (
    text: string,
    finish: FinishReason | null,
    more: Record<string, unknown> = {},
    tokens: readonly TokenInfo[] = [],
  ): Record<string, unknown> => {
    const logprobs = tokens.length === 0 ? null : logprobsOf(tokens, told);
    told += text.length;
    return { ...head, choices: [{ index: 0, text, logprobs, finish_reason: finish }], ...more };
  };
}
const screeningFields = ({ screening }: Answer): Record<string, unknown> => (screening ? { temper: screening } : {});

async function* stream(
  service: ApiService,
  request: CompletionRequest,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, void> {
  const body = bodies(request.model);
  for await (const event of generate(service, request, signal)) {
    // Nothing to say, but that it has begun: its status leaves with it.
    if (event.kind === 'begin') yield { data: body('', null) };
    else if (event.kind === 'piece' && event.part.kind === 'content')
      yield { data: body(event.text, null, {}, event.tokens) };
    else if (event.kind === 'end') {
      yield { data: body('', finishOf(event.answer), screeningFields(event.answer)) };
      if (request.streamUsage) yield { data: { ...body('', null), choices: [], usage: usageOf(event.answer.usage) } };
    }
  }
  yield { data: '[DONE]' };
}

export const completions: Api = {
  operations: [
    {
      method: 'post',
      path: '/v1/completions',
      summary: 'Goes on with a text or with tokens.',
      body: CompletionBody,
      streams: true,
    },
  ],
  fields,
  register(app, serviceOf) {
    app.post('/v1/completions', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'completions');
      const stop = stopWith(c);
      if (request.stream) {
        const failed = (e: unknown): ServerEvent => ({ data: errorBody(asApiError(e, service.log, fields)) });
        return eventStream(c, stream(service, request, stop.signal), stop, failed);
      }
      const whole = await answer(service, request, stop.signal);
      const text = whole.parts
        .filter((p) => p.kind === 'content')
        .map((p) => p.text)
        .join('');
      const more = { usage: usageOf(whole.usage), ...screeningFields(whole) };
      return c.json(bodies(request.model)(text, finishOf(whole), more, whole.tokens));
    });
  },
};

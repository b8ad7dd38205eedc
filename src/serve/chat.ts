// POST /v1/chat/completions.
import { randomUUID } from 'node:crypto';
import type { Api, ApiService } from './api.js';
import { asApiError, errorBody } from './api-error.js';
import { ChatBody, type ChatRequest } from './chat-request.js';
import { Chunks, completionBody, type Head, usageChunk } from './chat-response.js';
import { type Answer, answer, generate } from './generation.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

const newHead = (model: string): Head => ({
  id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
  created: Math.floor(Date.now() / 1000),
  model,
});
const fields = { prompt: 'messages', maxTokens: 'max_completion_tokens', answer: 'response_format' };

/** Answers begin with seeds of their own; the first has the request's. */
const choices = (request: ChatRequest): readonly ChatRequest[] =>
  Array.from({ length: request.n }, (_, i) => {
    const { sampling = {} } = request.request;
    const seed = ((sampling.seed ?? 0) + i * SEED_STEP) % Number.MAX_SAFE_INTEGER;
    return i === 0 ? request : { ...request, request: { ...request.request, sampling: { ...sampling, seed } } };
  });
const SEED_STEP = 0x9e3779b97f5;

async function answers(service: ApiService, request: ChatRequest, stop: AbortController): Promise<readonly Answer[]> {
  try {
    return await Promise.all(choices(request).map((r) => answer(service, r, stop.signal)));
  } catch (e) {
    // One that failed takes the others with it.
    stop.abort(e);
    throw e;
  }
}

async function* stream(
  service: ApiService,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, void> {
  const head = newHead(request.model);
  const of = choices(request).map((r, i) => ({ chunks: new Chunks(head, i), events: generate(service, r, signal) }));
  const ended: Answer[] = [];
  for await (const { from, value } of merged(of.map((o) => o.events))) {
    if (value.kind === 'end') ended[from] = value.answer;
    for (const data of of[from]?.chunks.of(value) ?? []) yield { data };
  }
  if (request.streamUsage) yield { data: usageChunk(head, ended) };
  yield { data: '[DONE]' };
}

/** What several give, as it comes; leaving the loop, or one that fails, ends all. */
async function* merged<T>(
  all: readonly AsyncGenerator<T, void, void>[],
): AsyncGenerator<{ readonly from: number; readonly value: T }, void, void> {
  if (all.length === 1 && all[0]) {
    for await (const value of all[0]) yield { from: 0, value };
    return;
  }
  const next = (from: number): Promise<{ readonly from: number; readonly got: IteratorResult<T, void> }> => {
    const asked = (all[from] as AsyncGenerator<T, void, void>).next().then((got) => ({ from, got }));
    // It may fail while nobody waits, as this loop stands at its `yield`: that is told by the next race.
    asked.catch(() => {});
    return asked;
  };
  const open = new Map(all.map((_, i) => [i, next(i)]));
  try {
    while (open.size > 0) {
      const { from, got } = await Promise.race(open.values());
      if (got.done) open.delete(from);
      else {
        open.set(from, next(from));
        yield { from, value: got.value };
      }
    }
  } finally {
    for (const g of all) void g.return().catch(() => {});
  }
}

export const chat: Api = {
  operations: [
    {
      method: 'post',
      path: '/v1/chat/completions',
      summary: 'Answers a conversation.',
      body: ChatBody,
      streams: true,
    },
  ],
  fields,
  register(app, serviceOf) {
    app.post('/v1/chat/completions', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'chat');
      const stop = stopWith(c);
      if (!request.stream)
        return c.json(
          completionBody(
            newHead(request.model),
            await answers(service, request, stop),
            request.request.topLogprobs !== undefined,
          ),
        );
      const failed = (e: unknown): ServerEvent => ({ data: errorBody(asApiError(e, service.log, fields)) });
      return eventStream(c, stream(service, request, stop.signal), stop, failed);
    });
  },
};

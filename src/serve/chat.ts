// /v1/chat/completions. What of it is kept is asked for again in stored-chats.ts.
import { randomUUID } from 'node:crypto';
import type { Api, ApiService } from './api.js';
import { asApiError, errorBody } from './api-error.js';
import { ChatBody, type ChatRequest, UNSUPPORTED } from './chat-request.js';
import { Chunks, completionBody, type Head, usageChunk } from './chat-response.js';
import { merged, withSeed } from './choices.js';
import { type Answer, type Generation, generate } from './generation.js';
import { answerJson, type JsonBytes, jsonOf } from './json-pieces.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';
import { registerStoredChats, storedChatOperations } from './stored-chats.js';

const newHead = ({ model, request, streamUsage }: ChatRequest): Head => ({
  id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
  created: Math.floor(Date.now() / 1000),
  model,
  predicted: request.prediction !== undefined,
  tellsUsage: streamUsage,
});
const fields = { prompt: 'messages', maxTokens: 'max_completion_tokens', answer: 'response_format' };

const choices = ({ model, request, tools = [], wish, n }: ChatRequest, { id }: Head): readonly Generation[] =>
  Array.from({ length: n }, (_, choice) => ({
    model,
    request: withSeed(request, choice),
    tools,
    id,
    choice,
    ...(wish ? { wish } : {}),
  }));

async function answers(
  service: ApiService,
  request: ChatRequest,
  head: Head,
  stop: AbortController,
): Promise<readonly Answer[]> {
  const ended: Answer[] = [];
  try {
    const all = choices(request, head).map((r) => generate(service, r, stop.signal, true));
    for await (const { from, value } of merged(all, service.admission.slots))
      if (value.kind === 'end') ended[from] = value.answer;
    return ended;
  } catch (e) {
    // One that failed takes the others with it.
    stop.abort(e);
    throw e;
  }
}

/** Keeps an answer that was to be stored, before its end is told. @throws what keeping refuses */
async function keep(
  service: ApiService,
  { keeps }: ChatRequest,
  owner: string | null,
  { id, model }: Head,
  completion: JsonBytes,
): Promise<void> {
  if (!keeps) return;
  const { metadata } = keeps,
    messages = await jsonOf(keeps.messages);
  await service.responses.put({ id, owner, model, completion, metadata, messages });
}

async function* stream(
  service: ApiService,
  request: ChatRequest,
  owner: string | null,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, void> {
  const head = newHead(request);
  const of = choices(request, head).map((r, i) => ({
    chunks: new Chunks(head, i),
    events: generate(service, r, signal),
  }));
  const ended: Answer[] = [];
  for await (const { from, value } of merged(
    of.map((o) => o.events),
    service.admission.slots,
  )) {
    if (value.kind === 'end') ended[from] = value.answer;
    for (const data of of[from]?.chunks.of(value) ?? []) yield { data };
  }
  const told = request.request.topLogprobs !== undefined;
  if (request.keeps) await keep(service, request, owner, head, await jsonOf(completionBody(head, ended, told)));
  if (request.streamUsage) yield { data: usageChunk(head, ended) };
  yield { data: '[DONE]' };
}

export const chat: Api = {
  shapes: () => import('./wire-chat.js'),
  operations: [
    {
      method: 'post',
      path: '/v1/chat/completions',
      summary: 'Answers a conversation.',
      body: ChatBody,
      beside: UNSUPPORTED,
      answer: 'ChatShape',
      event: { data: 'ChatChunkShape', done: true },
    },
    ...storedChatOperations,
  ],
  fields,
  register(app, serviceOf) {
    app.post('/v1/chat/completions', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'chat');
      const stop = stopWith(c);
      if (!request.stream) {
        const head = newHead(request);
        const all = await answers(service, request, head, stop);
        const body = await jsonOf(completionBody(head, all, request.request.topLogprobs !== undefined));
        await keep(service, request, c.get('key'), head, body);
        return answerJson(c, body);
      }
      const failed = (e: unknown): ServerEvent => ({ data: errorBody(asApiError(e, service.log, fields)) });
      return eventStream(c, stream(service, request, c.get('key'), stop.signal), stop, failed);
    });
    registerStoredChats(app, serviceOf);
  },
};

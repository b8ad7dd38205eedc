// POST /v1/chat/completions.
import { randomUUID } from 'node:crypto';
import type { Api, ApiService } from './api.js';
import { asApiError, errorBody } from './api-error.js';
import { ChatBody, type ChatRequest, readChatRequest } from './chat-request.js';
import { Chunks, completionBody, type Head } from './chat-response.js';
import { answer, generate } from './generation.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

const newHead = (model: string): Head => ({
  id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
  created: Math.floor(Date.now() / 1000),
  model,
});
const fields = { prompt: 'messages', maxTokens: 'max_completion_tokens' };

async function* stream(
  service: ApiService,
  request: ChatRequest,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, void> {
  const chunks = new Chunks(newHead(request.model), request.streamUsage);
  for await (const event of generate(service, request, signal)) for (const data of chunks.of(event)) yield { data };
  yield { data: '[DONE]' };
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
      const request = readChatRequest(await service.body(c), service.maxTokens);
      const stop = stopWith(c);
      if (!request.stream)
        return c.json(completionBody(newHead(request.model), await answer(service, request, stop.signal)));
      const failed = (e: unknown): ServerEvent => ({ data: errorBody(asApiError(e, service.log, fields)) });
      return eventStream(stream(service, request, stop.signal), stop, failed);
    });
  },
};

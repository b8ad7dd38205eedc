// POST /v1/messages: the conversation in Anthropic's shape, with its errors.
import { randomUUID } from 'node:crypto';
import { anthropicError } from './anthropic.js';
import type { Api, ApiService } from './api.js';
import { asApiError } from './api-error.js';
import { generate } from './generation.js';
import { answerJson } from './json-pieces.js';
import { CountBody, MessagesBody, type MessagesRequest, UNSUPPORTED } from './messages-request.js';
import { MessageWriter } from './messages-response.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

const fields = { prompt: 'messages', maxTokens: 'max_tokens', answer: 'output_config.format' };

const writerOf = ({ model, thinking }: MessagesRequest): MessageWriter =>
  new MessageWriter(`msg_${randomUUID().replaceAll('-', '')}`, model, thinking);

async function* stream(
  service: ApiService,
  request: MessagesRequest,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent, void, void> {
  const writer = writerOf(request);
  for await (const released of generate(service, { ...request, id: writer.id }, signal))
    for (const event of writer.of(released)) yield { event: event.type, data: event };
}

export const messages: Api = {
  shapes: () => import('./wire-messages.js'),
  operations: [
    {
      method: 'post',
      path: '/v1/messages',
      summary: "Answers a conversation, in Anthropic's shape.",
      body: MessagesBody,
      beside: UNSUPPORTED,
      answer: 'MessageShape',
      event: { data: 'MessageEventShape', named: true },
    },
    {
      method: 'post',
      path: '/v1/messages/count_tokens',
      summary: 'Tokens that a conversation is read as.',
      body: CountBody,
      beside: UNSUPPORTED,
      answer: 'CountShape',
    },
  ],
  fields,
  errorBody: anthropicError,
  errorShape: 'MessageErrorShape',
  register(app, serviceOf) {
    app.post('/v1/messages', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'messages');
      const stop = stopWith(c);
      if (request.stream) {
        const failed = (e: unknown): ServerEvent => ({
          event: 'error',
          data: anthropicError(asApiError(e, service.log, fields), c),
        });
        return eventStream(c, stream(service, request, stop.signal), stop, failed);
      }
      const writer = writerOf(request);
      for await (const released of generate(service, { ...request, id: writer.id }, stop.signal, true)) {
        if (released.kind === 'end' && released.answer.refusal !== null) writer.clear();
        writer.of(released);
      }
      return answerJson(c, writer.message);
    });
    app.post('/v1/messages/count_tokens', async (c) => {
      const service = serviceOf(c);
      const { model, messages } = await service.read(c, 'count');
      service.served.find(model);
      service.countRequest();
      return c.json({ input_tokens: await service.served.engine.count(messages, stopWith(c).signal) });
    });
  },
};

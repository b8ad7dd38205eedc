// /v1/responses: answers that are kept, so that the next request can go on from them.
import { z } from 'zod';
import type { Api, ApiRequest, ApiService } from './api.js';
import { ApiError, asApiError, badRequest, errorBody } from './api-error.js';
import { answerJson } from './json-pieces.js';
import { pageOfList, pageQuery } from './pages.js';
import { parseQuery } from './request-fields.js';
import type { StoredResponse } from './response-store.js';
import { Jobs } from './responses-jobs.js';
import { INCLUDABLE, ResponsesBody, UNSUPPORTED } from './responses-request.js';
import type { ResponseEvent } from './responses-response.js';
import { fields, isUnfinished, Turn } from './responses-turn.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

type Found = Pick<StoredResponse, 'id' | 'input'> & { readonly response: Readonly<Record<string, unknown>> };

/** One that is made in the background, or one that is kept. @throws {ApiError} 404 */
async function find(service: ApiService, jobs: Jobs, c: ApiRequest): Promise<Found> {
  const id = c.req.param('id') ?? '';
  const job = jobs.find(id, c.get('key'));
  if (job && !job.over) return { id, input: job.turn.input, response: job.response };
  const found = await service.responses.get(id, c.get('key'));
  if (found && isUnfinished(found)) {
    const elsewhere = service.responses.shared !== undefined && !isOld(found.response);
    return { ...found, response: job ? job.response : elsewhere ? found.response : lostOf(found.response) };
  }
  if (found) return found;
  const named = JSON.stringify(id.slice(0, 100));
  throw new ApiError(404, 'invalid_request_error', 'not_found', `the response ${named} is not kept here`, 'id');
}

/** Of one that another server has taken on: longer none takes, s. */
const LONGEST = 3600;
const isOld = ({ created_at: since }: Found['response']): boolean => Number(since) + LONGEST < Date.now() / 1000;
/** One that a server took on, which ended before it was made. */
const lostOf = (response: Found['response']): Found['response'] => ({
  ...response,
  status: 'failed',
  error: { code: 'server_error', message: 'the server ended before the response was made; ask again' },
});

/** One that another server makes ends by way of the store; one that has ended stays as it is. */
async function cancelled(
  { responses }: ApiService,
  id: string,
  owner: string | null,
  response: Found['response'],
): Promise<Found['response']> {
  if (!isUnfinished({ response })) return response;
  const kept = await responses.get(id, owner);
  if (!kept || !isUnfinished(kept)) return kept?.response ?? response;
  const ended = { ...kept, response: { ...kept.response, status: 'cancelled' } };
  if (await responses.shared?.exchange(kept, ended)) return ended.response;
  return (await responses.get(id, owner))?.response ?? response;
}

const bool = z.enum(['true', 'false']).optional();
/** Clients write it with brackets, and each by itself. */
const included = {
  'include[]': z.enum(INCLUDABLE).optional().describe('a response tells what its request asked for; read past'),
};
const getQuery = {
  ...included,
  stream: bool.describe('true: the events of a background response, from the first or from starting_after on'),
  starting_after: z
    .string()
    .regex(/^\d{1,9}$/, 'wanted the sequence_number of an event')
    .optional(),
  include_obfuscation: bool,
};
const itemsQuery = { ...included, ...pageQuery('desc') };

async function* sent(events: AsyncGenerator<ResponseEvent, void, void>): AsyncGenerator<ServerEvent, void, void> {
  for await (const event of events) yield { event: event.type, data: event };
}
function streamed(service: ApiService, c: ApiRequest, events: AsyncGenerator<ResponseEvent, void, void>) {
  return (stop = stopWith(c)): Promise<Response> =>
    eventStream(c, sent(events), stop, (e) => {
      const { message, param, code } = errorBody(asApiError(e, service.log, fields)).error as Record<string, unknown>;
      return { event: 'error', data: { type: 'error', sequence_number: 0, code, message, param } };
    });
}

const PATH = '/v1/responses/{id}';
const events = { data: 'ResponseEventShape', named: true };
export const responses: Api = {
  shapes: () => import('./wire-responses.js'),
  operations: [
    {
      method: 'post',
      path: '/v1/responses',
      summary: 'Answers input.',
      body: ResponsesBody,
      beside: UNSUPPORTED,
      answer: 'ResponseShape',
      event: events,
    },
    {
      method: 'post',
      path: '/v1/responses/input_tokens',
      summary: 'Tokens that its input is read as.',
      body: ResponsesBody,
      beside: UNSUPPORTED,
      answer: 'InputTokensShape',
    },
    {
      method: 'get',
      path: PATH,
      summary: 'A response that was kept, or is made in the background.',
      query: getQuery,
      answer: 'ResponseShape',
      event: events,
    },
    { method: 'delete', path: PATH, summary: 'Forgets it.', answer: 'DeletedShape' },
    {
      method: 'post',
      path: `${PATH}/cancel`,
      summary: 'Ends one that is made in the background.',
      answer: 'ResponseShape',
    },
    {
      method: 'get',
      path: `${PATH}/input_items`,
      summary: 'What its request brought.',
      query: itemsQuery,
      answer: 'InputItemsShape',
    },
  ],
  fields,
  register(app, serviceOf) {
    const jobs = new Jobs();
    app.post('/v1/responses', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'responses');
      service.admission.check();
      const stop = stopWith(c);
      const turn = await Turn.begin(service, request, c.get('key'), stop.signal);
      if (!request.background)
        return request.stream
          ? streamed(service, c, turn.events(stop.signal))(stop)
          : answerJson(c, await turn.whole(stop.signal));
      service.served.find(request.model);
      const job = jobs.start(turn);
      await job.kept;
      // Whoever watches may leave: it goes on.
      return request.stream ? streamed(service, c, job.events(-1))() : answerJson(c, job.response);
    });
    app.post('/v1/responses/input_tokens', async (c) => {
      const service = serviceOf(c);
      const request = await service.read(c, 'responses');
      service.served.find(request.model);
      service.countRequest();
      const { signal } = stopWith(c);
      const { generation } = await Turn.begin(service, request, c.get('key'), signal);
      const input_tokens = await service.served.engine.count(generation.request.messages, signal);
      return c.json({ object: 'response.input_tokens', input_tokens });
    });
    app.get('/v1/responses/:id', async (c) => {
      const service = serviceOf(c);
      const { stream, starting_after: after } = parseQuery(c.req.query(), getQuery);
      if (after !== undefined && stream !== 'true')
        throw badRequest('invalid_value', 'starting_after: wanted stream=true too', 'starting_after');
      const found = await find(service, jobs, c);
      // Of a stream there is no head without its events.
      if (stream !== 'true' || c.req.method === 'HEAD') return answerJson(c, found.response);
      const job = jobs.find(found.id, c.get('key'));
      if (!job)
        throw badRequest(
          'unsupported_parameter',
          'stream: only a response that is made in the background, or was lately, can be watched',
          'stream',
        );
      return streamed(service, c, job.events(Number(after ?? -1)))();
    });
    app.delete('/v1/responses/:id', async (c) => {
      const service = serviceOf(c);
      const { id } = await find(service, jobs, c);
      await jobs.forget(id, c.get('key'));
      await service.responses.delete(id, c.get('key'));
      return c.json({ id, object: 'response', deleted: true });
    });
    app.post('/v1/responses/:id/cancel', async (c) => {
      const service = serviceOf(c);
      const { id, response } = await find(service, jobs, c);
      if (response.background !== true)
        throw badRequest('invalid_value', 'id: only a response that is made in the background can be cancelled', 'id');
      const job = jobs.find(id, c.get('key'));
      await job?.cancel();
      return answerJson(c, job ? job.response : await cancelled(service, id, c.get('key'), response));
    });
    app.get('/v1/responses/:id/input_items', async (c) => {
      const query = parseQuery(c.req.query(), itemsQuery);
      const { input } = await find(serviceOf(c), jobs, c);
      return answerJson(c, pageOfList(input, query, 'desc', 'item'));
    });
  },
};

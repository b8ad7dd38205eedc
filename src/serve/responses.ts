// /v1/responses: answers that are kept, so that the next request can go on from them.
import { randomUUID } from 'node:crypto';
import type { Api, ApiRequest, ApiService } from './api.js';
import { ApiError, asApiError, badRequest, errorBody } from './api-error.js';
import { type Answer, type Generation, generate } from './generation.js';
import type { StoredResponse } from './response-store.js';
import { type InputItem, itemsToMessages } from './responses-items.js';
import { conversationOf, generationOf, ResponsesBody, type ResponsesRequest } from './responses-request.js';
import { type ResponseEvent, ResponseWriter } from './responses-response.js';
import { eventStream, type ServerEvent, stopWith } from './sse.js';

const fields = { prompt: 'input', maxTokens: 'max_output_tokens', answer: 'text.format' };
const newId = (): string => `resp_${randomUUID().replaceAll('-', '')}`;

/** An input item as the API lists it: with an id, and content in parts. */
function listed(item: InputItem, id: string): Record<string, unknown> {
  const given = Object.fromEntries(Object.entries(item).filter(([, v]) => v !== null && v !== undefined));
  if (item.type === 'reasoning') return { summary: [], ...given, id: item.id ?? `rs_${id}` };
  if (item.type === 'function_call') return { status: 'completed', ...given, id: item.id ?? `fc_${id}` };
  if (item.type === 'function_call_output') return { status: 'completed', ...given, id: item.id ?? `fco_${id}` };
  const assistant = item.role === 'assistant';
  const content =
    typeof item.content !== 'string'
      ? item.content
      : [
          {
            type: assistant ? 'output_text' : 'input_text',
            text: item.content,
            ...(assistant ? { annotations: [] } : {}),
          },
        ];
  return { status: 'completed', ...given, id: item.id ?? `msg_${id}`, type: 'message', content };
}

/** One request: what it goes on from, what is generated, what is kept of it. */
class Turn {
  readonly writer: ResponseWriter;
  readonly generation: Generation;
  readonly #history: StoredResponse['history'];
  readonly #conversation: StoredResponse['history'];

  /** @throws {ApiError} 400 · {DataError} */
  static async begin(service: ApiService, request: ResponsesRequest, owner: string | null): Promise<Turn> {
    const { previous } = request;
    const before = previous === null ? null : await service.responses.get(previous, owner);
    if (previous !== null && !before)
      throw badRequest(
        'previous_response_not_found',
        `previous_response_id: ${JSON.stringify(previous.slice(0, 100))} is not kept here`,
        'previous_response_id',
      );
    return new Turn(service, request, owner, before?.history ?? []);
  }
  private constructor(
    readonly service: ApiService,
    readonly request: ResponsesRequest,
    readonly owner: string | null,
    history: StoredResponse['history'],
  ) {
    this.#history = history;
    this.#conversation = conversationOf(request, this.#history);
    this.generation = generationOf(request, this.#conversation, service.maxTokens);
    this.writer = new ResponseWriter(newId(), request);
  }

  async *events(signal: AbortSignal): AsyncGenerator<ResponseEvent, void, void> {
    const { writer } = this;
    let begun = false;
    try {
      for await (const event of generate(this.service, this.generation, signal)) {
        if (event.kind !== 'end') {
          begun = true;
          yield* writer.of(event);
          continue;
        }
        const closing = writer.end(event.answer);
        await this.#keep(event.answer);
        yield* closing;
        yield writer.last();
      }
    } catch (e) {
      // Before it began it has a status of its own; a client that went away is told nothing.
      if (!begun || signal.aborted) throw e;
      yield writer.failed(asApiError(e, this.service.log, fields).message);
    }
  }
  async whole(signal: AbortSignal): Promise<Record<string, unknown>> {
    for await (const event of generate(this.service, this.generation, signal)) {
      if (event.kind !== 'end') this.writer.of(event);
      else {
        // Nothing has been sent yet: what is withheld now takes with it what was released before.
        if (event.answer.refusal !== null) this.writer.clear();
        this.writer.end(event.answer);
        await this.#keep(event.answer);
      }
    }
    return this.writer.response;
  }

  async #keep(answer: Answer): Promise<void> {
    if (!this.request.store) return;
    const { writer, request, owner } = this;
    const suffix = writer.id.slice('resp_'.length);
    // A turn of which something was withheld is left out whole: it must not come back by way of the context.
    const history =
      answer.refusal !== null ? this.#history : [...this.#conversation, ...itemsToMessages(writer.kept(answer))];
    await this.service.responses.put({
      id: writer.id,
      owner,
      response: writer.response,
      input: request.input.map((item, i) => listed(item, `${suffix}i${i}`)),
      history,
    });
  }
}

/** @throws {ApiError} 404 */
async function find(service: ApiService, c: ApiRequest): Promise<StoredResponse> {
  const id = c.req.param('id') ?? '';
  const found = await service.responses.get(id, c.get('key'));
  if (found) return found;
  const named = JSON.stringify(id.slice(0, 100));
  throw new ApiError(404, 'invalid_request_error', 'not_found', `the response ${named} is not kept here`, 'id');
}

/** A page of the input items, the newest first where nothing else is asked for. @throws {ApiError} 400 */
async function inputItems(service: ApiService, c: ApiRequest): Promise<Record<string, unknown>> {
  const { input } = await find(service, c);
  const limit = Number(c.req.query('limit') ?? 20);
  if (!Number.isInteger(limit) || limit < 1 || limit > 100)
    throw badRequest('invalid_value', 'limit: wanted 1 to 100', 'limit');
  const order = c.req.query('order') ?? 'desc';
  if (order !== 'asc' && order !== 'desc') throw badRequest('invalid_value', 'order: wanted asc or desc', 'order');
  const items = order === 'asc' ? input : input.toReversed();
  const after = c.req.query('after');
  const from = after === undefined ? 0 : items.findIndex((i) => i.id === after) + 1;
  if (after !== undefined && from === 0) throw badRequest('invalid_value', 'after: names no item', 'after');
  const data = items.slice(from, from + limit);
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: from + limit < items.length,
  };
}

const named = (event: ResponseEvent): ServerEvent => ({ event: event.type, data: event });
async function* sent(events: AsyncGenerator<ResponseEvent, void, void>): AsyncGenerator<ServerEvent, void, void> {
  for await (const event of events) yield named(event);
}

const PATH = '/v1/responses/{id}';
export const responses: Api = {
  operations: [
    { method: 'post', path: '/v1/responses', summary: 'Answers input.', body: ResponsesBody, streams: true },
    { method: 'get', path: PATH, summary: 'A response that was kept.' },
    { method: 'delete', path: PATH, summary: 'Forgets it.' },
    { method: 'get', path: `${PATH}/input_items`, summary: 'What its request brought.' },
  ],
  fields,
  register(app, serviceOf) {
    app.post('/v1/responses', async (c) => {
      const service = serviceOf(c);
      const turn = await Turn.begin(service, await service.read(c, 'responses'), c.get('key'));
      const stop = stopWith(c);
      if (!turn.request.stream) return c.json(await turn.whole(stop.signal));
      const failed = (e: unknown): ServerEvent => ({
        event: 'error',
        data: { type: 'error', sequence_number: 0, ...(errorBody(asApiError(e, service.log, fields)).error as object) },
      });
      return eventStream(c, sent(turn.events(stop.signal)), stop, failed);
    });
    app.get('/v1/responses/:id', async (c) => {
      const service = serviceOf(c);
      if (c.req.query('stream') === 'true')
        throw badRequest('unsupported_parameter', 'stream: a response that is kept is given whole', 'stream');
      return c.json((await find(service, c)).response);
    });
    app.delete('/v1/responses/:id', async (c) => {
      const service = serviceOf(c);
      const { id } = await find(service, c);
      await service.responses.delete(id, c.get('key'));
      return c.json({ id, object: 'response', deleted: true });
    });
    app.get('/v1/responses/:id/input_items', async (c) => c.json(await inputItems(serviceOf(c), c)));
  },
};

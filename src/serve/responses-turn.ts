// One request of /v1/responses: what it goes on from, what is generated, what is kept of it.
import { randomUUID } from 'node:crypto';
import type { ChatMessage } from '../harmony/chat-row.js';
import type { ApiService } from './api.js';
import { asApiError, badRequest } from './api-error.js';
import { type Answer, type Generation, generate } from './generation.js';
import type { StoredResponse } from './response-store.js';
import { type InputItem, inputItem, isReference, itemsToMessages, type ReferenceItem } from './responses-items.js';
import { generationOf, MOST_HISTORY, type ResponsesRequest, tooManyMessages } from './responses-request.js';
import { type ResponseEvent, ResponseWriter } from './responses-response.js';
import { pause } from './turns.js';

export const fields = { prompt: 'input', maxTokens: 'max_output_tokens', answer: 'text.format' };
const newId = (): string => `resp_${randomUUID().replaceAll('-', '')}`;

/** It was kept before it was made, and nothing since. */
export const isUnfinished = ({ response: { status } }: Pick<StoredResponse, 'response'>): boolean =>
  status === 'queued' || status === 'in_progress';

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

/** The item that a reference names: of a response that is kept here. @throws {ApiError} 400 */
async function referred(
  service: ApiService,
  { id }: ReferenceItem,
  owner: string | null,
  at: number,
): Promise<InputItem> {
  // Items are named after their response.
  const suffix = /^[a-z]+_([0-9a-f]{32})/.exec(id)?.[1];
  const stored = suffix === undefined ? null : await service.responses.get(`resp_${suffix}`, owner);
  const output = (stored?.response.output ?? []) as readonly Readonly<Record<string, unknown>>[];
  const found = inputItem.safeParse([...output, ...(stored?.input ?? [])].find((i) => i.id === id));
  if (found.success) return found.data;
  const where = `input.${at}.id`;
  throw badRequest('item_not_found', `${where}: ${JSON.stringify(id.slice(0, 100))} is not kept here`, where);
}

/** The beginnings of turns that may be left out so that the rest fits: never the last one. */
const turnsOf = (conversation: readonly ChatMessage[]): readonly number[] =>
  conversation.flatMap((m, i) => (i > 0 && m.role === 'user' ? [i] : []));

/** The oldest turns are left out until the rest can be read. */
async function fitted(
  service: ApiService,
  request: ResponsesRequest,
  { conversation, names }: Pick<Origin, 'conversation' | 'names'>,
  signal: AbortSignal,
): Promise<readonly ChatMessage[]> {
  const { engine } = service.served;
  const fits = async (from: number): Promise<boolean> => {
    await pause();
    const asked = generationOf(request, conversation.slice(from), names, service.maxTokens),
      { messages, maxTokens = 0 } = asked.request;
    await pause(); // what goes over to the engine is copied
    return (await engine.count(messages, signal)) + Math.min(maxTokens, ROOM) <= engine.info.contextTokens;
  };
  // So many of the last turns fit; from few to more, as counting costs what is counted.
  const from = [0, ...turnsOf(conversation)].reverse();
  let [most, tooMany] = [1, from.length + 1];
  for (let n = 2; n < tooMany; n *= 2)
    if (await fits(from[n - 1]!)) most = n;
    else tooMany = n;
  while (tooMany - most > 1) {
    const middle = (most + tooMany) >> 1;
    if (await fits(from[middle - 1]!)) most = middle;
    else tooMany = middle;
  }
  return conversation.slice(from[most - 1]);
}
/** Tokens of an answer that are left room for. */
const ROOM = 1024;

/** What a request goes on from. */
interface Origin {
  readonly owner: string | null;
  readonly history: StoredResponse['history'];
  readonly conversation: StoredResponse['history'];
  /** What errors call its messages. */
  readonly names: ReadonlyMap<ChatMessage, string>;
  /** What of it the model reads. */
  readonly read: StoredResponse['history'];
  readonly items: readonly InputItem[];
}
/** The fields of the body that messages are of. @param places of those that the request brings: their items */
function namesOf(
  { body }: ResponsesRequest,
  history: readonly ChatMessage[],
  places: ReadonlyMap<ChatMessage, number>,
): ReadonlyMap<ChatMessage, string> {
  const named = (at: number): string => (typeof body.input === 'string' ? 'input' : `input.${at}`);
  return new Map([
    ...history.map((message) => [message, 'previous_response_id'] as const),
    ...[...places].map(([message, at]) => [message, named(at)] as const),
  ]);
}

const withPlace = (service: ApiService, place: Promise<() => void>): ApiService => ({
  ...service,
  admission: { ...service.admission, check: () => {}, enter: () => place },
});

export class Turn {
  readonly writer: ResponseWriter;
  readonly generation: Generation;
  #input: StoredResponse['input'] | null = null;
  /** It is not to be kept any more. */
  forgotten = false;
  /** Applied for before it is generated. */
  #place: Promise<() => void> | null = null;
  /** As it was kept before it was made. */
  #promised: StoredResponse | null = null;

  /** @throws {ApiError} 400 · {DataError} */
  static async begin(
    service: ApiService,
    request: ResponsesRequest,
    owner: string | null,
    signal: AbortSignal,
  ): Promise<Turn> {
    const { previous } = request;
    const before = previous === null ? null : await service.responses.get(previous, owner);
    const refuse = (code: string, why: string): Error =>
      badRequest(code, `previous_response_id: ${why}`, 'previous_response_id');
    if (previous !== null && !before)
      throw refuse('previous_response_not_found', `${JSON.stringify(previous.slice(0, 100))} is not kept here`);
    if (before && isUnfinished(before))
      throw refuse('previous_response_not_finished', `${JSON.stringify(before.id)} is not finished`);
    const items = await Promise.all(
      request.input.map((item, i) => (isReference(item) ? referred(service, item, owner, i) : item)),
    );
    await pause(); // to read many messages, to name them and to lay them out for the model are much, each
    const history = before?.history ?? [],
      places = new Map<ChatMessage, number>(),
      conversation = [...history, ...itemsToMessages(items, places)];
    await pause();
    const names = namesOf(request, history, places);
    if (conversation.length > MOST_HISTORY) throw tooManyMessages(conversation.length, 'previous_response_id');
    const read = request.truncates ? await fitted(service, request, { conversation, names }, signal) : conversation;
    await pause();
    return new Turn(service, request, { owner, history, conversation, names, read, items });
  }
  private constructor(
    readonly service: ApiService,
    readonly request: ResponsesRequest,
    readonly from: Origin,
  ) {
    this.writer = new ResponseWriter(newId(), request);
    this.generation = { ...generationOf(request, from.read, from.names, service.maxTokens), id: this.writer.id };
  }
  /** Items of the request, as they are listed: where somebody asks. */
  get input(): StoredResponse['input'] {
    const suffix = this.writer.id.slice('resp_'.length);
    this.#input ??= this.from.items.map((item, i) => listed(item, `${suffix}i${i}`));
    return this.#input;
  }
  get owner(): string | null {
    return this.from.owner;
  }

  /**
   * Takes its place, or one in the queue, before anybody is told that it will be made.
   * @returns how it is given back, whether it was generated or not · @throws {ApiError} 429, 503
   */
  apply(signal: AbortSignal): () => void {
    const place = this.service.admission.enter(signal);
    this.#place = place;
    const leave = (): void => void place.then((l) => l()).catch(() => {}); // where it was waited for that is told
    place.catch(() => {});
    return leave;
  }
  /** @throws what failed before anything was released; in the background: whatever failed */
  async *events(signal: AbortSignal): AsyncGenerator<ResponseEvent, void, void> {
    const { writer } = this,
      place = this.#place;
    let begun = false;
    try {
      const service = place ? withPlace(this.service, place) : this.service;
      for await (const event of generate(service, this.generation, signal)) {
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
      if (!begun || signal.aborted || this.request.background) throw e;
      yield writer.failed(asApiError(e, this.service.log, fields).message);
    }
  }
  async whole(signal: AbortSignal): Promise<Record<string, unknown>> {
    for await (const event of generate(this.service, this.generation, signal, true)) {
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
    const { history, conversation } = this.from;
    // A turn of which something was withheld is left out whole: it must not come back by way of the context.
    await this.keepAs(
      answer.finish === 'content_filter' ? history : [...conversation, ...itemsToMessages(this.writer.kept(answer))],
    );
  }
  /** Keeps the response as it stands, unless another server has ended what this one had promised. */
  async keepAs(history: StoredResponse['history'] = this.from.history): Promise<void> {
    if (!this.request.store || this.forgotten) return;
    const { writer, owner, input } = this,
      { responses } = this.service,
      { shared } = responses;
    const answer: StoredResponse = { id: writer.id, owner, response: writer.response, input, history },
      promised = this.#promised;
    this.#promised = answer;
    if (promised && shared) await shared.exchange(promised, answer);
    else await responses.put(answer);
  }
}

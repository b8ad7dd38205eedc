// Chat completions that were kept: found, listed, labelled anew, forgotten, each by the key that it was made with.
import { z } from 'zod';
import type { ApiApp, ApiRequest, ApiService, Operation } from './api.js';
import { ApiError } from './api-error.js';
import { LabelBody } from './chat-request.js';
import { answerJson, JsonBytes } from './json-pieces.js';
import { afterError, limitOf, type PageQuery, pageOf, pageOfList, pageQuery } from './pages.js';
import { parseQuery } from './request-fields.js';
import type { StoredChat } from './response-store.js';

const messagesQuery = pageQuery('asc');
const listQuery = {
  ...pageQuery('asc'),
  model: z.string().optional().describe('those that it answered'),
  metadata: z.record(z.string(), z.string()).optional().describe('those with these labels, as metadata[NAME]=VALUE'),
};

const PATH = '/v1/chat/completions/{id}';
export const storedChatOperations: readonly Operation[] = [
  {
    method: 'get',
    path: '/v1/chat/completions',
    summary: 'Chat completions that were stored.',
    query: listQuery,
    answer: 'StoredChatsShape',
  },
  { method: 'get', path: PATH, summary: 'One that was stored.', answer: 'StoredChatShape' },
  { method: 'post', path: PATH, summary: 'Labels it anew.', body: LabelBody, answer: 'StoredChatShape' },
  { method: 'delete', path: PATH, summary: 'Forgets it.', answer: 'ChatDeletedShape' },
  {
    method: 'get',
    path: `${PATH}/messages`,
    summary: 'What its request brought.',
    query: messagesQuery,
    answer: 'StoredMessagesShape',
  },
];

/** @throws {ApiError} 404 */
async function find(service: ApiService, c: ApiRequest): Promise<StoredChat> {
  const id = c.req.param('id') ?? '';
  const found = await service.responses.chat(id, c.get('key'));
  if (found) return found;
  const named = JSON.stringify(id.slice(0, 100));
  throw new ApiError(404, 'invalid_request_error', 'not_found', `the chat completion ${named} is not kept here`, 'id');
}
/** As its client got it, and its labels. */
function shown({ completion, metadata }: StoredChat): JsonBytes {
  const { pieces } = completion,
    last = pieces.at(-1)?.subarray(0, -1) ?? new Uint8Array();
  return new JsonBytes([...pieces.slice(0, -1), last, Buffer.from(`,"metadata":${JSON.stringify(metadata)}}`)]);
}
const LABEL = /^metadata\[(.{1,64})\]$/s;
/** The query of a list, its labels apart. @throws {ApiError} 400 */
function listQueryOf(c: ApiRequest): {
  readonly query: PageQuery & { readonly model?: string | undefined };
  readonly labels: [string, string][];
} {
  const given = Object.entries(c.req.query());
  const labels = given.flatMap(([name, value]): [string, string][] => {
    const label = LABEL.exec(name)?.[1];
    return label === undefined ? [] : [[label, value]];
  });
  const { metadata: _, ...plain } = listQuery;
  return { query: parseQuery(Object.fromEntries(given.filter(([name]) => !LABEL.test(name))), plain), labels };
}
/** Bytes of completions after which a page ends, however many were asked for. */
const MOST_PAGE = 4 << 20;

async function list(service: ApiService, c: ApiRequest): Promise<Record<string, unknown>> {
  const { query, labels } = listQueryOf(c),
    { after = null, model } = query;
  const owner = c.get('key'),
    limit = limitOf(query);
  if (after !== null && !(await service.responses.chat(after, owner))) throw afterError('chat completion');
  const data: JsonBytes[] = [],
    ids: string[] = [];
  let length = 0;
  for await (const chat of service.responses.chats(owner, { after, newestFirst: query.order === 'desc' })) {
    if (model !== undefined && chat.model !== model) continue;
    if (!labels.every(([k, v]) => Object.hasOwn(chat.metadata, k) && chat.metadata[k] === v)) continue;
    if (ids.length === limit || length > MOST_PAGE) return pageOf(data, ids, true);
    data.push(shown(chat));
    ids.push(chat.id);
    length += chat.completion.length;
  }
  return pageOf(data, ids, false);
}
/** @throws {ApiError} 400 */
function messagesOf({ id, messages }: StoredChat, query: PageQuery): Record<string, unknown> {
  const brought = messages.toJSON() as readonly Readonly<Record<string, unknown>>[];
  const named = brought.map((m, i) => ({ id: `${id}-${i}`, ...m }));
  return pageOfList(named, query, 'asc', 'message');
}

export function registerStoredChats(app: ApiApp, serviceOf: (c: ApiRequest) => ApiService): void {
  app.get('/v1/chat/completions', async (c) => answerJson(c, await list(serviceOf(c), c)));
  app.get('/v1/chat/completions/:id', async (c) => answerJson(c, shown(await find(serviceOf(c), c))));
  app.post('/v1/chat/completions/:id', async (c) => {
    const service = serviceOf(c),
      { metadata } = await service.read(c, 'labels');
    const relabelled = { ...(await find(service, c)), metadata };
    await service.responses.replace(relabelled);
    return answerJson(c, shown(relabelled));
  });
  app.delete('/v1/chat/completions/:id', async (c) => {
    const service = serviceOf(c),
      { id } = await find(service, c);
    await service.responses.delete(id, c.get('key'));
    return c.json({ id, object: 'chat.completion.deleted', deleted: true });
  });
  app.get('/v1/chat/completions/:id/messages', async (c) => {
    const query = parseQuery(c.req.query(), messagesQuery);
    return answerJson(c, messagesOf(await find(serviceOf(c), c), query));
  });
}

// Chat completions that are stored: the official client finds, lists, labels and forgets them, whatever they are kept
// in; each is its key's alone, bounded and for a time.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import OpenAI from 'openai';
import { afterAll, describe, expect, it } from 'vitest';
import { createDocumentStore } from '../../src/serve/response-documents.js';
import { createFileStore } from '../../src/serve/response-files.js';
import {
  createMemoryStore,
  DEFAULT_STORE,
  type ResponseStore,
  type StoreLimits,
} from '../../src/serve/response-store.js';
import { StoredChatShape, StoredChatsShape, StoredMessagesShape } from '../../src/serve/wire-chat.js';
import { createDocuments } from '../../src/store/documents.js';
import { openStore } from '../../src/store/store.js';
import { WITHOUT_SQLITE } from '../store/places.js';
import { SAYS, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';
import { ChatCompletion } from './shapes.js';

const closers: (() => void)[] = [];
afterAll(() => {
  for (const close of closers) close();
});
const keys = { find: (key: string) => (/^(ann|bob)$/.test(key) ? { name: key } : null) };
async function clients(responses: ResponseStore): Promise<{ readonly ann: OpenAI; readonly bob: OpenAI }> {
  const { app } = scriptedApp(scriptedEngine(() => tokensOf(SAYS)).engine, { responses, keys });
  const http = createAdaptorServer({ fetch: app.fetch });
  await new Promise<void>((done) => http.listen(0, '127.0.0.1', done));
  closers.push(() => http.close());
  const baseURL = `http://127.0.0.1:${(http.address() as AddressInfo).port}/v1`;
  const of = (apiKey: string): OpenAI => new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  return { ann: of('ann'), bob: of('bob') };
}
const folder = mkdtempSync(join(tmpdir(), 'chats-'));
let made = 0;
type Make = (limits?: StoreLimits, now?: () => number) => Promise<ResponseStore>;
const STORES: (readonly [string, Make])[] = [
  ['in memory', async (limits, now) => createMemoryStore(limits, now)],
  ['in files', async (limits, now) => createFileStore(join(folder, `f${made++}`), limits, now)],
  ...(WITHOUT_SQLITE === null
    ? [
        [
          'in the store',
          async (limits, now) => createDocumentStore(await openStore(join(folder, `s${made++}.db`)), limits, now),
        ] satisfies [string, Make],
      ]
    : []),
];
const ask = (text: string) => ({ model: 'm', messages: [{ role: 'user' as const, content: text }], store: true });
const ids = (list: readonly { readonly id: string }[]): readonly string[] => list.map((c) => c.id);

describe.each(STORES)('stored chat completions, %s', (_, make) => {
  it('are what the client got, whole or streamed, and are found by their own key alone', async () => {
    const { ann, bob } = await clients(await make());
    const { chat } = ann;
    const whole = await chat.completions.create({ ...ask('hi'), metadata: { topic: 'tables' } });
    ChatCompletion.parse(whole);
    const found = await chat.completions.retrieve(whole.id);
    expect(StoredChatShape.parse(found)).toEqual({ ...whole, metadata: { topic: 'tables' } });
    const stream = await chat.completions.create({ ...ask('hi'), n: 2, stream: true });
    let id = '';
    const texts = ['', ''];
    for await (const { id: of, choices } of stream) {
      id = of;
      for (const { index, delta } of choices) texts[index] += delta.content ?? '';
    }
    const streamed = await chat.completions.retrieve(id);
    expect(streamed.choices.map((c) => c.message.content)).toEqual(texts);
    expect(streamed.usage?.completion_tokens).toBe(2 * (whole.usage?.completion_tokens ?? 0));
    const theirs = bob.chat.completions;
    for (const attempt of [
      () => theirs.retrieve(id),
      () => theirs.update(id, { metadata: { a: 'b' } }),
      () => theirs.delete(id),
      () => theirs.messages.list(id),
      () => ann.responses.retrieve(id),
    ])
      await expect(attempt()).rejects.toMatchObject({ status: 404 });
    expect((await bob.chat.completions.list()).data).toEqual([]);
    const unkept = await chat.completions.create({ ...ask('hi'), store: false });
    await expect(chat.completions.retrieve(unkept.id)).rejects.toMatchObject({ status: 404 });
    expect(await chat.completions.delete(id)).toEqual({ id, object: 'chat.completion.deleted', deleted: true });
    await expect(chat.completions.retrieve(id)).rejects.toMatchObject({ status: 404 });
    const response = await ann.responses.create({ model: 'm', input: 'hi' });
    await expect(chat.completions.retrieve(response.id)).rejects.toMatchObject({ status: 404 });
    expect(ids((await chat.completions.list()).data)).toEqual([whole.id]);
  });
  it('are listed by pages, either way, by model and labels; a new label leaves one where it is', async () => {
    let now = Date.now();
    const { ann } = await clients(await make(DEFAULT_STORE, () => now++));
    const { completions } = ann.chat;
    const all: string[] = [];
    for (let i = 0; i < 5; i++)
      all.push((await completions.create({ ...ask(`${i}`), metadata: { odd: String(i % 2), [`n${i}`]: 'x' } })).id);
    const pages: string[] = [];
    for await (const completion of completions.list({ limit: 2 })) pages.push(completion.id);
    expect(pages).toEqual(all);
    const first = await completions.list({ limit: 2, order: 'desc' });
    StoredChatsShape.parse({ ...first, object: 'list', first_id: null, last_id: null });
    expect([ids(first.data), first.has_more]).toEqual([[all[4], all[3]], true]);
    const rest = await completions.list({ order: 'desc', after: all[3]! });
    expect([ids(rest.data), rest.has_more]).toEqual([[all[2], all[1], all[0]], false]);
    const of = async (metadata: Record<string, string>) => ids((await completions.list({ metadata })).data);
    expect(await of({ odd: '1' })).toEqual([all[1], all[3]]);
    expect(await of({ odd: '1', n3: 'x' })).toEqual([all[3]]);
    expect(await of({ constructor: 'x' })).toEqual([]);
    expect(await completions.update(all[1]!, { metadata: { odd: '0' } })).toMatchObject({
      id: all[1],
      metadata: { odd: '0' },
    });
    expect(await of({ odd: '0' })).toEqual([all[0], all[1], all[2], all[4]]);
    expect((await completions.list({ model: 'other' })).data).toEqual([]);
    await expect(completions.list({ after: 'chatcmpl-none' })).rejects.toMatchObject({ status: 400, param: 'after' });
    await expect(completions.list({ limit: 101 })).rejects.toMatchObject({ status: 400, param: 'limit' });
    await expect(completions.update(all[0]!, { metadata: { a: 'x'.repeat(513) } })).rejects.toMatchObject({
      status: 400,
    });
  });
  it('have the messages of their request', async () => {
    const { ann } = await clients(await make());
    const parts = [
      { type: 'text' as const, text: 'a ' },
      { type: 'text' as const, text: 'b' },
    ];
    const { id } = await ann.chat.completions.create({
      ...ask('x'),
      messages: [
        { role: 'system', content: 'Be kind.' },
        { role: 'user', content: parts },
        { role: 'assistant', content: 'Yes.' },
        { role: 'user', content: 'And?' },
      ],
    });
    const { messages } = ann.chat.completions;
    const page = await messages.list(id, { limit: 2 });
    StoredMessagesShape.parse({ ...page, object: 'list', first_id: null, last_id: null });
    expect([ids(page.data), page.has_more]).toEqual([[`${id}-0`, `${id}-1`], true]);
    expect(page.data).toMatchObject([
      { role: 'system', content: 'Be kind.', content_parts: null },
      { role: 'user', content: 'a b', content_parts: parts },
    ]);
    const rest = await messages.list(id, { order: 'desc', after: `${id}-3` });
    expect(rest.data.map((m) => m.content)).toEqual(['Yes.', 'a b', 'Be kind.']);
    await expect(messages.list(id, { after: 'none' })).rejects.toMatchObject({ status: 400, param: 'after' });
  });
  it('are bounded and expire, whatever is relabelled', async () => {
    let now = Date.now();
    const { ann } = await clients(await make({ entries: 3, bytes: 1 << 20, keepMs: 100_000 }, () => now));
    const { completions } = ann.chat;
    const all: string[] = [];
    for (let i = 0; i < 4; i++) {
      now++;
      all.push((await completions.create(ask(`${i}`))).id);
    }
    expect(ids((await completions.list()).data)).toEqual(all.slice(1));
    await completions.update(all[1]!, { metadata: { a: 'b' } });
    now++;
    all.push((await completions.create(ask('next'))).id);
    expect(ids((await completions.list()).data)).toEqual(all.slice(2));
    await completions.update(all[2]!, { metadata: { a: 'b' } });
    now += 100_000 - 2;
    expect(ids((await completions.list()).data)).toEqual(all.slice(3));
  });
});

it('files are there for the next server, in their order', async () => {
  const dir = join(folder, 'next');
  let now = Date.now() - 5000;
  const { ann } = await clients(createFileStore(dir, DEFAULT_STORE, () => (now += 10)));
  const all: string[] = [];
  for (let i = 0; i < 3; i++) all.push((await ann.chat.completions.create(ask(`${i}`))).id);
  await ann.chat.completions.update(all[0]!, { metadata: { a: 'b' } });
  const next = await clients(createFileStore(dir));
  expect(ids((await next.ann.chat.completions.list()).data)).toEqual(all);
  expect((await next.bob.chat.completions.list()).data).toEqual([]);
});

it('what lies in the folder, or the store, and is no record is not there; the others are', async () => {
  const dir = join(folder, 'odd'),
    nameOf = (i: number): string => `chatcmpl-${String(i).padStart(32, '0')}`;
  const { ann } = await clients(createFileStore(dir));
  const { id } = await ann.chat.completions.create(ask('hi'));
  const record = readFileSync(join(dir, `${id}.json`), 'utf8');
  const odd = [
    'null',
    '{}',
    JSON.stringify({ id: nameOf(2), owner: 'ann', model: 'm', completion: '{}', metadata: {}, messages: [] }),
    record.replace(id, nameOf(3)).slice(0, -5),
    record, // another's name
  ];
  for (const [i, text] of odd.entries()) writeFileSync(join(dir, `${nameOf(i)}.json`), text);
  const next = (await clients(createFileStore(dir))).ann.chat.completions;
  expect(ids((await next.list()).data)).toEqual([id]);
  for (const i of odd.keys()) await expect(next.retrieve(nameOf(i))).rejects.toMatchObject({ status: 404 });
  if (WITHOUT_SQLITE !== null) return;
  const store = await openStore(join(folder, 'odd.db')),
    documents = createDocuments(store, DEFAULT_STORE);
  for (const [i, text] of odd.entries()) await documents.put(nameOf(i), 'ann', text);
  const { completions } = (await clients(createDocumentStore(store))).ann.chat;
  const kept = await completions.create(ask('hi'));
  expect(ids((await completions.list()).data)).toEqual([kept.id]);
});

it('an answer that cannot be kept is a failure, not one that is said to be kept', async () => {
  const put = (): Promise<void> => Promise.reject(new Error('the disk is full'));
  const { ann } = await clients({ ...createMemoryStore(), put });
  await expect(ann.chat.completions.create(ask('hi'))).rejects.toMatchObject({ status: 500 });
  const stream = await ann.chat.completions.create({ ...ask('hi'), stream: true });
  await expect(
    (async () => {
      for await (const _ of stream);
    })(),
  ).rejects.toThrow(/internal|server/i);
});

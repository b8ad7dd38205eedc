// A body is read the same in the thread for large ones as here: what it becomes, and what is refused.
import { PassThrough } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import type { ApiRequest } from '../../src/serve/api.js';
import type { ApiError } from '../../src/serve/api-error.js';
import { Bodies } from '../../src/serve/bodies.js';
import { jsonOf } from '../../src/serve/body.js';
import { BodyThread, type Room } from '../../src/serve/body-thread.js';
import { READERS, type ReaderName } from '../../src/serve/readers.js';

const ROOM: Room = { contextTokens: 4096, mostText: 1 << 20 };
const thread = new BodyThread();
afterAll(() => thread.close());
const bytes = (body: unknown): Uint8Array =>
  Buffer.from(typeof body === 'string' ? body : JSON.stringify(body), 'utf8');
/** What was read, or what was said instead. */
async function outcome(read: () => unknown): Promise<unknown> {
  try {
    return { read: await read() };
  } catch (e) {
    const { name, message, status, type, code, param, retryAfter } = e as ApiError;
    return { name, message, status, type, code, param, retryAfter };
  }
}
const long = 'many words '.repeat(5000);
const schema = { type: 'object', properties: { a: { type: 'number', default: 1.0 } }, required: ['a'] };
const user = [{ role: 'user', content: long }];
const GOOD: readonly (readonly [ReaderName, unknown])[] = [
  ['chat', { model: 'm', messages: user, seed: 1, stop: ['x'], logit_bias: { 5: 1 }, logprobs: true }],
  [
    'chat',
    { model: 'm', messages: user, seed: 1, tools: [{ type: 'function', function: { name: 'f', parameters: schema } }] },
  ],
  ['completions', { model: 'm', prompt: [1, 2, 3], seed: 1 }],
  ['completions', { model: 'm', prompt: long, seed: 2, stream: true }],
  ['messages', { model: 'm', messages: user, max_tokens: 4, thinking: { type: 'adaptive' } }],
  ['count', { model: 'm', messages: user }],
  ['responses', { model: 'm', input: long, tools: [{ type: 'function', name: 'f', parameters: schema }] }],
];
const BAD: readonly (readonly [ReaderName, unknown])[] = [
  ['chat', '{'],
  ['chat', '['.repeat(100_000)],
  ['chat', '{"a":1,"a":2}'],
  ['chat', { model: 'm', messages: [{ role: 'user', content: long, tool_calls: [] }, { role: 'odd' }] }],
  ['chat', { model: 'm', messages: user, audio: {} }],
  ['chat', { model: 'm', messages: [{ role: 'user', content: '\ud800' }] }],
  ['messages', { model: 'm', messages: [{ role: 'assistant', content: long }], max_tokens: 4 }],
  ['responses', { model: 'm', input: [] }],
  ['completions', { model: 'm', prompt: ['a', 'b'], suffix: 'c' }],
];

describe('a body whose lists hold nothing that they should', () => {
  const wrong = Array.from({ length: 1000 }, () => ({}));
  it.each([
    ['chat', (list) => ({ model: 'm', messages: list })],
    ['chat', (list) => ({ model: 'm', messages: [{ role: 'user', content: list }] })],
    ['chat', (list) => ({ model: 'm', messages: [{ role: 'user', content: 'a' }], tools: list })],
    ['responses', (list) => ({ model: 'm', input: list })],
    ['responses', (list) => ({ model: 'm', input: 'a', tools: list })],
    ['messages', (list) => ({ model: 'm', max_tokens: 1, messages: list })],
    ['messages', (list) => ({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: list }] })],
    ['completions', (list) => ({ model: 'm', prompt: list })],
  ] as const satisfies readonly (readonly [ReaderName, (list: unknown) => unknown])[])(
    '%s %#: is refused by the first entry, the others are not read',
    (name, body) => {
      const read = new Set<PropertyKey>();
      const list = new Proxy(wrong, {
        get(of, key) {
          read.add(key);
          return Reflect.get(of, key) as unknown;
        },
      });
      expect(() => READERS[name](body(list), 100)).toThrow(expect.objectContaining({ status: 400 }));
      expect([...read].filter((key) => /^\d+$/.test(String(key)))).toEqual(['0']);
    },
  );
});

const asked = (incoming: PassThrough): ApiRequest =>
  ({
    env: { incoming },
    req: { header: (name: string) => (name === 'content-type' ? 'application/json' : undefined) },
  }) as unknown as ApiRequest;
/** A body as it comes through a port. */
function coming(most = 100): {
  readonly incoming: PassThrough;
  readonly read: Promise<unknown>;
  readonly left: () => number;
} {
  const incoming = new PassThrough({ highWaterMark: 4 });
  const read = bodies(most).read(asked(incoming));
  read.catch(() => {}); // looked at later
  const left = (): number =>
    ['data', 'end', 'error', 'close'].reduce((n, e) => n + incoming.listenerCount(e), 0) - quiet;
  return { incoming, read, left };
}
const quiet = ['data', 'end', 'error', 'close'].reduce((n, e) => n + new PassThrough().listenerCount(e), 0);
const opened: Bodies[] = [];
const bodies = (most: number): Bodies => {
  const made = new Bodies(most);
  opened.push(made);
  return made;
};
afterAll(() => Promise.all(opened.map((b) => b.close())));
const turn = (): Promise<void> => new Promise((done) => setImmediate(done));
const INCOMPLETE = { status: 400, code: 'body_incomplete' };

describe('a body that comes through a port', () => {
  it('is the same however it is cut, within characters too; nothing listens afterwards', async () => {
    const text = Buffer.from('{"é":"☃ 😀"}');
    for (let size = 1; size <= text.length; size++) {
      const { incoming, read, left } = coming();
      for (let at = 0; at < text.length; at += size) {
        incoming.write(text.subarray(at, at + size));
        if (at % 3 === 0) await turn();
      }
      incoming.end();
      expect(await read).toEqual({ é: '☃ 😀' });
      expect(left()).toBe(0);
    }
  });
  it('that ends without anything is no JSON', async () => {
    const { incoming, read } = coming();
    incoming.end();
    await expect(read).rejects.toMatchObject({ status: 400, code: 'invalid_json' });
  });
  it('is incomplete where it breaks off, is closed before its end, or was gone before', async () => {
    for (const broken of [new Error('reset'), undefined]) {
      const { incoming, read, left } = coming();
      incoming.on('error', () => {});
      incoming.write('{"a":');
      await turn();
      incoming.destroy(broken);
      await expect(read).rejects.toMatchObject(INCOMPLETE);
      expect(left()).toBe(1);
    }
    const gone = new PassThrough();
    gone.destroy();
    await turn(); // it has said so
    await expect(bodies(100).read(asked(gone))).rejects.toMatchObject(INCOMPLETE);
  });
  it('that is too large is refused at the piece that is too much: no more is taken, and it stays open', async () => {
    const { incoming, read, left } = coming(10);
    incoming.write('1234567890');
    await turn();
    incoming.write('1');
    await expect(read).rejects.toMatchObject({ status: 413, code: 'body_too_large' });
    expect([incoming.destroyed, incoming.isPaused(), left()]).toEqual([false, true, 0]);
    while (incoming.write('more')); // until it says that nobody takes it
    await turn();
    expect(incoming.writableNeedDrain).toBe(true);
  });
  it('counts while it is read and no longer: eight of the largest at once, then another', async () => {
    const own = bodies(10);
    const open = (): { readonly incoming: PassThrough; readonly read: Promise<unknown> } => {
      const incoming = new PassThrough();
      const read = own.read(asked(incoming));
      read.catch(() => {});
      incoming.write('[1,1,1,1,1');
      return { incoming, read };
    };
    const eight = Array.from({ length: 8 }, open);
    await turn();
    await expect(open().read).rejects.toMatchObject({ status: 429, code: 'too_many_bodies', retryAfter: 1 });
    for (const { incoming } of eight) incoming.destroy();
    for (const { read } of eight) await expect(read).rejects.toMatchObject(INCOMPLETE);
    const after = open();
    await turn();
    after.incoming.destroy();
    await expect(after.read).rejects.toMatchObject(INCOMPLETE);
  });
});

describe('a body that is read in a thread', () => {
  it.each([...GOOD, ...BAD])('%s %#', async (name, body) => {
    const here = await outcome(() => READERS[name](jsonOf(bytes(body)), 100));
    const there = await outcome(() => thread.read(name, [bytes(body)], 100, ROOM));
    // Seeds that a request does not say are drawn.
    const told = (o: unknown): unknown =>
      JSON.parse(JSON.stringify(o, (k, v: unknown) => (k === 'seed' ? (v === 1 || v === 2 ? v : 'drawn') : v)));
    expect(told(there)).toEqual(told(here));
    expect(Object.hasOwn(there as object, 'read')).toBe(GOOD.some(([, b]) => b === body));
  });
  it('keeps what is no JSON', async () => {
    const chat = await thread.read('chat', [bytes(GOOD[0]?.[1])], 100, ROOM);
    expect(chat.request.logitBias).toEqual(new Map([[5, 1]]));
    const completion = await thread.read('completions', [bytes(GOOD[2]?.[1])], 100, ROOM);
    expect(completion.prompts).toEqual([Int32Array.of(1, 2, 3)]);
  });
  it('is refused where its text is more than the context however it is cut, and is counted all the same', async () => {
    const small = { ...ROOM, mostText: long.length - 1 };
    for (const [name, body, field] of [
      ['chat', { model: 'm', messages: user }, 'messages'],
      ['messages', { model: 'm', messages: user, max_tokens: 1 }, 'messages'],
      ['responses', { model: 'm', input: user }, 'input'],
    ] as const) {
      const refused = { status: 400, code: 'context_length_exceeded', param: field };
      expect(await outcome(() => thread.read(name, [bytes(body)], 1, small)), name).toMatchObject(refused);
    }
    const thoughts = { role: 'assistant', reasoning: long, content: 'Yes.' };
    const dropped = {
      model: 'm',
      messages: [{ role: 'user', content: 'hi' }, thoughts, { role: 'user', content: '?' }],
    };
    for (const [name, body] of [
      ['chat', dropped],
      ['count', { model: 'm', messages: user }],
      ['responses', { model: 'm', input: user, truncation: 'auto' }],
    ] as const)
      expect(await outcome(() => thread.read(name, [bytes(body)], 1, small)), name).toHaveProperty('read');
  });
  it('is refused where its messages alone are more than the context', async () => {
    const messages = Array.from({ length: 1025 }, () => ({ role: 'user', content: 'a' }));
    for (const [name, body] of [
      ['chat', { model: 'm', messages }],
      ['messages', { model: 'm', messages, max_tokens: 1 }],
      ['responses', { model: 'm', input: messages }],
    ] as const) {
      expect(await outcome(() => thread.read(name, [bytes(body)], 1, ROOM)), name).toMatchObject({
        status: 400,
        code: 'context_length_exceeded',
      });
      expect(
        await outcome(() => thread.read(name, [bytes(body)], 1, { ...ROOM, contextTokens: 8192 })),
        name,
      ).toHaveProperty('read');
    }
  });
});

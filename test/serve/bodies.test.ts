// A body is read the same in the thread for large ones as here: what it becomes, and what is refused.
import { afterAll, describe, expect, it } from 'vitest';
import type { ApiError } from '../../src/serve/api-error.js';
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

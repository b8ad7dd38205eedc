// Clients that go away, at each point of an answer and in each way: places, slots and pages come back, and those who
// stay are answered as if nobody had gone. (test/infer/cancel.test.ts does it at every step.)
import { mkdtempSync, rmSync } from 'node:fs';
import { type ClientRequest, request } from 'node:http';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { loadTokenizer } from '../../src/harmony/tokenizer.js';
import type { EngineState } from '../../src/infer/protocol.js';
import { serve } from '../../src/serve/server.js';
import { NANO, oddAdapter } from './odd-adapter.js';

const tokenizer = loadTokenizer(NANO);
const root = mkdtempSync(join(tmpdir(), 'serve-going-'));
const KEY = 'the-key-of-these-tests';
const SLOTS = 3;
const log: string[] = [];
const server = await serve({
  engine: {
    model: NANO,
    threads: 1,
    device: 'cpu',
    contextTokens: 1024,
    // Room for all slots where answers are short, not for a long one beside them.
    cacheTokens: 1024 + 128,
    slots: SLOTS,
    prefixes: 4,
    adapters: { odd: await oddAdapter(join(root, 'odd'), 1) },
  },
  port: 0,
  adminKeys: [{ name: 'tests', key: KEY }],
  log: (line) => log.push(line),
});
afterAll(async () => {
  tokenizer.close();
  await server.close();
  rmSync(root, { recursive: true });
});

interface State {
  readonly running: number;
  readonly waiting: number;
  readonly engine: EngineState;
}
const state = async (): Promise<State> =>
  (await (await fetch(`${server.url}/admin/state`, { headers: { authorization: `Bearer ${KEY}` } })).json()) as State;
const rest = async (): Promise<unknown> => {
  const { running, waiting, engine } = await state();
  return {
    running,
    waiting,
    slots: engine.freeSlots,
    waits: engine.waiting,
    leaked: engine.usedPages - engine.keptPages,
  };
};
const AT_REST = { running: 0, waiting: 0, slots: SLOTS, waits: 0, leaked: 0 };

const TOOL = {
  type: 'function',
  function: {
    name: 'note',
    strict: true,
    parameters: {
      type: 'object',
      properties: { text: { type: 'string', minLength: 400 } },
      required: ['text'],
      additionalProperties: false,
    },
  },
};
/** Nothing but its length ends an answer: what is under way stays so for as long as it takes. */
const ENDS = Object.fromEntries(['<|return|>', '<|call|>', '<|endoftext|>'].map((t) => [tokenizer.special[t], -100]));
const body = (i: number, more: object = {}): object => ({
  model: i % 2 === 0 ? 'nano' : 'odd',
  messages: [{ role: 'user', content: `Please book a table for ${i} people` }],
  temperature: 2,
  seed: i,
  max_completion_tokens: 150,
  logit_bias: ENDS,
  ...more,
});
const answer = async (i: number): Promise<string> => {
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body(i)),
  });
  const { choices } = (await response.json()) as { choices: unknown };
  return JSON.stringify(choices).replaceAll(/call_\w+/g, 'call');
};
const alone = [await answer(0), await answer(1)];

interface Client {
  readonly request: ClientRequest;
  readonly socket: Promise<Socket>;
  /** What came so far. */
  text(): string;
}
const LONG = 'many words '.repeat(Math.floor(1400 / tokenizer.encode('many words many words').length));
/** A client that will go: it asks, and keeps what comes. */
function client(more: object): Client {
  let text = '';
  const asked = request(
    `${server.url}/v1/chat/completions`,
    { method: 'POST', agent: false, headers: { 'content-type': 'application/json' } },
    (response) => {
      response.on('data', (d: Buffer) => {
        text += d.toString();
      });
      response.on('error', () => {});
    },
  );
  asked.on('error', () => {});
  const socket = new Promise<Socket>((done) => asked.once('socket', done));
  asked.end(JSON.stringify(body(7, { stream: true, ...more })));
  return { request: asked, socket, text: () => text };
}

const SOON = { timeout: 30_000, interval: 2 };
/** What it asks, and when it goes. */
const POINTS: Readonly<Record<string, { readonly asks?: object; readonly at: (c: Client) => unknown }>> = {
  'while it waits for a place': { at: async () => (await state()).waiting === 1 },
  'while it waits for room in the cache': {
    asks: { max_completion_tokens: 1000 },
    at: async () => (await state()).engine.waiting === 1,
  },
  'when it has just asked': { at: (c) => c.request.writableFinished },
  'while its prompt is read': {
    asks: { messages: [{ role: 'user', content: LONG }], max_completion_tokens: 20 },
    at: async () => (await state()).engine.running > 2,
  },
  'between two tokens': { at: (c) => c.text().split('data: ').length > 4 },
  'in a tool call': {
    asks: { tools: [TOOL], tool_choice: { type: 'function', function: { name: 'note' } }, temperature: 1 },
    at: (c) => c.text().split('"tool_calls"').length > 3,
  },
  'while a whole answer is written': {
    asks: { stream: false },
    at: async () => (await state()).engine.running > 2,
  },
};
let met = 0;
const WAYS: Readonly<Record<string, (c: Client) => Promise<void>>> = {
  'closes its connection': async (c) => void c.request.destroy(),
  'resets it': async (c) => void (await c.socket).resetAndDestroy(),
};

it.each(Object.keys(POINTS))('%s', async (point) => {
  const { asks = {}, at } = POINTS[point] as (typeof POINTS)[string];
  for (const [way, go] of Object.entries(WAYS)) {
    const staying = Promise.all([answer(0), answer(1)]);
    let ended = false;
    void staying.finally(() => {
      ended = true;
    });
    const filler = point === 'while it waits for a place' ? client({}) : null;
    if (filler) await expect.poll(async () => ended || (await state()).running === SLOTS, SOON).toBe(true);
    const going = client(asks);
    // Where the others have ended before, it goes all the same.
    await expect
      .poll(async () => {
        const there = await at(going);
        if (there) met++;
        return there || ended;
      }, SOON)
      .toBe(true);
    await go(going);
    filler?.request.destroy();
    expect(await staying, way).toEqual(alone);
    await expect.poll(rest, SOON).toEqual(AT_REST);
  }
});

it('met most at their point, and said that nothing was wrong', () => {
  expect(met).toBeGreaterThanOrEqual(Object.keys(POINTS).length);
  expect(log).toEqual([]);
});

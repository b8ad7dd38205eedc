// How a stream leaves through node's own response: what comes at once is one chunk, and nothing waits for more.
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import { eventStream, type ServerEvent } from '../../src/serve/sse.js';

type Events = AsyncGenerator<ServerEvent, void, void>;
const servers: Server[] = [];
afterAll(() => {
  for (const server of servers) server.close();
});
interface Answer {
  readonly socket: Socket;
  /** Told of all that came so far, whenever more comes. */
  readonly came: (told: (all: string) => void) => void;
  /** All of it, once the connection is closed. */
  readonly whole: Promise<string>;
  readonly stop: AbortController;
}
async function ask(events: Events, version = '1.1'): Promise<Answer> {
  const stop = new AbortController();
  const server = createServer((_, outgoing) => {
    outgoing.on('close', () => stop.abort());
    void eventStream({ env: { outgoing } }, events, stop, () => ({ data: 'failed' }));
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.write(`GET / HTTP/${version}\r\nhost: x\r\nconnection: close\r\n\r\n`);
  let all = '',
    told = (_: string): void => {};
  socket.setEncoding('utf8');
  socket.on('data', (text) => {
    all += String(text);
    told(all);
  });
  const whole = new Promise<string>((done, fail) => {
    socket.on('close', () => done(all));
    socket.on('error', fail);
  });
  return {
    socket,
    whole,
    stop,
    came(next) {
      told = next;
      told(all);
    },
  };
}
/** Bodies of the chunks of an answer. */
function chunksOf(answer: string): readonly string[] {
  let left = Buffer.from(answer.slice(answer.indexOf('\r\n\r\n') + 4));
  const chunks: string[] = [];
  while (left.length > 0) {
    const head = left.indexOf('\r\n'),
      end = head + 2 + Number.parseInt(left.toString('latin1', 0, head), 16);
    expect(left.toString('latin1', end, end + 2)).toBe('\r\n');
    chunks.push(left.toString('utf8', head + 2, end));
    left = left.subarray(end + 2);
  }
  return chunks;
}

it('events of one turn are one chunk, in order; those of another are another', async () => {
  const { whole } = await ask(
    (async function* () {
      yield { event: 'a', data: 'one é' };
      yield { data: { two: '🦊' } };
      await setImmediate();
      yield { data: 'three' };
      yield { data: '[DONE]' };
    })(),
  );
  const first = 'event: a\ndata: one é\n\ndata: {"two":"🦊"}\n\n';
  expect(chunksOf(await whole)).toEqual([first, 'data: three\n\ndata: [DONE]\n\n', '']);
});

it('the same without chunks, for HTTP/1.0', async () => {
  const { whole } = await ask(
    (async function* () {
      yield { data: 'one é' };
      yield { data: 'two' };
      await setImmediate();
      yield { data: 'three' };
    })(),
    '1.0',
  );
  expect((await whole).split('\r\n\r\n')[1]).toBe('data: one é\n\ndata: two\n\ndata: three\n\n');
});

it('an event is there before the next is made', async () => {
  let answer: Answer | null = null;
  const seen: string[] = [];
  const events = async function* (): Events {
    for (const name of ['one', 'two', 'three']) {
      yield { data: name };
      await new Promise<void>((done) => answer?.came((all) => all.includes(`data: ${name}\n\n`) && done()));
      seen.push(name);
    }
  };
  // The first event is waited for before the head is written, so that the server waits for this.
  answer = await ask(events());
  await answer.whole;
  expect(seen).toEqual(['one', 'two', 'three']);
});

it('a reader that takes nothing is not read ahead of, and gets all in the end', async () => {
  let written = 0;
  const events = async function* (): Events {
    for (; written < 250; written++) yield { data: `${written} ${'x'.repeat(1 << 16)}` };
  };
  const answer = await ask(events());
  answer.socket.pause();
  let before = -1;
  for (; before !== written; await new Promise((done) => setTimeout(done, 50))) before = written;
  expect(written).toBeLessThan(250);
  answer.socket.resume();
  const all = chunksOf(await answer.whole).join('');
  expect([...all.matchAll(/^data: (\d+) /gm)].map(([, n]) => Number(n))).toEqual([...Array(250).keys()]);
});

it('after an abort nothing more is taken or sent', async () => {
  const stop: { answer?: Answer; made: number } = { made: 0 };
  const events = async function* (): Events {
    await setImmediate();
    yield { data: 'one' };
    await setImmediate();
    stop.answer?.stop.abort();
    for (; stop.made < 10; stop.made++) yield { data: 'two' };
  };
  stop.answer = await ask(events());
  expect(chunksOf(await stop.answer.whole)).toEqual(['data: one\n\n', '']);
  expect(stop.made).toBe(0);
});

// A reader that takes nothing holds a place: it is given up, and what wrote for it is ended.
import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterAll, describe, expect, it } from 'vitest';
import type { ApiRequest } from '../../src/serve/api.js';
import { eventStream, type ServerEvent, stopWith } from '../../src/serve/sse.js';

it('a reader that reads nothing is given up; one that reads gets all', async () => {
  let written = 0,
    ended = false;
  async function* events(): AsyncGenerator<ServerEvent, void, void> {
    try {
      for (; written < 100; written++) yield { data: { written } };
    } finally {
      ended = true;
    }
  }
  const failed = (): ServerEvent => ({ data: 'failed' });
  const stop = new AbortController();
  const stalled = await eventStream({ env: {} }, events(), stop, failed, 5);
  const reader = stalled.body?.getReader();
  await reader?.read();
  await expect.poll(() => stop.signal.aborted, { timeout: 5000 }).toBe(true);
  await expect.poll(() => ended).toBe(true);
  expect(written).toBeLessThan(4); // it is not read ahead of
  await expect(reader?.read()).rejects.toThrow();

  written = 0;
  const whole = await eventStream({ env: {} }, events(), new AbortController(), failed, 60_000);
  expect((await whole.text()).match(/data: /g)).toHaveLength(100);
});

describe('what a client that goes away stops, behind a port', () => {
  let told: (out: ServerResponse) => void = () => {};
  const server: Server = createServer((_, out) => told(out));
  afterAll(() => server.close());
  /** A request whose answer is open, and its client. */
  async function open(): Promise<{ readonly out: ServerResponse; readonly client: Socket }> {
    if (!server.listening) await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const answer = new Promise<ServerResponse>((done) => {
      told = done;
    });
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    client.on('error', () => {}).write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    return { out: await answer, client };
  }
  const asked = (out: ServerResponse): ApiRequest => ({ env: { outgoing: out } }) as unknown as ApiRequest;
  const closed = (out: ServerResponse): Promise<void> => new Promise((done) => void out.once('close', done));

  it('one that went before the answer, or in the middle of it, aborts, once', async () => {
    for (const begun of [false, true]) {
      const { out, client } = await open();
      const { signal } = stopWith(asked(out));
      let aborts = 0;
      signal.addEventListener('abort', () => aborts++);
      if (begun) out.write('a part');
      expect(signal.aborted).toBe(false);
      const end = closed(out);
      client.destroy();
      await end;
      expect([signal.aborted, aborts, (signal.reason as Error).name]).toEqual([true, 1, 'AbortError']);
    }
  });
  it('one that was gone before anybody asked has been told', async () => {
    const { out, client } = await open();
    const end = closed(out);
    client.destroy();
    await end;
    expect(stopWith(asked(out)).signal.aborted).toBe(true);
  });
  it('an answer that was taken whole aborts nothing, whatever becomes of the connection', async () => {
    const { out, client } = await open();
    const { signal } = stopWith(asked(out));
    client.resume();
    const end = closed(out);
    out.end('all of it');
    await end;
    client.destroy();
    expect(signal.aborted).toBe(false);
    expect(stopWith(asked(out)).signal.aborted).toBe(false);
  });
  it('not behind a port the signal of the request tells', () => {
    const gone = new AbortController();
    const request = (signal: AbortSignal): ApiRequest => ({ req: { raw: { signal } } }) as unknown as ApiRequest;
    const { signal } = stopWith(request(gone.signal));
    expect(signal.aborted).toBe(false);
    gone.abort();
    expect([signal.aborted, stopWith(request(gone.signal)).signal.aborted]).toEqual([true, true]);
  });
});

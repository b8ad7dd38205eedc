// Streams of a process in which another server of the same kind was there first: its module has replaced Response.
import { Agent, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer, type HttpBindings } from '@hono/node-server';
import { expect, it, vi } from 'vitest';

createAdaptorServer({ fetch: () => new Response() });
const { eventStream } = await import('../../src/serve/sse.js');

it('a stream ends once, and its connection is there for the next', async () => {
  const complained = vi.spyOn(console, 'error').mockImplementation(() => {});
  const events = async function* () {
    yield { data: 'one' };
  };
  const server = createAdaptorServer({
    fetch: (_, env) =>
      eventStream({ env: env as HttpBindings }, events(), new AbortController(), () => ({ data: 'failed' })),
  }) as Server;
  let connections = 0;
  server.on('connection', () => connections++);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo,
    agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (): Promise<string> =>
    new Promise((done, fail) => {
      get({ port, agent }, (answer) => {
        let text = '';
        answer.on('data', (d: Buffer) => {
          text += d.toString();
        });
        answer.on('end', () => done(text));
        answer.on('error', fail);
      }).on('error', fail);
    });
  try {
    for (let i = 0; i < 3; i++) expect(await ask()).toBe('data: one\n\n');
    expect([connections, complained.mock.calls]).toEqual([1, []]);
  } finally {
    agent.destroy();
    server.close();
    complained.mockRestore();
  }
});

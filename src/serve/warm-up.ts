// What is slow when it first runs, and what a start leaves to be collected: both are done while the model is loaded, or
// the first requests would hold each other for as long.
import { Duplex } from 'node:stream';
import { createAdaptorServer, type HttpBindings } from '@hono/node-server';
import { collectorOf } from '../base/collector.js';
import { READERS } from './readers.js';

/** Schemas are compiled when they first read a body. */
function warmReaders(): void {
  const model = 'a',
    messages = [{ role: 'user', content: 'Hello' }];
  READERS.chat({ model, messages, temperature: 1 }, 1);
  READERS.completions({ model, prompt: 'Hello' });
  READERS.messages({ model, messages, max_tokens: 1 });
  READERS.responses({ model, input: 'Hello' });
}
/** A request over a connection that is in this process, to a server that has no routes. */
async function warmHttp(): Promise<void> {
  const server = createAdaptorServer({
    async fetch(_, env) {
      for await (const _ of (env as HttpBindings).incoming.iterator({ destroyOnReturn: false }));
      return new Response('{}', { headers: { 'content-type': 'application/json' } });
    },
  });
  await new Promise<void>((done) => {
    const socket = new Duplex({ read: () => {}, write: (_, __, next) => next() });
    socket.once('finish', done);
    server.emit('connection', socket);
    socket.push('POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}');
  });
}
export async function warmUp(): Promise<void> {
  warmReaders();
  await warmHttp();
  // What is left of a start is then old, and not copied by the next collections.
  collectorOf()?.();
}

// Clients that are slow to send or to take are given up; the others do not notice.
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterAll, describe, expect, it } from 'vitest';
import { serve } from '../../src/serve/server.js';
import { endSlowReaders, TIMEOUTS } from '../../src/serve/timeouts.js';
import { NANO } from './odd-adapter.js';

const sockets: Socket[] = [];
const log: string[] = [];
const server = await serve({
  engine: { model: NANO, threads: 1, device: 'cpu', contextTokens: 256, slots: 2 },
  port: 0,
  maxBodyBytes: 1 << 16,
  timeouts: { head: 150, request: 300 },
  log: (line) => log.push(line),
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await server.close();
});

const HEAD =
  'POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\n';
/** A connection on which `pieces` are written, one each `ms`, over and over. @returns what came until it was closed */
function slow(first: string, piece: string, ms: number): Promise<string> {
  return new Promise((done) => {
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname, () => first !== '' && socket.write(first));
    sockets.push(socket);
    const timer = piece === '' ? undefined : setInterval(() => socket.write(piece), ms);
    let got = '';
    socket.on('data', (d) => {
      got += d.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearInterval(timer);
      done(got);
    });
  });
}

describe('slow writers', () => {
  it.each([
    ['a connection on which nothing comes', '', '', 0],
    ['a head that comes letter by letter', 'POST / HTTP/1.1\r\nx: ', 'y', 20],
    ['a body that stops', `${HEAD}content-length: 100\r\n\r\n{"model`, '', 0],
    ['a body that comes letter by letter', `${HEAD}content-length: 60000\r\n\r\n{`, ' ', 20],
    ['a chunked one', `${HEAD}transfer-encoding: chunked\r\n\r\n`, '1\r\n \r\n', 20],
  ])('are closed: %s', async (_, first, piece, ms) => {
    const waiting = slow(first, piece, ms);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    const answer = await waiting;
    expect(answer).toMatch(first === '' ? /^$|^HTTP\/1\.1 408 / : /^HTTP\/1\.1 40[08] /);
    if (answer !== '') expect(answer).toContain('"type":"invalid_request_error"');
  });
  it('and said nothing of the server itself', () => expect(log).toEqual([]));
});

describe('bombs', () => {
  const chunk = `2000\r\n${' '.repeat(0x2000)}\r\n`,
    CHUNKED = `${HEAD}transfer-encoding: chunked\r\n\r\n`;
  it('a chunked body is refused when it has more than it may', async () => {
    const got = await slow(`${CHUNKED}${chunk.repeat(9)}0\r\n\r\n`, '', 0);
    expect(got).toMatch(/^HTTP\/1\.1 413 /);
    expect(got).toContain('body_too_large');
  });
  it('one without end is not read on', async () => {
    // Whoever writes on at once may not come to read why.
    expect(await slow(`${CHUNKED}${chunk.repeat(12)}`, chunk, 1)).toMatch(/^$|^HTTP\/1\.1 4\d\d /);
  });
  it('a body that would be large if it were unpacked is not unpacked', async () => {
    const { gzipSync } = await import('node:zlib');
    const answer = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
      body: gzipSync(Buffer.alloc(30 << 20, ' ')),
    });
    expect([answer.status, await answer.text()]).toEqual([
      415,
      expect.stringContaining('"code":"content_encoding"') as unknown,
    ]);
  });
  it('thousands of headers are refused', async () => {
    const got = await slow(`${HEAD}${Array.from({ length: 5000 }, (_, i) => `a${i}: b\r\n`).join('')}\r\n`, '', 0);
    expect(got).toMatch(/^HTTP\/1\.1 431 /);
  });
});

it('a reader that takes nothing of a whole answer is given up, one that takes some now and then is not', async () => {
  const bytes = 24 << 20;
  const ended: string[] = [];
  const whole = createServer((asked, answer) => {
    answer.on('close', () => ended.push(asked.url ?? ''));
    answer.end(Buffer.alloc(bytes, 'x'));
  });
  endSlowReaders(whole, { ...TIMEOUTS, answer: 1500 });
  await new Promise<void>((done) => whole.listen(0, '127.0.0.1', done));
  const { port } = whole.address() as AddressInfo;
  const open = (path: string): Socket => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`));
    socket.on('error', () => {});
    sockets.push(socket.pause());
    return socket;
  };
  const none = open('/none'),
    some = open('/some');
  let taken = 0;
  // Piece by piece: longer than it may take nothing, never so long without taking any.
  const timer = setInterval(() => {
    taken += (some.read(1 << 20) as Buffer | null)?.length ?? 0;
  }, 200);
  await expect.poll(() => ended, { timeout: 30_000 }).toEqual(['/none', '/some']);
  clearInterval(timer);
  expect(taken).toBeGreaterThan(bytes / 2);
  expect(none.destroyed ? 0 : none.bytesRead).toBeLessThan(bytes / 2);
  whole.closeAllConnections();
  await new Promise((done) => whole.close(done));
});

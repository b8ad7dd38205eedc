// What node refuses by itself is told in the shape of all errors, but never into an answer that is on its way.
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterAll, expect, it } from 'vitest';
import { tellFaults } from '../../src/serve/http-faults.js';

const servers: Server[] = [];
afterAll(() => {
  for (const server of servers) server.closeAllConnections();
  for (const server of servers) server.close();
});
/**
 * Sends texts, each when something came after the one before, to a server whose answers to /slow begin and do not end.
 * @returns all that came
 */
async function answers(...texts: readonly string[]): Promise<string> {
  const server = createServer((request, response) => {
    if (request.url === '/quick') response.end('quick');
    else response.write('slow');
  });
  tellFaults(server);
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return new Promise((done) => {
    const left = [...texts];
    const next = (): void => void socket.write(left.shift() ?? '');
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1', next);
    let got = '';
    socket.on('data', (d) => {
      got += d.toString('latin1');
      next();
    });
    socket.on('error', () => {});
    socket.on('close', () => done(got));
  });
}
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`;
const NONE = 'NONSENSE\r\n\r\n';

it('after an answer that is over', async () => {
  const got = await answers(get('/quick'), NONE);
  expect(got).toContain('quick');
  expect(got).toMatch(/HTTP\/1\.1 400 .*"code":"bad_request"/s);
});
it('not into one that was begun, whatever waits behind it', async () => {
  for (const behind of ['', get('/quick')]) {
    const got = await answers(get('/slow'), `${behind}${NONE}`);
    expect(got).toContain('slow');
    expect(got.match(/HTTP\/1\.1/g)).toHaveLength(1);
  }
});
it('of who takes the server for a proxy, and the connection is closed', async () => {
  const got = await answers('CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n');
  expect(got).toMatch(/HTTP\/1\.1 405 .*x-request-id: req_.*"code":"method_not_allowed"/s);
});

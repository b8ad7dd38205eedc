// What no route is found for, since it is no request yet, or none that can be read: it is told in OpenAI's shape too.
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { FIELDS } from './api.js';
import { ApiError, asApiError, errorBody } from './api-error.js';
import { newRequestId, REQUEST_ID } from './request-id.js';

/** A server of node's, with TLS or without. */
interface NodeServer {
  on(event: 'clientError', told: (error: NodeJS.ErrnoException, socket: Duplex) => void): unknown;
  on(event: 'connect', told: (request: IncomingMessage, socket: Duplex) => void): unknown;
  on(event: 'checkExpectation', told: (request: IncomingMessage, response: ServerResponse) => void): unknown;
  prependListener(event: 'request', told: (request: IncomingMessage, response: ServerResponse) => void): unknown;
}
const refused = (status: ApiError['status'], code: string, message: string): ApiError =>
  new ApiError(status, 'invalid_request_error', code, message);

function faultOf({ code }: NodeJS.ErrnoException): ApiError {
  if (code === 'HPE_HEADER_OVERFLOW') return refused(431, 'head_too_large', 'the head of the request is too large');
  if (code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW')
    return refused(413, 'body_too_large', 'a chunk says too much of itself');
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return refused(408, 'request_timeout', 'the request did not come in time');
  return refused(400, 'bad_request', 'what came is no HTTP request');
}
function rawAnswer(error: ApiError): string {
  const body = JSON.stringify(errorBody(error));
  return (
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}\r\n` +
    `content-type: application/json\r\n${REQUEST_ID}: ${newRequestId()}\r\n` +
    `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`
  );
}

/** What is thrown before a route was found: mostly a host or a path that cannot be. */
export const unreadable =
  (log: (error: unknown) => void) =>
  (error: unknown): Response => {
    const told =
      error instanceof Error && error.name === 'RequestError'
        ? refused(400, 'bad_request', `the request cannot be read: ${error.message}`)
        : asApiError(error, log, FIELDS);
    return Response.json(errorBody(told), { status: told.status, headers: { [REQUEST_ID]: newRequestId() } });
  };
/** Probes of load balancers speak HTTP/1.0, which has no need of a Host: they mean whoever they reach. */
export function takeOldProbes(server: NodeServer): void {
  server.prependListener('request', (request) => {
    if (request.httpVersion !== '1.0' || request.headers.host !== undefined) return;
    request.headers.host = 'localhost';
    request.rawHeaders.push('host', 'localhost');
  });
}
/** Answers what node refuses by itself, where no answer is on its way on that connection. */
export function tellFaults(server: NodeServer): void {
  const open = new WeakMap<Duplex, Set<ServerResponse>>();
  server.prependListener('request', ({ socket }, response) => {
    const answers = open.get(socket) ?? new Set();
    open.set(socket, answers.add(response));
    response.once('close', () => answers.delete(response));
  });
  server.on('clientError', (error, socket) => {
    const begun = [...(open.get(socket) ?? [])].some((answer) => answer.headersSent);
    if (begun || !socket.writable || error.code === 'ECONNRESET') socket.destroy();
    else socket.end(rawAnswer(faultOf(error)), () => socket.destroy());
  });
  // Without a listener node closes the connection, and says nothing.
  server.on('connect', (_, socket) => {
    socket.on('error', () => {}); // gone: nobody is told
    socket.end(rawAnswer(refused(405, 'method_not_allowed', 'CONNECT: this is no proxy')), () => socket.destroy());
  });
  server.on('checkExpectation', (_, response) => {
    const body = JSON.stringify(errorBody(refused(417, 'expectation_failed', 'expect: wanted 100-continue, or none')));
    response.writeHead(417, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      [REQUEST_ID]: newRequestId(),
      connection: 'close',
    });
    response.end(body);
  });
}

// A local HTTP server that answers chat completions as a test scripts it, faults included.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface SeenRequest {
  readonly headers: IncomingMessage['headers'];
  readonly body: {
    readonly model: string;
    readonly messages: readonly { readonly role: string; readonly content: string }[];
    readonly [key: string]: unknown;
  };
}
export type Answer = (request: SeenRequest, response: ServerResponse, call: number) => void;

/** The nonce a request's user message asks for. */
export const nonceOf = (request: SeenRequest): string =>
  /^BEGIN (\S+)$/m.exec(request.body.messages[1]?.content ?? '')?.[1] ?? '';

export function completion(
  response: ServerResponse,
  message: Record<string, unknown>,
  finish: string | null = 'stop',
): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(
    JSON.stringify({
      id: 'c',
      object: 'chat.completion',
      choices: [{ index: 0, finish_reason: finish, message: { role: 'assistant', content: null, ...message } }],
    }),
  );
}

export interface JudgeServer {
  readonly url: string;
  readonly requests: SeenRequest[];
  close(): Promise<void>;
}
export async function startJudgeServer(answer: Answer): Promise<JudgeServer> {
  const requests: SeenRequest[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const seen = {
        headers: request.headers,
        body: JSON.parse(Buffer.concat(chunks).toString('utf8')) as SeenRequest['body'],
      };
      requests.push(seen);
      answer(seen, response, requests.length);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

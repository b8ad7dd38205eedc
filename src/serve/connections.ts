// What holds up a server that ends: answers that are on their way, and nothing else. Node waits for every connection
// that is open, also for those on which nothing was asked, or half of something: clients keep such ones for good.
import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

export class Connections {
  readonly #open = new Set<Socket>();
  readonly #answers = new Map<ServerResponse, IncomingMessage>();

  constructor(server: EventEmitter) {
    server.on('connection', (socket: Socket) => {
      this.#open.add(socket);
      socket.once('close', () => this.#open.delete(socket));
    });
    server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
      this.#answers.set(response, request);
      response.once('close', () => this.#answers.delete(response));
    });
  }
  /** Closes all of them, unless something that was asked for whole is being answered. */
  endUnlessAnswering(): void {
    for (const [response, request] of this.#answers) if (request.complete || response.headersSent) return;
    for (const socket of this.#open) socket.destroySoon();
  }
}

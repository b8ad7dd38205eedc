// What a server does before anybody asks: it answers itself. V8 compiles what runs often, so the first requests would
// take several times as long as later ones, on a core that the engine's threads wait for. The same routes answer over
// an engine that says a few words, on a connection within this process: no model, no port, no metric and no place of
// the server's own has part in it.
import { createServer } from 'node:http';
import { Duplex } from 'node:stream';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { getRequestListener } from '@hono/node-server';
import type { Engine } from '../infer/engine.js';
import type { EngineEvent, GenerateRequest } from '../infer/protocol.js';
import type { Structures } from '../infer/structures.js';
import { Admission } from './admission.js';
import { createApp, describeApis } from './app.js';
import { Bodies } from './bodies.js';
import { Callers } from './callers.js';
import { createMeter } from './meter.js';
import { createMemoryStore } from './response-store.js';
import { ServedModels } from './served.js';

/** Requests: the last of them take a third of what the first ones do. */
const REQUESTS = 900;
/** After so many bytes of a function have run V8 asks whether to compile it: meanwhile, and as it does by itself. */
const LOOK_BYTES = { soon: 10_000, own: 66 << 10 };
/** Chunks of an answer. */
const CHUNKS = 6;
/** How often it is looked whether those who ask are gone, ms. */
const LOOK_MS = 100;
const MODEL = 'a';
const WORDS = 'and so on ';

async function* generate({ messages }: GenerateRequest): AsyncGenerator<EngineEvent, void, void> {
  const head = { message: 0, role: 'assistant', channel: 'final', recipient: null } as const;
  for (let i = 0; i < CHUNKS; i++) {
    await nextTurn();
    yield { kind: 'text', ...head, text: WORDS, pieces: 2 };
  }
  yield {
    kind: 'done',
    finish: 'stop',
    cut: null,
    messages: [{ role: 'assistant', channel: 'final', content: WORDS.repeat(CHUNKS) }],
    tokens: new Int32Array(2 * CHUNKS),
    logprobs: new Float32Array(2 * CHUNKS),
    usage: {
      promptTokens: messages.length,
      cachedTokens: 0,
      completionTokens: 2 * CHUNKS,
      reasoningTokens: 0,
      prefillMs: 1,
      decodeMs: 1,
    },
  };
}

/** Its end of a connection: what is written to it is an answer. */
class Line extends Duplex {
  #last = '';
  #answered = (): void => {};
  override _read(): void {}
  override _write(piece: Buffer, _: BufferEncoding, next: () => void): void {
    this.#last = (this.#last + piece.toString('latin1')).slice(-5);
    next();
    if (this.#last === '0\r\n\r\n') this.#answered();
  }
  ask(json: string): Promise<void> {
    this.#last = '';
    const head = `host: localhost\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(json)}`;
    return new Promise((done) => {
      this.#answered = done;
      this.push(`POST /v1/chat/completions HTTP/1.1\r\n${head}\r\n\r\n${json}`);
    });
  }
}

export interface RehearsalOptions {
  /** Others are being answered: it waits until they are. */
  readonly busy: () => boolean;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Meanwhile the whole process compiles sooner. Default: as it does anyway, which may have been chosen. */
  readonly soon?: boolean;
  readonly requests?: number;
}
const lookAfter = (bytes: number): void => setFlagsFromString(`--interrupt-budget=${bytes}`);

/**
 * Answers itself until its code is compiled.
 * @param info of the engine that will answer
 */
export async function rehearse(
  info: Engine['info'],
  { busy, signal, soon = false, requests = REQUESTS }: RehearsalOptions,
): Promise<void> {
  const engine = { info, generate } as Pick<Engine, 'info' | 'generate'> as Engine;
  const base = { id: MODEL, adapter: null, digest: '', pairs: 0, status: 'approved', folder: null } as const;
  const structures = {} as Structures; // of answers that keep to schemas: none does here
  const served = new ServedModels(engine, structures, base, []);
  const admission = new Admission({ slots: 1, queue: 1, queueMs: 1000 });
  const parts = { served, screen: null, reasoning: 'auto', admission, meter: createMeter(admission) } as const;
  const app = createApp({
    served,
    callers: new Callers(parts, null),
    responses: createMemoryStore(),
    adminKeys: () => null,
    maxTokens: () => info.contextTokens,
    log: () => {},
    note: () => {},
    hosts: null,
    bodies: new Bodies(1 << 20),
    playground: () => false,
  });
  const server = createServer(getRequestListener(app.fetch));
  const line = new Line();
  server.emit('connection', line);
  if (soon) lookAfter(LOOK_BYTES.soon);
  const free = async (): Promise<void> => {
    while (!signal.aborted && busy()) await sleep(LOOK_MS, undefined, { ref: false });
  };
  try {
    for (let i = 0; i < requests && !signal.aborted; i++) {
      await free();
      const more = i % 2 === 0 ? { stream_options: { include_usage: true } } : { temperature: 1, seed: i };
      const messages = [{ role: 'user', content: `Say ${i} words` }];
      await line.ask(JSON.stringify({ model: MODEL, messages, max_completion_tokens: i + 1, stream: true, ...more }));
      await nextTurn();
    }
    await free();
    if (!signal.aborted) await describeApis(); // much code that runs once
  } finally {
    if (soon) lookAfter(LOOK_BYTES.own);
    line.destroy();
  }
}

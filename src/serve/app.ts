// Routes, and what every request passes before one: host, key, size, form. Everything that fails is told in OpenAI's
// shape.
import { type Context, Hono } from 'hono';
import { hasLoneSurrogate, parseJson } from '../base/json.js';
import { ApiError, asApiError, badRequest, errorBody } from './api-error.js';
import { answer, type ChatService, randomSeed, stream } from './chat.js';
import { readChatRequest } from './chat-request.js';
import type { ApiKeys } from './keys.js';

export interface AppOptions extends ChatService {
  /** null: everybody who reaches the port may ask. */
  readonly keys: ApiKeys | null;
  /** Host names that a request may give; null: any. Keeps web pages of others away from a server on loopback. */
  readonly hosts: ReadonlySet<string> | null;
  readonly maxBodyBytes: number;
  readonly maxTokens: number;
  /** Told of faults of the server's own. */
  readonly log: (error: unknown) => void;
}
/** How deep JSON may be nested: schemas of tools need a dozen. */
const MAX_DEPTH = 64;
/** While a stream waits for verdicts, a comment tells proxies that it lives. */
const KEEPALIVE_MS = 15_000;

function depthOf(text: string): number {
  let depth = 0,
    most = 0,
    quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 92) i++;
      else if (c === 34) quoted = false;
    } else if (c === 34) quoted = true;
    else if (c === 91 || c === 123) most = Math.max(most, ++depth);
    else if (c === 93 || c === 125) depth--;
  }
  return most;
}

/** @throws {ApiError} 400, 413, 415 */
async function readBody(c: Context, most: number): Promise<unknown> {
  const type = c.req.header('content-type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type))
    throw new ApiError(415, 'invalid_request_error', 'content_type', 'content-type: wanted application/json');
  const tooLarge = (): ApiError =>
    new ApiError(413, 'invalid_request_error', 'body_too_large', `the body has more than ${most} bytes`);
  if (Number(c.req.header('content-length') ?? 0) > most) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of (c.req.raw.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += piece.length;
    if (bytes > most) throw tooLarge();
    pieces.push(piece);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces));
  } catch {
    throw badRequest('invalid_json', 'the body is not UTF-8');
  }
  if (depthOf(text) > MAX_DEPTH) throw badRequest('invalid_json', `the body is nested deeper than ${MAX_DEPTH} levels`);
  let json: unknown;
  try {
    json = parseJson(text);
  } catch {
    throw badRequest('invalid_json', 'the body is not JSON');
  }
  if (hasLoneSurrogate(json))
    throw badRequest('invalid_json', 'the body holds half of a surrogate pair, which is no text');
  return json;
}

/**
 * Chunks as server-sent events. The first is waited for before anything is sent, so that what fails before it has a
 * status of its own; what fails later is an event, and no `[DONE]` follows.
 */
async function eventStream(
  chunks: AsyncGenerator<Record<string, unknown>, void, void>,
  stop: AbortController,
  log: AppOptions['log'],
): Promise<Response> {
  const first = await chunks.next();
  const encoder = new TextEncoder();
  const line = (data: unknown): Uint8Array => encoder.encode(`data: ${JSON.stringify(data)}\n\n`);
  let next: Promise<IteratorResult<Record<string, unknown>, void>> | null = Promise.resolve(first);
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        next ??= chunks.next();
        let timer: NodeJS.Timeout | undefined;
        try {
          const beat = new Promise<null>((tell) => {
            timer = setTimeout(tell, KEEPALIVE_MS, null);
          });
          const got = await Promise.race([next, beat]);
          if (got === null) {
            controller.enqueue(encoder.encode(': waiting\n\n'));
            return;
          }
          next = null;
          if (!got.done) {
            controller.enqueue(line(got.value));
            return;
          }
          controller.enqueue(encoder.encode('data: [DONE]\n\n'));
          controller.close();
        } catch (e) {
          if (stop.signal.aborted) {
            controller.close();
            return;
          }
          controller.enqueue(line(errorBody(asApiError(e, log))));
          controller.close();
        } finally {
          clearTimeout(timer);
        }
      },
      cancel() {
        stop.abort(new DOMException('the client went away', 'AbortError'));
        void chunks.return().catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    },
  });
}

/** Routes by which requests are counted; anything else is one. */
const ROUTES: readonly string[] = ['/v1/chat/completions', '/v1/models', '/health', '/ready', '/metrics'];
/** They say nothing of models, and probes have no keys. */
const OPEN: readonly string[] = ['/health', '/ready'];

export function createApp(options: AppOptions): Hono {
  const { served, keys, hosts, meter, admission, log } = options;
  const app = new Hono();
  app.use(async (c, next) => {
    const began = performance.now();
    await next();
    c.header('x-content-type-options', 'nosniff');
    const route =
      ROUTES.find((r) => c.req.path === r) ?? (c.req.path.startsWith('/v1/models/') ? '/v1/models' : 'other');
    meter.request(route, c.res.status, (performance.now() - began) / 1000);
  });
  app.use(async (c, next) => {
    const host = (c.req.header('host') ?? '').replace(/:\d+$/, '').toLowerCase();
    if (hosts && !hosts.has(host))
      throw new ApiError(
        421,
        'invalid_request_error',
        'wrong_host',
        'this server does not answer under that host name',
      );
    if (keys && !OPEN.includes(c.req.path)) {
      const key = /^Bearer (\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1];
      if (key === undefined || keys.nameOf(key) === null)
        throw new ApiError(401, 'authentication_error', 'invalid_api_key', 'wanted a key: Authorization: Bearer KEY');
    }
    await next();
  });
  app.onError((e, c) => {
    const error = asApiError(e, log);
    if (error.retryAfter !== null) c.header('retry-after', String(error.retryAfter));
    if (error.status === 401) c.header('www-authenticate', 'Bearer');
    return c.json(errorBody(error), error.status);
  });
  app.notFound((c) =>
    c.json(
      errorBody(
        new ApiError(404, 'invalid_request_error', 'not_found', `no route ${c.req.method} ${c.req.path.slice(0, 200)}`),
      ),
      404,
    ),
  );

  app.get('/health', (c) => c.json({ status: 'ok' }));
  app.get('/ready', (c) => (admission.draining ? c.json({ status: 'draining' }, 503) : c.json({ status: 'ready' })));
  app.get('/metrics', async (c) => c.text(await meter.text(), 200, { 'content-type': meter.contentType }));
  const described = (m: (typeof served.models)[number]): Record<string, unknown> => ({
    id: m.id,
    object: 'model',
    created: served.created,
    owned_by: 'temper',
    temper: { digest: m.digest, adapter: m.adapter !== null, pairs: m.pairs },
  });
  app.get('/v1/models', (c) => c.json({ object: 'list', data: served.models.map(described) }));
  app.get('/v1/models/:id{.+}', (c) => c.json(described(served.find(c.req.param('id')))));
  app.post('/v1/chat/completions', async (c) => {
    const request = readChatRequest(await readBody(c, options.maxBodyBytes), options.maxTokens, randomSeed);
    const stop = new AbortController();
    const gone = c.req.raw.signal;
    const tell = (): void => stop.abort(new DOMException('the client went away', 'AbortError'));
    if (gone.aborted) tell();
    gone.addEventListener('abort', tell, { once: true });
    return request.stream
      ? eventStream(stream(options, request, stop.signal), stop, log)
      : c.json(await answer(options, request, stop.signal));
  });
  return app;
}

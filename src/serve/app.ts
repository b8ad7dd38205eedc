// What every request passes before its route: host, key. Everything that fails is told in the shape of the API that was
// asked.
import { Hono } from 'hono';
import { type ApiService, type Env, Routes } from './api.js';
import { ApiError, asApiError, errorBody } from './api-error.js';
import { APIS } from './apis.js';
import { readBody } from './body.js';
import type { ApiKeys } from './keys.js';
import { openApiDocument } from './openapi.js';

export interface AppOptions extends Omit<ApiService, 'body'> {
  /** null: everybody who reaches the port may ask. */
  readonly keys: ApiKeys | null;
  /** Host names that a request may give; null: any. Keeps web pages of others away from a server on loopback. */
  readonly hosts: ReadonlySet<string> | null;
  readonly maxBodyBytes: number;
}
/** They say nothing of models, and probes have no keys. */
const OPEN: readonly string[] = ['/health', '/ready'];
const OTHERS: readonly string[] = [...OPEN, '/metrics', '/openapi.json'];

export function createApp(options: AppOptions): Hono<Env> {
  const { keys, hosts, meter, admission, log, maxBodyBytes } = options;
  const routes = new Routes(APIS);
  const service: ApiService = { ...options, body: (c) => readBody(c, maxBodyBytes) };
  const app = new Hono<Env>();
  app.use(async (c, next) => {
    const began = performance.now();
    await next();
    c.header('x-content-type-options', 'nosniff');
    const { path } = c.req;
    const route = OTHERS.find((r) => r === path) ?? routes.find(path)?.path ?? 'other';
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
    c.set('key', null);
    if (keys && !OPEN.includes(c.req.path)) {
      // Anthropic's clients send it by itself.
      const key = /^Bearer (\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1] ?? c.req.header('x-api-key');
      const name = key === undefined ? null : keys.nameOf(key);
      if (name === null)
        throw new ApiError(401, 'authentication_error', 'invalid_api_key', 'wanted a key: Authorization: Bearer KEY');
      c.set('key', name);
    }
    await next();
  });
  app.onError((e, c) => {
    const error = asApiError(e, log, routes.fields(c.req.path));
    if (error.retryAfter !== null) c.header('retry-after', String(error.retryAfter));
    if (error.status === 401) c.header('www-authenticate', 'Bearer');
    return c.json(routes.errorBody(c.req.path, error), error.status);
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
  app.get('/openapi.json', (c) => c.json(openApiDocument(APIS)));
  for (const api of APIS) api.register(app, service);
  return app;
}

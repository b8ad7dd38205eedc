// What every request passes before its route: host, key. Everything that fails is told in the shape of the API that was
// asked.
import { Hono } from 'hono';
import { addAdminRoutes } from './admin.js';
import { ANTHROPIC_REQUEST_ID, speaksAnthropic } from './anthropic.js';
import { type ApiRequest, type ApiService, type Env, Routes } from './api.js';
import { ApiError, asApiError } from './api-error.js';
import { APIS } from './apis.js';
import type { Bodies } from './bodies.js';
import type { CallerService, Callers } from './callers.js';
import { answerJson, type JsonBytes, jsonOf } from './json-pieces.js';
import { ANYBODY, type ApiKeys } from './keys.js';
import { openApiDocument } from './openapi.js';
import { createPlayground } from './playground.js';
import { REQUEST_ID, requestIdOf } from './request-id.js';
import type { ReviewConsole } from './review/console.js';
import type { ServedModels } from './served.js';

export interface AppOptions extends Pick<ApiService, 'responses'> {
  readonly served: ServedModels;
  readonly callers: Callers;
  /** As they are now; null: there are no admin routes. */
  readonly adminKeys: () => ApiKeys | null;
  /** Of an answer where a request does not say, as it is now. */
  readonly maxTokens: () => number;
  /** Told of faults of the server's own. */
  readonly log: (error: unknown, requestId: string) => void;
  /** Told what admins did. */
  readonly note: (line: string) => void;
  /** Host names that a request may give; null: any. Keeps web pages of others away from a server on loopback. */
  readonly hosts: ReadonlySet<string> | null;
  readonly bodies: Bodies;
  /** There is a page at `/`, as it is now. Where anybody may ask without a key, it is for this machine alone. */
  readonly playground: () => boolean;
  /** At /review, with keys of its own; absent: there is none. */
  readonly review?: ReviewConsole | null;
}
/** Tells the receipt of the last verdict in the log in a header too, where the head of the answer waits for it. */
function withReceipts(service: CallerService, c: ApiRequest): CallerService {
  const log = service.holding?.log;
  if (!log) return service;
  const append: typeof log.append = async (record) => {
    const told = await log.append(record);
    if (!c.finalized) c.header(RECEIPT_HEADER, told.receipt);
    return told;
  };
  return { ...service, holding: { ...service.holding, log: { append } } };
}
export const RECEIPT_HEADER = 'x-temper-receipt';

const NOSNIFF = ['x-content-type-options', 'nosniff'] as const;
/** On every answer of a server that releases what is not allowed. */
export const SHADOW_HEADER = ['temper-screening', 'shadow'] as const;
/** They say nothing of models, and probes have no keys. */
const OPEN: readonly string[] = ['/health', '/ready'];
const OTHERS: readonly string[] = [...OPEN, '/metrics', '/openapi.json'];

let description: Promise<JsonBytes> | undefined;
/** All APIs, as /openapi.json tells them: made once. */
export function describeApis(): Promise<JsonBytes> {
  description ??= openApiDocument(APIS).then(jsonOf);
  return description;
}

export function createApp(options: AppOptions): Hono<Env> {
  const { served, callers, hosts, log, responses, bodies, review = null } = options;
  const { meter, admission, holding } = callers.parts;
  const shadow = holding?.mode === 'shadow';
  const routes = new Routes(APIS);
  const page = createPlayground({
    shown: () => options.playground() && (hosts !== null || callers.wantsKeys),
    keysWanted: () => callers.wantsKeys,
  });
  const logOf = (c: ApiRequest) => (error: unknown) => log(error, c.get('requestId'));
  /** What every answer says in its head. */
  const headersOf = (c: ApiRequest): readonly (readonly [name: string, value: string])[] => {
    const id = c.get('requestId');
    return [
      [REQUEST_ID, id],
      NOSNIFF,
      ...(speaksAnthropic(c) ? ([[ANTHROPIC_REQUEST_ID, id]] as const) : []),
      ...(shadow ? [SHADOW_HEADER] : []),
    ];
  };
  // Field by field: a literal that begins with a spread is slow.
  const serviceOf = (c: ApiRequest): ApiService => {
    const caller = withReceipts(callers.serviceFor(c.get('caller')), c);
    return {
      served: caller.served,
      screen: caller.screen,
      holding: caller.holding,
      reasoning: caller.reasoning,
      meter: caller.meter,
      owner: caller.owner ?? null,
      admission: caller.admission,
      countRequest: caller.countRequest,
      maxTokens: options.maxTokens(),
      responses,
      read: (request, name) => bodies.readAs(request, name, options.maxTokens(), () => served.engine.info),
      log: logOf(c),
    };
  };
  const app = new Hono<Env>();
  app.use(async (c, next) => {
    const began = performance.now();
    c.set(
      'requestId',
      requestIdOf((name) => c.req.header(name)),
    );
    const headers = headersOf(c),
      out = c.env?.outgoing;
    // Streams write their own heads.
    for (const [name, value] of headers) out?.setHeader(name, value);
    await next();
    // An answer that a route made by itself has none of the headers that were set before.
    if (!out) for (const [name, value] of headers) c.header(name, value);
    const { path } = c.req;
    const route =
      OTHERS.find((r) => r === path) ??
      (page.has(path) ? '/' : review?.has(path) ? '/review' : undefined) ??
      routes.find(path)?.path ??
      'other';
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
    const { path } = c.req;
    if (!OPEN.includes(path) && !page.has(path) && !path.startsWith('/admin/') && !review?.has(path)) {
      const caller = callers.identify((name) => c.req.header(name));
      c.set('caller', caller);
      c.set('key', caller === ANYBODY ? null : caller.name);
    }
    await next();
  });
  app.onError((e, c) => {
    const error = asApiError(e, logOf(c), routes.fields(c.req.path));
    if (error.retryAfter !== null) c.header('retry-after', String(error.retryAfter));
    if (error.status === 401) c.header('www-authenticate', 'Bearer');
    return c.json(routes.errorBody(c, error), error.status);
  });
  app.notFound((c) => {
    const { method, path } = c.req,
      asked = `${method} ${path.slice(0, 200)}`;
    const methods: readonly string[] = OTHERS.includes(path) ? ['get'] : (routes.find(path)?.methods ?? []);
    if (methods.length === 0 || methods.includes(method.toLowerCase())) {
      const none = new ApiError(404, 'invalid_request_error', 'not_found', `no route ${asked}`);
      return c.json(routes.errorBody(c, none), none.status);
    }
    const allow = methods.flatMap((m) => (m === 'get' ? ['GET', 'HEAD'] : [m.toUpperCase()])).join(', ');
    const refused = new ApiError(405, 'invalid_request_error', 'method_not_allowed', `no ${asked}; wanted ${allow}`);
    return c.json(routes.errorBody(c, refused), refused.status, { allow });
  });
  app.get('/health', (c) => c.json({ status: 'ok' }));
  app.get('/ready', (c) => (admission.draining ? c.json({ status: 'draining' }, 503) : c.json({ status: 'ready' })));
  app.get('/metrics', async (c) => c.text(await meter.text(), 200, { 'content-type': meter.contentType }));
  app.get('/openapi.json', async (c) => answerJson(c, await describeApis()));
  page.register(app);
  review?.register(app);
  for (const api of APIS) api.register(app, serviceOf);
  addAdminRoutes(app, { served, callers, keys: options.adminKeys, readBody: (c) => bodies.read(c), log: options.note });
  return app;
}

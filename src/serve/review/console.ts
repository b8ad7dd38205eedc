// The review console at /review: a page, and what it asks for. It is there where a key file of reviewers and a store
// are given. Texts that were held stand in the answers of `items/ID` and `golden.jsonl` alone.
import { z } from 'zod';
import { StoreError, TemperError } from '../../base/errors.js';
import { agreementOf, countsOf, goldenRows, itemOf, pageOf } from '../../store/review-pages.js';
import { QUEUES, REVIEW_ACTIONS } from '../../store/review-types.js';
import type { Reviews } from '../../store/reviews.js';
import { createSessions } from '../../store/sessions.js';
import type { ApiApp, ApiRequest } from '../api.js';
import { ApiError, badRequest } from '../api-error.js';
import type { KeyEntry } from '../keys.js';
import { PAGE_HEADERS, readPageFiles } from '../page-files.js';
import { Attempts } from './attempts.js';
import { createDoors, type ReviewerKeys, requireOwnPage, reviewerKeys } from './doors.js';

export interface ReviewConsoleOptions {
  readonly reviews: Reviews;
  /** As they are now; null: there is no console. */
  readonly keys: () => readonly KeyEntry[] | null;
  readonly tls: boolean;
  readonly readBody: (c: ApiRequest) => Promise<unknown>;
  /** One line for each sign-in and each action, with the name of the key. */
  readonly note: (line: string) => void;
  /** Faults that a reader is not told of. */
  readonly log: (e: unknown) => void;
}
export interface ReviewConsole {
  /** A path that has its own keys. */
  has(path: string): boolean;
  register(app: ApiApp): void;
}

const Login = z.strictObject({ key: z.string().min(1).max(1024) });
const Action = z.strictObject({
  note: z.string().max(4000).optional(),
  label: z.enum(['allow', 'block']).optional(),
  rule: z.string().min(1).max(128).optional(),
});
const Query = z.strictObject({
  queue: z.enum(QUEUES).optional(),
  policy: z.string().max(256).optional(),
  channel: z.string().max(256).optional(),
  after: z.string().max(64).optional(),
  limit: z.coerce.number().int().min(1).max(200).optional(),
});
const Days = z.strictObject({ days: z.coerce.number().int().min(1).max(3650).default(30) });
const DAY_MS = 24 * 3600 * 1000;

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = issue?.path.join('.') ?? '';
  throw badRequest('invalid_value', `${path === '' ? 'the request' : path}: ${issue?.message}`, path || null);
}
/** What people may know of a refusal: rules of reviewing, and that the store or the log is not there. */
function asReviewError(e: unknown, log: (e: unknown) => void): unknown {
  if (e instanceof StoreError || (e instanceof TemperError && e.exitCode === 30)) {
    log(e);
    return new ApiError(
      503,
      'server_error',
      'unavailable',
      'the store or the log does not answer: nothing was changed',
    );
  }
  if (!(e instanceof TemperError) || !e.code.startsWith('review_')) return e;
  if (e.code === 'review_unknown') return new ApiError(404, 'invalid_request_error', e.code, e.message);
  return badRequest(e.code, e.message);
}

export function createReviewConsole(options: ReviewConsoleOptions): ReviewConsole {
  const { reviews, note, log } = options;
  const { store } = reviews;
  const files = readPageFiles('review', '/review');
  const attempts = new Attempts();
  const sessions = createSessions(store);
  let known: { readonly entries: readonly KeyEntry[] | null; readonly keys: ReviewerKeys } | null = null;
  const keys = (): ReviewerKeys => {
    const entries = options.keys();
    if (known?.entries !== entries) known = { entries, keys: reviewerKeys(entries ?? []) };
    return (known as NonNullable<typeof known>).keys;
  };
  const doors = createDoors(sessions, keys, options.tls);
  const shown = (): boolean => options.keys() !== null;
  const has = (path: string): boolean => shown() && (path === '/review' || path.startsWith('/review/'));
  const json = (c: ApiRequest, value: object, headers: Record<string, string> = {}): Response =>
    c.json(value, 200, { 'cache-control': 'no-store', ...headers });
  /** A route of the console, with its errors. */
  const route =
    (work: (c: ApiRequest) => Promise<Response>) =>
    async (c: ApiRequest, next: () => Promise<void>): Promise<Response | undefined> => {
      if (!shown()) {
        await next();
        return undefined;
      }
      try {
        return await work(c);
      } catch (e) {
        throw asReviewError(e, log);
      }
    };

  async function signIn(c: ApiRequest): Promise<Response> {
    requireOwnPage(c, true);
    const address = c.env?.incoming?.socket.remoteAddress ?? '';
    const wait = attempts.take(address);
    if (wait > 0) {
      throw new ApiError(429, 'rate_limit_error', 'too_many_attempts', `too many attempts; wait ${wait} s`, null, wait);
    }
    const { key } = parse(Login, await options.readBody(c));
    const found = keys().find(key);
    if (!found) {
      note(`review: a sign-in with a wrong key from ${address || 'an unknown address'}`);
      throw new ApiError(401, 'authentication_error', 'invalid_api_key', 'this is the key of no reviewer');
    }
    attempts.giveBack(address);
    const { token, csrf, name } = await sessions.begin(found.name, found.digest);
    note(`review: ${name} signed in`);
    return json(c, { name, csrf, twoPersons: reviews.twoPersons }, { 'set-cookie': doors.cookie(c, token) });
  }
  async function act(c: ApiRequest): Promise<Response> {
    const { name } = await doors.writer(c);
    const action = REVIEW_ACTIONS.find((a) => a === c.req.param('action'));
    if (!action) throw new ApiError(404, 'invalid_request_error', 'not_found', 'no such action');
    const id = c.req.param('id') ?? '';
    const acted = await reviews.act(id, { who: name, action, ...parse(Action, await options.readBody(c)) });
    note(`review: ${name}: ${action} ${id.slice(0, 64)}: ${acted.state}${acted.releases ? ', released' : ''}`);
    return json(c, { ...acted, item: await itemOf(store, id) });
  }
  async function golden(c: ApiRequest): Promise<Response> {
    await doors.reader(c);
    async function* lines(): AsyncGenerator<Uint8Array, void, void> {
      for await (const row of goldenRows(store, c.req.query('policy'))) yield Buffer.from(`${JSON.stringify(row)}\n`);
    }
    return c.body(ReadableStream.from(lines()) as ReadableStream<Uint8Array>, 200, {
      'content-type': 'application/jsonl; charset=utf-8',
      'content-disposition': 'attachment',
      'cache-control': 'no-store',
    });
  }

  return {
    has,
    register(app) {
      for (const [path, { type, text }] of files)
        app.get(
          path,
          route(async (c) => c.body(text, 200, { ...PAGE_HEADERS, 'content-type': type })),
        );
      app.post('/review/session', route(signIn));
      app.get(
        '/review/session',
        route(async (c) => json(c, { ...(await doors.reader(c)), twoPersons: reviews.twoPersons })),
      );
      app.delete(
        '/review/session',
        route(async (c) => {
          await doors.writer(c);
          await doors.end(c);
          return json(c, { ended: true }, { 'set-cookie': doors.cookie(c, null) });
        }),
      );
      app.get(
        '/review/items',
        route(async (c) => {
          await doors.reader(c);
          return json(c, await pageOf(store, parse(Query, c.req.query())));
        }),
      );
      app.get(
        '/review/counts',
        route(async (c) => {
          await doors.reader(c);
          return json(c, await countsOf(store));
        }),
      );
      app.get(
        '/review/agreement',
        route(async (c) => {
          await doors.reader(c);
          const { days } = parse(Days, c.req.query());
          return json(c, await agreementOf(store, Date.now() - days * DAY_MS));
        }),
      );
      app.get('/review/golden.jsonl', route(golden));
      app.get(
        '/review/items/:id',
        route(async (c) => {
          await doors.reader(c);
          const item = await itemOf(store, c.req.param('id') ?? '');
          if (!item) throw new ApiError(404, 'invalid_request_error', 'review_unknown', 'there is no such item');
          return json(c, item);
        }),
      );
      app.post('/review/items/:id/:action', route(act));
    },
  };
}

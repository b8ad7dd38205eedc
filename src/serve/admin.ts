// What an owner of an admin key may do while the server runs: load, replace and unload adapters, say who may use them,
// and see what is taken. Without admin keys these routes are not there.
import { z } from 'zod';
import { TemperError } from '../base/errors.js';
import type { ApiApp, ApiRequest } from './api.js';
import { ApiError, badRequest } from './api-error.js';
import type { Callers } from './callers.js';
import { type ApiKeys, bearerOf } from './keys.js';
import { ADAPTER_STATUSES, type ServedModel, type ServedModels } from './served.js';

export interface AdminOptions {
  readonly served: ServedModels;
  readonly callers: Callers;
  /** As they are now; null: nobody. */
  readonly keys: () => ApiKeys | null;
  readonly readBody: (c: ApiRequest) => Promise<unknown>;
  /** One line for each thing that was done, with the name of the key. */
  readonly log: (line: string) => void;
}
const status = z.enum(ADAPTER_STATUSES);
const Load = z.strictObject({
  name: z.string().min(1),
  /** A folder on the server's machine. */
  path: z.string().min(1),
  status: status.default('candidate'),
});
const Change = z.strictObject({ status });

/** How a model is told of, here and in /v1/models. */
export const describeModel = (m: ServedModel): Record<string, unknown> => ({
  digest: m.digest,
  adapter: m.adapter !== null,
  pairs: m.pairs,
  tensors: 2 * m.pairs,
  status: m.status,
  ...(m.gate ? { gate: m.gate } : {}),
});
const adapterOf = (m: ServedModel): Record<string, unknown> => ({ name: m.id, path: m.folder, ...describeModel(m) });

function parse<T>(schema: z.ZodType<T>, json: unknown): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = issue?.path.join('.') ?? '';
  throw badRequest('invalid_value', `${path === '' ? 'the body' : path}: ${issue?.message}`, path === '' ? null : path);
}

/** What is wrong with a folder, or a name for it, is told to who gave it. */
async function told<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (e) {
    if (e instanceof TemperError && e.exitCode !== 1 && e.code !== 'engine_closed' && e.code !== 'worker_exit')
      throw badRequest(e.code, e.message, e.code === 'bad_option' ? 'name' : 'path');
    throw e;
  }
}

export function addAdminRoutes(app: ApiApp, { served, callers, keys, readBody, log }: AdminOptions): void {
  const who = (c: ApiRequest): string => {
    const known = keys();
    if (known === null)
      throw new ApiError(
        404,
        'invalid_request_error',
        'not_found',
        'there are no admin routes: no admin key was given',
      );
    const given = bearerOf(c.req.header('authorization'));
    const key = given === undefined ? null : known.find(given);
    if (key === null)
      throw new ApiError(
        401,
        'authentication_error',
        'invalid_api_key',
        'wanted an admin key: Authorization: Bearer KEY',
      );
    return key.name;
  };
  const adapters = (): readonly ServedModel[] => served.models.filter((m) => m.adapter !== null);

  app.get('/admin/adapters', (c) => {
    who(c);
    return c.json({ object: 'list', data: adapters().map(adapterOf) });
  });
  app.post('/admin/adapters', async (c) => {
    const admin = who(c);
    const { name, path, status } = parse(Load, await readBody(c));
    const replaced = adapters().some((m) => m.id === name);
    const model = await told(served.load(name, path, status, c.req.raw.signal));
    log(`admin ${admin}: ${replaced ? 'replaced' : 'loaded'} adapter ${name} (${status}), sha256 ${model.digest}`);
    return c.json({ ...adapterOf(model), replaced }, replaced ? 200 : 201);
  });
  app.patch('/admin/adapters/:name{.+}', async (c) => {
    const admin = who(c);
    const { status } = parse(Change, await readBody(c));
    const model = served.setStatus(c.req.param('name'), status);
    log(`admin ${admin}: adapter ${model.id} is ${status}`);
    return c.json(adapterOf(model));
  });
  app.delete('/admin/adapters/:name{.+}', async (c) => {
    const admin = who(c);
    const name = c.req.param('name');
    await told(served.unload(name));
    log(`admin ${admin}: unloaded adapter ${name}`);
    return c.json({ name, deleted: true });
  });
  app.get('/admin/state', async (c) => {
    who(c);
    const { admission } = callers.parts;
    return c.json({
      running: admission.running,
      waiting: admission.waiting,
      draining: admission.draining,
      keys: callers.limits.running,
      engine: await served.engine.state(),
    });
  });
}

// GET /v1/models: base and adapters by the names that requests give, in the form of the client that asks.
import { z } from 'zod';
import { describeModel } from './admin.js';
import { errorForClient, speaksAnthropic } from './anthropic.js';
import type { Api, ApiService } from './api.js';
import { badRequest } from './api-error.js';
import { parseQuery } from './request-fields.js';
import type { ServedModel } from './served.js';

const described = ({ served }: ApiService, m: ServedModel): Record<string, unknown> => ({
  id: m.id,
  object: 'model',
  created: served.created,
  owned_by: 'temper',
  temper: describeModel(m),
});
const describedToAnthropic = ({ served }: ApiService, m: ServedModel): Record<string, unknown> => ({
  type: 'model',
  id: m.id,
  display_name: m.id,
  created_at: new Date(served.created * 1000).toISOString(),
  capabilities: null,
  lifecycle: 'active',
  deprecated_at: null,
  retires_at: null,
  line: null,
  max_input_tokens: served.engine.info.contextTokens,
  max_tokens: served.engine.info.contextTokens,
  temper: describeModel(m),
});

const beta = { beta: z.enum(['true', 'false']).optional().describe('changes nothing') };
/** Of Anthropic's form alone; in OpenAI's the list is whole, whatever is asked for. */
const listQuery = {
  limit: z
    .string()
    .regex(/^([1-9]\d{0,2}|1000)$/, 'wanted 1 to 1000')
    .optional()
    .describe("of Anthropic's form: how many, default 20"),
  after_id: z.string().optional().describe("of Anthropic's form: those after the model of that id"),
  before_id: z.string().optional().describe("of Anthropic's form: those right before it"),
  ...beta,
};
type ListQuery = z.infer<z.ZodObject<typeof listQuery>>;

/** @throws {ApiError} 400 */
function anthropicPage(service: ApiService, query: ListQuery): Record<string, unknown> {
  const { models } = service.served,
    { limit = '20', after_id, before_id } = query,
    count = Number(limit);
  if (after_id !== undefined && before_id !== undefined)
    throw badRequest('invalid_value', 'before_id: wanted this or after_id, not both', 'before_id');
  const place = (name: 'after_id' | 'before_id'): number => {
    const at = models.findIndex((m) => m.id === query[name]);
    if (at < 0) throw badRequest('invalid_value', `${name}: names no model`, name);
    return at;
  };
  const end = before_id === undefined ? models.length : place('before_id'),
    start = after_id === undefined ? 0 : place('after_id') + 1;
  const data = before_id === undefined ? models.slice(start, start + count) : models.slice(0, end).slice(-count);
  return {
    data: data.map((m) => describedToAnthropic(service, m)),
    has_more: data.length < end - start,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
  };
}

export const models: Api = {
  shapes: () => import('./wire-models.js'),
  operations: [
    {
      method: 'get',
      path: '/v1/models',
      summary:
        "Base and adapters, with their digests; in Anthropic's form where the header `anthropic-version` is sent.",
      query: listQuery,
      answer: 'ModelsAnswerShape',
    },
    {
      method: 'get',
      path: '/v1/models/{model}',
      summary: 'One of them, in the same forms.',
      query: beta,
      answer: 'ModelAnswerShape',
    },
  ],
  errorBody: errorForClient,
  errorShape: 'ModelsErrorShape',
  register(app, serviceOf) {
    app.get('/v1/models', (c) => {
      const service = serviceOf(c);
      if (speaksAnthropic(c)) return c.json(anthropicPage(service, parseQuery(c.req.query(), listQuery)));
      return c.json({ object: 'list', data: service.served.models.map((m) => described(service, m)) });
    });
    app.get('/v1/models/:model{.+}', (c) => {
      const service = serviceOf(c),
        model = service.served.find(c.req.param('model'));
      return c.json(speaksAnthropic(c) ? describedToAnthropic(service, model) : described(service, model));
    });
  },
};

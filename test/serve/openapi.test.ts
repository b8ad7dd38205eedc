// /openapi.json: a validator reads it, it names every route, and what is answered is what it says.
import SwaggerParser from '@apidevtools/swagger-parser';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { APIS } from '../../src/serve/apis.js';
import { openApiDocument } from '../../src/serve/openapi.js';
import { CALLS, SAYS, type ScriptedApp, scriptedApp, scriptedEngine, tokensOf } from './scripted.js';

type Json = Record<string, unknown>;
interface Response {
  readonly content: Record<string, { readonly schema: Json; readonly 'x-event-data'?: Json }>;
}
interface Operation {
  readonly operationId: string;
  readonly responses: Record<string, Response>;
  readonly requestBody?: { readonly content: Record<string, { readonly schema: Json }> };
  readonly security: readonly Json[];
}
const document = (await openApiDocument(APIS)) as unknown as {
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly schemas: Record<string, Json> };
};
const operations = Object.entries(document.paths).flatMap(([path, of]) =>
  Object.entries(of).map(([method, o]) => ({ method, path, ...o })),
);
const ajv = new Ajv2020({ strict: false, validateFormats: false });
/** References to schemas of the document, as names. */
const named = (schema: unknown): Json =>
  JSON.parse(JSON.stringify(schema).replaceAll('"#/components/schemas/', '"temper:')) as Json;
for (const [name, schema] of Object.entries(document.components.schemas))
  ajv.addSchema({ $id: `temper:${name}`, ...named(schema) });
const known = new Map<string, ValidateFunction>();
/** What is wrong with a value by a schema of the document; null: nothing. */
function wrong(schema: Json, value: unknown): unknown {
  const key = JSON.stringify(schema);
  const validate = known.get(key) ?? ajv.compile(named(schema));
  known.set(key, validate);
  return validate(value) ? null : { errors: validate.errors?.slice(0, 3), value };
}
const find = (method: string, path: string): Operation => {
  const found = document.paths[path]?.[method];
  if (!found) throw new Error(`${method} ${path} is not in the document`);
  return found;
};

const parameters = { type: 'object', properties: { at: { type: 'string' } } };
const messages = [{ role: 'user', content: 'hi' }];
/** Of every route that takes a body, some that it answers. */
const BODIES: Readonly<Record<string, readonly Json[]>> = {
  '/v1/chat/completions': [
    { model: 'm', messages },
    {
      ...{ model: 'm', messages, user: 'u', safety_identifier: 's', prompt_cache_key: 'k', service_tier: 'auto' },
      ...{ modalities: ['text'], audio: null, function_call: 'auto' },
    },
    { model: 'm', messages, n: 2, tools: [{ type: 'function', function: { name: 'look', parameters } }] },
  ],
  '/v1/completions': [
    { model: 'm', prompt: 'a', user: 'u', suffix: '' },
    { model: 'm', prompt: [1, 2], echo: true, logprobs: 2, n: 2 },
  ],
  '/v1/responses': [
    { model: 'm', input: 'hi', metadata: { a: 'b' }, user: 'u', max_tool_calls: 3, conversation: null },
    { model: 'm', input: 'hi', tools: [{ type: 'function', name: 'look', parameters, strict: false }] },
    { model: 'm', input: 'hi', include: ['reasoning.encrypted_content', 'message.output_text.logprobs'] },
  ],
  '/v1/messages': [
    { model: 'm', max_tokens: 9, messages, metadata: { user_id: 'u' }, service_tier: 'auto', mcp_servers: [] },
    {
      model: 'm',
      max_tokens: 9,
      messages,
      thinking: { type: 'enabled', budget_tokens: 2000 },
      tools: [{ name: 'look', input_schema: parameters }],
    },
  ],
  '/v1/messages/count_tokens': [{ model: 'm', messages }],
  '/v1/responses/input_tokens': [{ model: 'm', input: 'hi' }],
};
const apps: readonly (readonly [string, ScriptedApp])[] = [SAYS, CALLS, '<|channel|>final<|message|>cut o'].map(
  (text) => [text, scriptedApp(scriptedEngine(() => tokensOf(text)).engine)],
);

describe('the document', () => {
  it('is valid OpenAPI 3.1', async () => {
    const copy = structuredClone(document) as unknown as Parameters<typeof SwaggerParser.validate>[0];
    await expect(SwaggerParser.validate(copy)).resolves.toMatchObject({ openapi: '3.1.0' });
  });
  it('names every route that is there, and no other', () => {
    const [, app] = apps[0]!;
    /** Of people, of admins, and itself. */
    const others = /^\/($|playground\/|admin\/|openapi\.json$)/;
    const there = app.app.routes
      .filter((r) => r.method !== 'ALL' && !others.test(r.path))
      .map((r) => `${r.method} ${r.path.replaceAll(/:(\w+)(\{[^}]*\})?/g, '{$1}')}`);
    expect(operations.map((o) => `${o.method.toUpperCase()} ${o.path}`).sort()).toEqual([...new Set(there)].sort());
  });
  it('says what each answers, how it fails, and which keys it takes', () => {
    expect(new Set(operations.map((o) => o.operationId)).size).toBe(operations.length);
    for (const o of operations.filter(({ path }) => path.startsWith('/v1/'))) {
      expect([o.path, o.responses[200]?.content['application/json']?.schema.$ref]).toEqual([
        o.path,
        expect.any(String),
      ]);
      for (const status of ['400', '401', '403', '404', '429', '503', 'default'])
        expect([o.path, status, o.responses[status]?.content['application/json']?.schema.$ref]).toEqual([
          o.path,
          status,
          expect.stringMatching(/Error$/),
        ]);
      expect(o.security).toEqual([{ bearer: [] }, { apiKey: [] }, {}]);
    }
  });
});

describe('what is answered', () => {
  it('keeps to it: whole, streamed, and where it fails', async () => {
    let [answers, events, failures] = [0, 0, 0];
    for (const [path, bodies] of Object.entries(BODIES)) {
      const { responses, requestBody } = find('post', path);
      const { content } = responses[200]!;
      for (const [, app] of apps)
        for (const body of bodies) {
          expect(wrong(requestBody!.content['application/json']!.schema, body)).toBe(null);
          expect(wrong(content['application/json']!.schema, await app.json(path, body))).toBe(null);
          answers++;
          const data = content['text/event-stream']?.['x-event-data'];
          for (const event of data ? await app.events(path, body) : []) {
            if (event.type === '[DONE]') continue;
            expect(wrong(data!, event)).toBe(null);
            events++;
          }
        }
      const [, app] = apps[0]!;
      const first = bodies[0]!;
      for (const odd of [{ ...first, model: 'none' }, { ...first, colour: 1 }, { ...first, model: 3 }, []]) {
        const response = await app.post(path, odd);
        const failed = responses[response.status] ?? responses.default!;
        expect([odd, wrong(failed.content['application/json']!.schema, await response.json())]).toEqual([odd, null]);
        failures++;
      }
    }
    expect([answers, events > 300, failures]).toEqual([36, true, 24]);
  });
  it('keeps to it where nothing is posted, too', async () => {
    const [, app] = apps[0]!;
    const { id } = await app.json('/v1/responses', { model: 'm', input: 'hi' });
    const chat = await app.json('/v1/chat/completions', { model: 'm', messages, store: true, metadata: { a: 'b' } });
    const asked = operations.filter((o) => o.method === 'get' && o.path !== '/metrics');
    for (const { method, path, responses } of asked) {
      const url = path.replace('{id}', String(path.includes('/chat/') ? chat.id : id)).replace('{model}', 'm');
      for (const headers of path.includes('/models') ? [{}, { 'anthropic-version': '2023-06-01' }] : [{}]) {
        const response = await app.app.request(url, { headers });
        expect([url, response.status]).toEqual([url, 200]);
        const { schema } = find(method, path).responses[200]!.content['application/json']!;
        expect([url, wrong(schema, await response.json())]).toEqual([url, null]);
        const failed = responses.default?.content['application/json']?.schema;
        if (!path.includes('{')) continue;
        const none = await app.app.request(path.replaceAll(/\{\w+\}/g, 'none'), { headers });
        expect([path, none.status, wrong(failed!, await none.json())]).toEqual([path, 404, null]);
      }
    }
    expect(asked.length).toBeGreaterThan(5);
    const relabelled = find('post', '/v1/chat/completions/{id}').responses[200]!.content['application/json']!.schema;
    const path = `/v1/chat/completions/${String(chat.id)}`;
    expect(wrong(relabelled, await app.json(path, { metadata: null }))).toBe(null);
    const deleted = await (await app.app.request(`/v1/responses/${String(id)}`, { method: 'DELETE' })).json();
    const { schema } = find('delete', '/v1/responses/{id}').responses[200]!.content['application/json']!;
    expect(wrong(schema, deleted)).toBe(null);
  });
  it('a schema that is broken is seen', () => {
    const { schema } = find('get', '/v1/models').responses[200]!.content['application/json']!;
    expect(wrong(schema, { object: 'list', data: [{ id: 3 }] })).not.toBe(null);
    expect(wrong(schema, { object: 'list', data: [], more: 1 })).not.toBe(null);
  });
});

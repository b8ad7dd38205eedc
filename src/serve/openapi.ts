// /openapi.json: made of the schemas that requests are read by and of those that tests hold answers to.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { packageRoot } from '../base/machine.js';
import type { Api, Operation } from './api.js';
import type { Unsupported } from './request-fields.js';

type Json = Record<string, unknown>;
const SCHEMAS = '#/components/schemas/';

/** A shape of an API by its name. */
type Shape = (name: string) => z.ZodType;

/** Schemas of a document; those with an id stand in it once. */
class Components {
  readonly schemas: Json = {};

  /** @returns a reference, where it has an id */
  async of(schema: z.ZodType, io: 'input' | 'output'): Promise<Json> {
    await setImmediate(); // each takes long
    const { $schema: _, $defs, ...json } = z.toJSONSchema(schema, { io, unrepresentable: 'any' }) as Json;
    for (const [name, def] of Object.entries(($defs ?? {}) as Json)) this.schemas[name] ??= local(def);
    return local(json) as Json;
  }
}
/** References lead to where the document has them. */
function local(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(local);
  if (typeof json !== 'object' || json === null) return json;
  return Object.fromEntries(
    Object.entries(json).map(([k, v]) => [
      k,
      k === '$ref' && typeof v === 'string' ? v.replace('#/$defs/', SCHEMAS) : local(v),
    ]),
  );
}

/** `post /v1/chat/completions` is postV1ChatCompletions. */
const operationId = ({ method, path }: Operation): string =>
  [method, ...path.split(/\W+/).filter((w) => w !== '')]
    .map((w, i) => (i === 0 ? w : w.slice(0, 1).toUpperCase() + w.slice(1)))
    .join('');
const tagOf = ({ path }: Operation): string => path.split('/')[2] ?? path.slice(1);
const json = (schema: Json): Json => ({ 'application/json': { schema } });
const headers = { 'x-request-id': { $ref: '#/components/headers/RequestId' } };

/** A stream as OpenAPI 3.1 can tell it: a text, and what the data of each event is. */
async function streamOf(
  { data, named, done }: NonNullable<Operation['event']>,
  shape: Shape,
  components: Components,
): Promise<Json> {
  const said = [
    'Server-sent events: the `data` of each is JSON of the schema in `x-event-data`',
    named ? ', its name is the `type` in it' : '',
    done ? '; the last one says `[DONE]`' : '',
    '. Comments may come between them.',
  ];
  return {
    schema: { type: 'string', description: said.join('') },
    'x-event-data': await components.of(shape(data), 'output'),
  };
}

const NONE_BESIDE: Unsupported = { nothing: {}, readPast: [] };
const FAILURES: Readonly<Record<string, string>> = {
  400: 'The request asks for what cannot be, or is not built: `param` names the field.',
  401: 'No key, or one that nobody has.',
  403: 'The key may not do that.',
  404: 'The model, or what the path names, is not there.',
  413: 'The body is too large.',
  429: 'No room now; `Retry-After` says when to come again.',
  503: 'The server is stopping, or its engine is not running.',
  default: 'Any other failure.',
};

/** A body, with the fields that it may have and that change nothing. */
async function bodyOf(body: z.ZodType, { nothing, readPast }: Unsupported, components: Components): Promise<Json> {
  const { properties, ...rest } = await components.of(body, 'input');
  const past = readPast.map((name) => [name, { description: 'changes nothing' }]);
  const empty = Object.entries(nothing).map(([name, values]) => [
    name,
    { enum: [null, ...values], description: 'by anything else it would ask for what is not done here' },
  ]);
  return { ...rest, properties: { ...(properties as Json), ...Object.fromEntries([...past, ...empty]) } };
}

async function operation(o: Operation, shape: Shape, error: z.ZodType, components: Components): Promise<Json> {
  const path = [...o.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const query: Json[] = [];
  for (const [name, schema] of Object.entries(o.query ?? {})) {
    const { description, ...own } = await components.of(schema, 'input');
    // As in metadata[NAME]=VALUE.
    const style = own.type === 'object' ? { style: 'deepObject', explode: true } : {};
    query.push({ name, in: 'query', required: false, ...style, ...(description ? { description } : {}), schema: own });
  }
  const parameters = [...path, ...query];
  const content = {
    ...json(await components.of(shape(o.answer), 'output')),
    ...(o.event ? { 'text/event-stream': await streamOf(o.event, shape, components) } : {}),
  };
  const failed = json(await components.of(error, 'output'));
  return {
    tags: [tagOf(o)],
    summary: o.summary,
    operationId: operationId(o),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(o.body
      ? { requestBody: { required: true, content: json(await bodyOf(o.body, o.beside ?? NONE_BESIDE, components)) } }
      : {}),
    responses: {
      200: { description: 'OK', headers, content },
      ...Object.fromEntries(
        Object.entries(FAILURES).map(([status, description]) => [status, { description, headers, content: failed }]),
      ),
    },
    security: [{ bearer: [] }, { apiKey: [] }, {}],
  };
}

/** Routes that no key is asked for. */
async function openRoutes(components: Components): Promise<Json> {
  const { HealthShape, ReadyShape } = await import('./wire-models.js');
  const get = (id: string, summary: string, responses: Json): Json => ({
    get: { tags: ['probes'], summary, operationId: id, responses, security: [{}] },
  });
  const ready = json(await components.of(ReadyShape, 'output'));
  return {
    '/health': get('getHealth', 'The process lives.', {
      200: { description: 'OK', content: json(await components.of(HealthShape, 'output')) },
    }),
    '/ready': get('getReady', 'It takes requests.', {
      200: { description: 'OK', content: ready },
      503: { description: 'It is stopping.', content: ready },
    }),
  };
}
const metrics = {
  get: {
    tags: ['probes'],
    summary: 'Figures, as Prometheus reads them.',
    operationId: 'getMetrics',
    responses: { 200: { description: 'OK', content: { 'text/plain': { schema: { type: 'string' } } } } },
    security: [{ bearer: [] }, { apiKey: [] }, {}],
  },
};

let version: string | undefined;
const packageVersion = (): string =>
  (version ??= (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version);

/** An OpenAPI 3.1 document of all routes of some APIs, made a schema in each turn of the event loop: all take long. */
export async function openApiDocument(apis: readonly Api[]): Promise<Json> {
  const components = new Components();
  const paths: Record<string, Json> = {};
  const { ErrorShape } = await import('./wire-shared.js');
  for (const api of apis) {
    const shapes = await api.shapes(),
      shape: Shape = (name) => shapes[name] as z.ZodType,
      error = api.errorShape === undefined ? ErrorShape : shape(api.errorShape);
    for (const o of api.operations) {
      paths[o.path] = { ...paths[o.path], [o.method]: await operation(o, shape, error, components) };
    }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Temper',
      version: packageVersion(),
      description: 'gpt-oss and its adapters, behind the APIs that clients know.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    paths: { ...paths, ...(await openRoutes(components)), '/metrics': metrics },
    components: {
      schemas: components.schemas,
      headers: {
        RequestId: {
          description: 'What the request is called: by its own `x-request-id` or `x-client-request-id`, or made here.',
          required: true,
          schema: { type: 'string' },
        },
      },
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', description: 'Where the server has keys.' },
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key', description: 'The same, as /v1/messages has it.' },
      },
    },
  };
}

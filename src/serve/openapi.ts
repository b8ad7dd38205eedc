// /openapi.json: made of the schemas that requests are read by.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { packageRoot } from '../base/machine.js';
import type { Api, Operation } from './api.js';

type Json = Record<string, unknown>;

const error = {
  description: 'What went wrong.',
  content: { 'application/json': { schema: { type: 'object', required: ['error'] } } },
};
const schemaOf = (schema: z.ZodType): Json => {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Json;
  return json;
};

/** `post /v1/chat/completions` is postV1ChatCompletions. */
const operationId = ({ method, path }: Operation): string =>
  [method, ...path.split(/\W+/).filter((w) => w !== '')]
    .map((w, i) => (i === 0 ? w : w.slice(0, 1).toUpperCase() + w.slice(1)))
    .join('');

function operation(o: Operation): Json {
  const parameters = [...o.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const content: Json = { 'application/json': { schema: { type: 'object' } } };
  if (o.streams) content['text/event-stream'] = { schema: { type: 'string' } };
  return {
    summary: o.summary,
    operationId: operationId(o),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(o.body
      ? { requestBody: { required: true, content: { 'application/json': { schema: schemaOf(o.body) } } } }
      : {}),
    responses: { 200: { description: 'OK', content }, default: error },
    security: [{}, { key: [] }],
  };
}

let version: string | undefined;
const packageVersion = (): string =>
  (version ??= (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version);

/** An OpenAPI 3.1 document of all routes of some APIs, made a route in each turn of the event loop: all take long. */
export async function openApiDocument(apis: readonly Api[]): Promise<Json> {
  const paths: Record<string, Json> = {};
  for (const o of apis.flatMap((api) => api.operations)) {
    paths[o.path] = { ...paths[o.path], [o.method]: operation(o) };
    await setImmediate();
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Temper', version: packageVersion(), license: { name: 'Apache-2.0' } },
    paths,
    components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
  };
}

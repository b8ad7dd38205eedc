// What an API is: routes that make a `Generation` of a body and a wire form of what is released (generation.ts). To add
// one: a file that exports an `Api`, and a line in apis.ts. /openapi.json, metrics and the form of errors follow.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Context, Hono } from 'hono';
import type { z } from 'zod';
import { errorForClient } from './anthropic.js';
import { ANSWER_FIELD, type ApiError, type BodyFields, errorBody } from './api-error.js';
import type { CallerService } from './callers.js';
import type { ApiKey } from './keys.js';
import type { ReadBody, ReaderName } from './readers.js';
import type { Unsupported } from './request-fields.js';
import type { ResponseStore } from './response-store.js';

/** What every request has been given before its route. */
export type Env = {
  /** Node's own request and response, behind a port. */
  Bindings: { readonly incoming?: IncomingMessage; readonly outgoing?: ServerResponse };
  Variables: {
    /** What it is called. */
    requestId: string;
    /** Name of the key it came with; null: none is needed. */
    key: string | null;
    /** That key, and what its owner may ask for. */
    caller: ApiKey;
  };
};
export type ApiApp = Hono<Env>;
export type ApiRequest = Context<Env>;

export interface ApiService extends CallerService {
  /** Most tokens of an answer where a request does not say. */
  readonly maxTokens: number;
  readonly responses: ResponseStore;
  /** The body of a request, as the reader of that name makes it. @throws {ApiError} 400, 413, 415 · {DataError} */
  read<K extends ReaderName>(c: ApiRequest, name: K): Promise<ReadBody<K>>;
  /** Told of faults of the server's own. */
  readonly log: (error: unknown) => void;
}

/** A route as /openapi.json tells it. */
export interface Operation {
  readonly method: 'get' | 'post' | 'delete';
  /** Parameters in braces. */
  readonly path: string;
  readonly summary: string;
  readonly body?: z.ZodType;
  /** Fields of the body that are taken beside those. */
  readonly beside?: Unsupported;
  /** What a URL may ask for beside its path; anything else is refused. */
  readonly query?: Readonly<Record<string, z.ZodType>>;
  /** Of status 200: its name among the API's shapes. */
  readonly answer: string;
  /** Where the body says `stream: true` it answers with a stream of such events. */
  readonly event?: StreamedEvent;
}
export interface StreamedEvent {
  /** What an event's data says: its name among the API's shapes. */
  readonly data: string;
  /** Events have names, which are the types of their data. */
  readonly named?: boolean;
  /** A last event says `[DONE]`. */
  readonly done?: boolean;
}

export interface Api {
  readonly operations: readonly Operation[];
  /** @param serviceOf the server as the owner of a request's key may use it */
  register(app: ApiApp, serviceOf: (c: ApiRequest) => ApiService): void;
  /** Default: OpenAI's shape. */
  readonly errorBody?: (error: ApiError, c: ApiRequest) => Record<string, unknown>;
  /** What it answers, by name, as /openapi.json tells it: read when that is asked for. The `meta` of each has an id. */
  readonly shapes: () => Promise<Readonly<Record<string, unknown>>>;
  /** Of an error: its name among the shapes; default OpenAI's. */
  readonly errorShape?: string;
  /** Errors of the engine name them. Default: those of chat completions. */
  readonly fields?: BodyFields;
}

/** Where no API is known: those of chat completions. */
export const FIELDS: BodyFields = { prompt: 'messages', maxTokens: 'max_completion_tokens', answer: ANSWER_FIELD };
const pattern = (path: string): RegExp =>
  new RegExp(
    `^${path
      .replaceAll('.', '\\.')
      .replaceAll(/\{\w+\}$/g, '.+')
      .replaceAll(/\{\w+\}/g, '[^/]+')}$`,
  );

interface Route {
  readonly path: string;
  readonly api: Api;
  readonly methods: readonly Operation['method'][];
}
/** Finds the API of a path. */
export class Routes {
  readonly #routes: readonly (Route & { readonly pattern: RegExp })[];
  constructor(readonly apis: readonly Api[]) {
    const routes = new Map<string, Route>();
    for (const api of apis)
      for (const { path, method } of api.operations)
        routes.set(path, { path, api, methods: [...(routes.get(path)?.methods ?? []), method] });
    // The longest first: /v1/responses/{id}/input_items is not an id.
    this.#routes = [...routes.values()]
      .sort((a, b) => b.path.length - a.path.length)
      .map((route) => ({ ...route, pattern: pattern(route.path) }));
  }
  find(path: string): Route | undefined {
    return this.#routes.find((r) => r.pattern.test(path));
  }
  /** An error as the API of the request's path tells it. */
  errorBody(c: ApiRequest, error: ApiError): Record<string, unknown> {
    const route = this.find(c.req.path);
    return (route ? (route.api.errorBody ?? errorBody) : errorForClient)(error, c);
  }
  fields(path: string): BodyFields {
    return this.find(path)?.api.fields ?? FIELDS;
  }
}

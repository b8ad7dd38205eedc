// What a client is told when something is not done: OpenAI's shape, always, and nothing of this machine in it.
import { TemperError } from '../base/errors.js';

export type ErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'permission_error'
  | 'rate_limit_error'
  | 'server_error';

/** UTF-16 units of what an error says, and of the field that it names: a client's own text may stand in both. */
const MOST_MESSAGE = 1000,
  MOST_PARAM = 200;
const shortened = (text: string, most: number): string =>
  text.length <= most ? text : `${text.slice(0, most - 1).toWellFormed()}…`;

export class ApiError extends Error {
  readonly param: string | null;
  /**
   * @param code  stable name, as `model_not_found`
   * @param param the field it is about
   * @param retryAfter seconds after which it may work
   */
  constructor(
    readonly status: 400 | 401 | 403 | 404 | 405 | 408 | 413 | 415 | 417 | 421 | 429 | 431 | 500 | 503,
    readonly type: ErrorType,
    readonly code: string,
    message: string,
    param: string | null = null,
    readonly retryAfter: number | null = null,
  ) {
    super(shortened(message, MOST_MESSAGE));
    this.param = param === null ? null : shortened(param, MOST_PARAM);
  }
  /** The same, of another field. */
  about(param: string): ApiError {
    return new ApiError(this.status, this.type, this.code, this.message, param, this.retryAfter);
  }
}
/** What parts of a request are called in the body of an API. */
export interface BodyFields {
  readonly prompt: string;
  readonly maxTokens: string;
  /** The schema of the answer. */
  readonly answer: string;
}
/** What the schema of an answer is called where nobody knows the API. */
export const ANSWER_FIELD = 'response_format';
export const badRequest = (code: string, message: string, param: string | null = null): ApiError =>
  new ApiError(400, 'invalid_request_error', code, message, param);

/** Faults of the request; any other fault is the server's own, whose text stays here. */
const OF_REQUEST: Readonly<Record<string, readonly [code: string, param: 'prompt' | 'maxTokens' | 'temperature']>> = {
  prompt_too_long: ['context_length_exceeded', 'prompt'],
  prompt_empty: ['invalid_value', 'prompt'],
  token_range: ['invalid_value', 'prompt'],
  max_tokens: ['invalid_value', 'maxTokens'],
  sampling_range: ['invalid_value', 'temperature'],
  cache_full: ['context_length_exceeded', 'prompt'],
};

/** The engine names fields as code does, requests write them otherwise: logitBias is logit_bias. */
function ofRange(message: string): ApiError {
  const [, field, rest] = /^(\w+)(: .*)$/s.exec(message) ?? [];
  if (field === undefined) return badRequest('invalid_value', message);
  const written = field.replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
  return badRequest('invalid_value', `${written}${rest}`, written);
}
/** Fields that faults of a conversation may begin with, as `input.3: …`, beside the prompt. */
const PARTS: readonly (string | undefined)[] = ['tools', 'instructions', 'previous_response_id', 'system'];
function partOf(message: string, prompt: string): string {
  const [place, head] = /^(\w+)(?:\.\w+)*(?=: )/.exec(message) ?? [];
  return place !== undefined && (head === prompt || PARTS.includes(head)) ? place : prompt;
}
/**
 * @param log    told of what the client is not
 * @param fields what parts of the request are called in the body
 */
export function asApiError(error: unknown, log: (error: unknown) => void, fields: BodyFields): ApiError {
  if (error instanceof ApiError) return error.param === ANSWER_FIELD ? error.about(fields.answer) : error;
  // Nobody is there to read it, and nothing failed.
  if (error instanceof Error && error.name === 'AbortError')
    return new ApiError(408, 'invalid_request_error', 'client_closed', 'the request was given up');
  if (error instanceof TemperError) {
    const own = Object.hasOwn(OF_REQUEST, error.code) ? OF_REQUEST[error.code] : undefined;
    if (own) return badRequest(own[0], error.message, { ...fields, temperature: 'temperature' }[own[1]]);
    if (error.code === 'request_range') return ofRange(error.message);
    if (error.name === 'DataError') return badRequest(error.code, error.message, partOf(error.message, fields.prompt));
    if (error.code === 'cache_busy')
      return new ApiError(429, 'rate_limit_error', 'queue_timeout', error.message, null, 5);
    if (error.code === 'adapter_unknown')
      return new ApiError(404, 'invalid_request_error', 'model_not_found', 'the model was unloaded', 'model');
    if (error.code === 'verdict_not_logged' || error.code === 'log_failed') {
      log(error);
      return new ApiError(503, 'server_error', 'verdict_not_logged', 'a verdict could not be recorded: nothing leaves');
    }
    if (error.name === 'StoreError') {
      log(error);
      return new ApiError(503, 'server_error', 'unavailable', 'the store does not answer: nothing is kept or found');
    }
    if (error.code === 'engine_closed' || error.code === 'worker_exit') {
      log(error);
      return new ApiError(503, 'server_error', 'unavailable', 'the engine is not running');
    }
  }
  log(error);
  return new ApiError(500, 'server_error', 'internal_error', 'the server failed; its log says why');
}

export const errorBody = (e: ApiError): Record<string, unknown> => ({
  error: { message: e.message, type: e.type, param: e.param, code: e.code },
});

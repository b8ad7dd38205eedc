// By what Anthropic's clients are known, and how they are told of errors.
import type { ApiRequest } from './api.js';
import { type ApiError, errorBody } from './api-error.js';

/** Their header of `x-request-id`. */
export const ANTHROPIC_REQUEST_ID = 'request-id';

/** They send the version of their API with every request; on paths that are theirs nobody has to. */
export const speaksAnthropic = (c: ApiRequest): boolean =>
  c.req.path.startsWith('/v1/messages') || c.req.header('anthropic-version') !== undefined;

const ERROR_TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  500: 'api_error',
  503: 'overloaded_error',
};
/** By it their client knows that it has to send the whole conversation. */
export const NO_THREADS = 'thread_unsupported_request';
export const anthropicError = (error: ApiError, c: ApiRequest): Record<string, unknown> => ({
  type: 'error',
  error: {
    type: ERROR_TYPES[error.status] ?? 'invalid_request_error',
    message: error.message,
    ...(error.code === NO_THREADS ? { details: { error_code: NO_THREADS, unsupported: ['thread'] } } : {}),
  },
  request_id: c.get('requestId'),
});
/** Where both ask the same path. */
export const errorForClient = (error: ApiError, c: ApiRequest): Record<string, unknown> =>
  speaksAnthropic(c) ? anthropicError(error, c) : errorBody(error);

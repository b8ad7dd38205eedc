// Entry of the thread that reads large bodies.
import { serve } from '../base/channel-worker.js';
import { ApiError, badRequest } from './api-error.js';
import { jsonOf } from './body.js';
import type { BodyCalls, Refusal } from './body-thread.js';

/** Tokens that a message has at the least: its begin, its role, what ends the header and itself. */
const LEAST_TOKENS = 4;

const refusalOf = ({ status, type, code, message, param, retryAfter }: ApiError): Refusal => ({
  refused: { status, type, code, message, param, retryAfter },
});
/** More than the context holds is not handed on: each message costs the threads after this one more than this one. */
function requireFew(request: unknown, context: number): void {
  const { request: asked, messages, input, truncates } = request as Record<string, unknown>;
  if (truncates === true) return;
  const list = (asked as { readonly messages?: unknown } | undefined)?.messages ?? messages ?? input;
  if (Array.isArray(list) && list.length * LEAST_TOKENS > context)
    throw badRequest(
      'context_length_exceeded',
      `${list.length} messages are more than the ${context} tokens of the context hold`,
      messages ? 'messages' : input ? 'input' : 'messages',
    );
}

await serve<BodyCalls, null>(async () => {
  const { READERS } = await import('./readers.js');
  return {
    info: null,
    handlers: {
      read({ name, bytes, tokens, context }) {
        try {
          const request = READERS[name](jsonOf(bytes), tokens);
          requireFew(request, context);
          return { request };
        } catch (e) {
          if (e instanceof ApiError) return refusalOf(e);
          throw e;
        }
      },
    },
  };
});

// Entry of the thread that reads large bodies.
import { serve } from '../base/channel-worker.js';
import { ApiError, badRequest } from './api-error.js';
import { jsonOf } from './body.js';
import type { BodyCalls, Refusal, Room } from './body-thread.js';
import { MOST_HISTORY, tooManyMessages } from './responses-request.js';

/** Tokens that a message has at the least: its begin, its role, what ends the header and itself. */
const LEAST_TOKENS = 4;

const refusalOf = ({ status, type, code, message, param, retryAfter }: ApiError): Refusal => ({
  refused: { status, type, code, message, param, retryAfter },
});
/** More than the context holds is not handed on: each message costs the threads after this one more than this one. */
function requireFew(request: unknown, { contextTokens: context, mostText }: Room): void {
  const { request: asked, messages, input, truncates } = request as Record<string, unknown>;
  const list = (asked as { readonly messages?: unknown } | undefined)?.messages ?? messages ?? input;
  if (truncates === true) {
    if (Array.isArray(list) && list.length > MOST_HISTORY) throw tooManyMessages(list.length, 'input');
    return;
  }
  if (!Array.isArray(list)) return;
  const field = input ? 'input' : 'messages';
  const refuse = (what: string): Error =>
    badRequest('context_length_exceeded', `${what} are more than the ${context} tokens of the context hold`, field);
  if (list.length * LEAST_TOKENS > context) throw refuse(`${list.length} messages`);
  const text = (list as readonly { readonly content?: unknown; readonly channel?: unknown }[]).reduce(
    // Thoughts may be left out.
    (n, { content, channel }) => n + (typeof content === 'string' && channel !== 'analysis' ? content.length : 0),
    0,
  );
  if (text > mostText) throw refuse(`${text} characters`);
}

await serve<BodyCalls, null>(async () => {
  const { READERS } = await import('./readers.js');
  return {
    info: null,
    handlers: {
      read({ name, pieces, tokens, room }) {
        try {
          const request = READERS[name](jsonOf(Buffer.concat(pieces)), tokens);
          requireFew(request, name === 'count' ? { ...room, mostText: Number.POSITIVE_INFINITY } : room);
          return { request };
        } catch (e) {
          if (e instanceof ApiError) return refusalOf(e);
          throw e;
        }
      },
    },
  };
});

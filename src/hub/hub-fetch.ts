// The fetch that @huggingface/hub is given: our proxies, our timeouts, and our rules about where the token goes.
import { fetch as undiciFetch } from 'undici';
import { HubError, TemperError } from '../base/errors.js';
import type { HubClient } from './http.js';
import { mayHaveToken } from './settings.js';

const MAX_REDIRECTS = 10;
/** What is not done twice: a commit whose answer got lost may have been made. */
const ONCE = /\/commit\/[^/]*$|\/repos\/create$|\/settings$|\/branch\/[^/]*$/;

/** One of our own errors that another library has wrapped; undefined: it is not ours. */
export function ownError(e: unknown): TemperError | undefined {
  for (let at = e, depth = 0; at instanceof Error && depth < 6; at = at.cause, depth++)
    if (at instanceof TemperError) return at;
  return undefined;
}

export function hubFetch(client: HubClient, what: string, signal?: AbortSignal): typeof fetch {
  const send = async (from: URL, init: RequestInit, method: string): Promise<Response> => {
    let url = from;
    for (let hops = 0; ; hops++) {
      if (!/^https?:$/.test(url.protocol) || (client.isHttps && url.protocol !== 'https:'))
        throw new HubError('hub_answer', `${what}: the hub sends to ${url.protocol}//${url.host}, wanted https`, {
          host: url.host,
        });
      const headers = new Headers(init.headers);
      // Stores of large files have tokens of their own, for them alone; ours is for the hub.
      const own = client.settings.token !== null && headers.get('authorization')?.includes(client.settings.token);
      if (own && !mayHaveToken(client.settings, url)) headers.delete('authorization');
      headers.set('user-agent', 'temper-oss');
      const response = (await undiciFetch(url, {
        ...(init as object),
        headers: Object.fromEntries(headers),
        redirect: 'manual',
        dispatcher: client.dispatcher,
        ...(signal ? { signal } : {}),
      })) as unknown as Response;
      const location = response.headers.get('location');
      if (response.status < 300 || response.status > 399 || location === null) return response;
      await response.body?.cancel();
      if (method !== 'GET' && method !== 'HEAD')
        throw new HubError(
          'hub_answer',
          `${what}: ${url.host} redirects an upload (${response.status}); name the repo as it is called now`,
          { host: url.host },
        );
      if (hops >= MAX_REDIRECTS) throw new HubError('hub_answer', `${what}: ${url.host} redirects too often`, {});
      url = new URL(location, url);
    }
  };
  return (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    const method = (init.method ?? 'GET').toUpperCase();
    const once = async (): Promise<Response> => {
      let response: Response;
      try {
        response = await send(url, init, method);
      } catch (e) {
        signal?.throwIfAborted();
        const own = ownError(e);
        if (own) throw own;
        const fault = client.unreached(url, e);
        if (fault instanceof TemperError) throw fault;
        if (!ONCE.test(url.pathname)) throw fault;
        throw new HubError('hub_unreachable', `${what}: ${fault.message}; look whether it was done`, {
          host: url.host,
        });
      }
      const { status } = response;
      const passes =
        status === 429 || status === 503 || (!ONCE.test(url.pathname) && (status === 408 || status >= 500));
      if (!passes) return response;
      await response.body?.cancel();
      throw client.passingStatus(url, status, (name) => response.headers.get(name) ?? undefined);
    };
    return client.tried(what, once, signal);
  };
}

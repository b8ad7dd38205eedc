// The server's API as this page uses it: where the page lies and nowhere else, with the reader's key and no cookie.

const KEY = 'temper-key';
const wanted = /** @type {HTMLMetaElement} */ (document.querySelector('meta[name=temper-keys]'));
/** As it was when the page came. */
export const keysWanted = wanted.content === 'yes';

/** The reader's key: in this tab, until it closes. */
export const key = {
  get: () => sessionStorage.getItem(KEY),
  /** @param {string} text */
  keep: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** @typedef {{ id: string, temper: { digest: string, adapter: boolean, tensors: number, status: string } }} Model */

/** What the server refused, or that nobody answers (status 0). */
export class ApiFailure extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {string | null} [retryAfter] seconds
   */
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** @param {Response} response */
async function failureOf(response) {
  /** @type {{ error?: { message?: string } } | null} */
  const json = await response.json().catch(() => null);
  const message = json?.error?.message ?? `the server answered ${response.status}`;
  return new ApiFailure(response.status, message, response.headers.get('retry-after'));
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 */
async function ask(path, init = {}) {
  const own = key.get();
  const headers = {
    ...(init.body ? { 'content-type': 'application/json' } : {}),
    ...(own === null ? {} : { authorization: `Bearer ${own}` }),
  };
  let response;
  try {
    response = await fetch(path, { ...init, headers, credentials: 'omit', cache: 'no-store', redirect: 'error' });
  } catch (e) {
    if (init.signal?.aborted) throw e;
    throw new ApiFailure(0, 'the server does not answer');
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

/** @returns {Promise<readonly Model[]>} */
export async function listModels() {
  return (await (await ask('v1/models')).json()).data;
}

/**
 * Chunks of a streamed answer; leaving the loop, or the signal, ends it on the server too.
 * @param {unknown} body
 * @param {AbortSignal} signal
 */
export async function* streamChat(body, signal) {
  const response = await ask('v1/chat/completions', { method: 'POST', body: JSON.stringify(body), signal });
  for await (const data of events(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiFailure(500, chunk.error.message);
    yield chunk;
  }
  throw new ApiFailure(0, 'the answer broke off: the server ended the stream half-way');
}

/**
 * What stands behind `data:`, line by line: this server's events are one line each.
 * @param {ReadableStream<Uint8Array>} body
 */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

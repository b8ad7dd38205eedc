// What the console asks of its server. The session's cookie is no script's to read; what changes something brings the
// session's token, which only this page was told.

/**
 * @typedef {{id: string, at: number, state: 'held' | 'escalated' | 'approved' | 'rejected', model: string,
 *   channel: string, policy: string, verdict: 'allow' | 'block' | 'unjudged', rule: string | null,
 *   cause: string | null, bytes: number, waitUntil: number | null, wantsSecond: boolean, decidedAt: number | null,
 *   decidedBy: string | null, label: 'allow' | 'block' | null}} Summary
 * @typedef {{policy: string, digest: string, outcome: string, rule: string | null, cause: string | null,
 *   rationale: string, score?: number}} Verdict
 * @typedef {{at: number, who: string, action: string, note: string, label: string | null, rule: string | null,
 *   receipt: string | null}} Act
 * @typedef {Summary & {request: string, owner: string | null, choice: number, content: string, contentSha256: string,
 *   context: readonly {role: string, channel?: string, content: string}[], contextCut: boolean,
 *   verdicts: readonly Verdict[], rationale: string, policyDigest: string, judge: string, score: number | null,
 *   receipt: string | null, twoPersons: boolean, firstBy: string | null, releasedAt: number | null,
 *   labelRule: string | null, labelledBy: string | null, actions: readonly Act[]}} Item
 * @typedef {{states: Record<Summary['state'], number>, waiting: number, relabelled: number,
 *   policies: readonly string[], channels: readonly string[]}} Counts
 * @typedef {{agreed: number, of: number, interval: readonly [number, number] | null}} Share
 * @typedef {{judge: Share, days: readonly (Share & {day: number})[], policies: readonly (Share & {policy: string})[],
 *   reviewers: readonly (Share & {who: readonly [string, string]})[]}} Agreement
 * @typedef {{name: string, csrf: string, twoPersons: boolean}} Session
 * @typedef {{state: Summary['state'], releases: boolean, wantsSecond: boolean, receipt: string | null,
 *   item: Item}} Acted
 */

export class ApiFailure extends Error {
  /**
   * @param {number} status 0: no answer
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let csrf = '';

/**
 * @template T
 * @param {string} path
 * @param {'GET' | 'POST' | 'DELETE'} [method]
 * @param {unknown} [body]
 * @returns {Promise<T>}
 */
async function ask(path, method = 'GET', body) {
  let response;
  try {
    response = await fetch(`review/${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(method === 'GET' || csrf === '' ? {} : { 'x-csrf-token': csrf }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
    });
  } catch {
    throw new ApiFailure(0, 'the server does not answer');
  }
  let json;
  try {
    json = await response.json();
  } catch {
    throw new ApiFailure(response.status, `the server answered ${response.status}`);
  }
  if (!response.ok) throw new ApiFailure(response.status, json?.error?.message ?? `status ${response.status}`);
  return json;
}

/**
 * @param {Promise<Session>} asked
 * @returns {Promise<Session>}
 */
async function signedIn(asked) {
  const session = await asked;
  csrf = session.csrf;
  return session;
}
export const session = () => signedIn(ask('session'));
/** @param {string} key */
export const signIn = (key) => signedIn(ask('session', 'POST', { key }));
export async function signOut() {
  await ask('session', 'DELETE');
  csrf = '';
}

/**
 * @param {Record<string, string>} query
 * @returns {Promise<{items: readonly Summary[], next: string | null}>}
 */
export const items = (query) => ask(`items?${new URLSearchParams(query)}`);
/** @param {string} id @returns {Promise<Item>} */
export const item = (id) => ask(`items/${encodeURIComponent(id)}`);
/** @returns {Promise<Counts>} */
export const counts = () => ask('counts');
/** @param {number} days @returns {Promise<Agreement>} */
export const agreement = (days) => ask(`agreement?days=${days}`);
/**
 * @param {string} id
 * @param {'approve' | 'reject' | 'relabel' | 'escalate'} action
 * @param {{note?: string, label?: string, rule?: string}} [more]
 * @returns {Promise<Acted>}
 */
export const act = (id, action, more = {}) => ask(`items/${encodeURIComponent(id)}/${action}`, 'POST', more);

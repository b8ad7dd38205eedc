// Who may do what in the review console. A reviewer signs in by a key of its own kind and gets a cookie that no script
// reads and no other site sends. Whatever changes something must also come from a page of this server, and bring the
// session's token, which that page alone was told.
import { timingSafeEqual } from 'node:crypto';
import { sha256 } from '../../base/digest.js';
import { LONGEST_MS, type Session, type Sessions } from '../../store/sessions.js';
import type { ApiRequest } from '../api.js';
import { ApiError } from '../api-error.js';
import { type KeyEntry, keyDigest } from '../keys.js';

export const COOKIE = 'temper-review';

/** Names with the digests of their keys. */
export interface ReviewerKeys {
  /** null: no key that is known */
  find(key: string): { readonly name: string; readonly digest: string } | null;
  has(name: string, digest: string): boolean;
}
const equal = (a: string, b: string): boolean => {
  const [x, y] = [Buffer.from(a), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
};
export function reviewerKeys(entries: readonly KeyEntry[]): ReviewerKeys {
  const all = entries.map(({ name, key }) => ({ name, digest: keyDigest(key) }));
  return {
    find(key) {
      const given = sha256(key);
      let found: (typeof all)[number] | null = null;
      for (const k of all) if (equal(k.digest, given)) found = k;
      return found;
    },
    has: (name, digest) => all.some((k) => k.name === name && equal(k.digest, digest)),
  };
}

const refused = (status: 401 | 403, code: string, message: string): ApiError =>
  new ApiError(status, status === 401 ? 'authentication_error' : 'permission_error', code, message);

const tokenOf = (c: ApiRequest): string | null => {
  const cookies = (c.req.header('cookie') ?? '').split(';').map((s) => s.trim());
  const found = cookies.filter((s) => s.startsWith(`${COOKIE}=`));
  // Two of them: somebody put one beside ours.
  return found.length === 1 ? (found[0] as string).slice(COOKIE.length + 1) : null;
};

/**
 * A page of this server sent it. Browsers say where a request is from; who is no browser has no cookie to be misused.
 * @throws {ApiError} 403 cross_site
 */
export function requireOwnPage(c: ApiRequest, changes: boolean): void {
  const site = c.req.header('sec-fetch-site');
  const origin = c.req.header('origin');
  const foreign = (why: string): ApiError =>
    refused(403, 'cross_site', `the request is not of this server's page: ${why}`);
  // No page can set it, and it holds behind a proxy that gives another host name, too.
  if (site !== undefined) {
    if (site === 'same-origin' || (site === 'none' && !changes)) return;
    throw foreign('sec-fetch-site');
  }
  if (origin === undefined) {
    if (changes) throw foreign('it names no origin');
    return;
  }
  let host: string;
  try {
    host = new URL(origin).host;
  } catch {
    throw foreign('origin');
  }
  if (host.toLowerCase() !== (c.req.header('host') ?? '').toLowerCase()) throw foreign('origin');
}

export interface Doors {
  /** Who is signed in. @throws {ApiError} 401 signed_out, 403 cross_site */
  reader(c: ApiRequest): Promise<Session>;
  /** Who may change something. @throws {ApiError} 401, 403 cross_site, bad_token */
  writer(c: ApiRequest): Promise<Session>;
  /** The cookie of a session; of none: that it goes. */
  cookie(c: ApiRequest, token: string | null): string;
  /** Ends the session that the request came with. */
  end(c: ApiRequest): Promise<void>;
}
/** @param keys as they are now */
export function createDoors(sessions: Sessions, keys: () => ReviewerKeys, tls: boolean): Doors {
  const session = async (c: ApiRequest): Promise<Session> => {
    const token = tokenOf(c);
    const found = token === null ? null : await sessions.find(token, (name, digest) => keys().has(name, digest));
    if (!found) throw refused(401, 'signed_out', 'sign in first');
    return found;
  };
  return {
    async reader(c) {
      requireOwnPage(c, false);
      return session(c);
    },
    async writer(c) {
      requireOwnPage(c, true);
      const found = await session(c);
      if (!equal(c.req.header('x-csrf-token') ?? '', found.csrf))
        throw refused(403, 'bad_token', 'x-csrf-token: wanted the one of this session');
      return found;
    },
    cookie(c, token) {
      // Behind a proxy that ends TLS the browser says so itself.
      const secure = tls || (c.req.header('origin') ?? '').startsWith('https://');
      const age = token === null ? 0 : LONGEST_MS / 1000;
      const fields = [`${COOKIE}=${token ?? ''}`, 'Path=/review', `Max-Age=${age}`, 'HttpOnly', 'SameSite=Strict'];
      return [...fields, ...(secure ? ['Secure'] : [])].join('; ');
    },
    async end(c) {
      const token = tokenOf(c);
      if (token !== null) await sessions.end(token);
    },
  };
}

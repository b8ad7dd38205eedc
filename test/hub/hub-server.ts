// A local hub: it lists, gives and takes files in the words of Hugging Face's API, large ones by redirect to a second
// port, and does wrong in every way that a test asks for.
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export const COMMIT = 'c0ffee0123456789c0ffee0123456789c0ffee01';

export interface Seen {
  readonly port: 'hub' | 'cdn';
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}
/** One repo at one commit. */
export interface HubRepo {
  readonly files: Readonly<Record<string, Buffer>>;
  readonly commit: string;
  /** By path: what the listing says otherwise. */
  readonly listed?: Readonly<Record<string, Partial<{ path: string; size: number; digest: string; lfs: boolean }>>>;
  readonly private?: boolean;
}
export interface Request {
  readonly seen: Seen;
  /** How often this path was asked for on this port, from 1. */
  readonly call: number;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What is to be sent of a file: the whole of it; undefined for the API. */
  readonly body: Buffer | undefined;
}
export interface HubServerOptions {
  /** `model openai/tiny`, `dataset owner/rows` → repo. */
  readonly repos?: Readonly<Record<string, HubRepo>>;
  /** Revisions other than the commits themselves; default `main`. */
  readonly revisions?: Readonly<Record<string, string>>;
  /** Files of at least this many bytes are LFS; default 100. */
  readonly lfsBytes?: number;
  readonly pageSize?: number;
  /** Headers of Xet beside those of LFS. */
  readonly xet?: boolean;
  /** Answers instead of the server when it returns true. */
  readonly fault?: (request: Request) => boolean | Promise<boolean>;
  /** Only this token is let in. */
  readonly token?: string;
}
export interface HubServer {
  readonly url: string;
  readonly cdn: string;
  readonly seen: Seen[];
  options: HubServerOptions;
  /** Requests for files, hub and cdn, less those of the API. */
  fileRequests(): Seen[];
  close(): Promise<void>;
}

export const sha256 = (b: Buffer): string => createHash('sha256').update(b).digest('hex');
export const gitSha1 = (b: Buffer): string => createHash('sha1').update(`blob ${b.length}\0`).update(b).digest('hex');

const listen = (server: Server): Promise<string> =>
  new Promise((done) => {
    server.listen(0, '127.0.0.1', () => done(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
  });
export const sendJson = (
  response: ServerResponse,
  value: unknown,
  status = 200,
  headers: Record<string, string> = {},
): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(value));
};

/** `bytes` of a file as a server gives them, in ranges if asked. */
export function sendBytes(
  request: IncomingMessage,
  response: ServerResponse,
  body: Buffer,
  headers: Record<string, string> = {},
): void {
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  if (from === undefined) {
    response.writeHead(200, { 'content-length': String(body.length), 'accept-ranges': 'bytes', ...headers });
    response.end(body);
    return;
  }
  const start = Number(from),
    end = to ? Math.min(Number(to), body.length - 1) : body.length - 1;
  if (start >= body.length) {
    response.writeHead(416, { 'content-range': `bytes */${body.length}` });
    response.end();
    return;
  }
  response.writeHead(206, {
    'content-length': String(end - start + 1),
    'content-range': `bytes ${start}-${end}/${body.length}`,
    ...headers,
  });
  response.end(body.subarray(start, end + 1));
}

function treeOf(repo: HubRepo, lfsBytes: number, xet: boolean): Record<string, unknown>[] {
  return Object.entries(repo.files).map(([path, bytes]) => {
    const said = repo.listed?.[path] ?? {};
    const size = said.size ?? bytes.length;
    const lfs = said.lfs ?? bytes.length >= lfsBytes;
    const oid = lfs ? 'e'.repeat(40) : (said.digest ?? gitSha1(bytes));
    return {
      type: 'file',
      oid,
      size,
      path: said.path ?? path,
      ...(lfs ? { lfs: { oid: said.digest ?? sha256(bytes), size, pointerSize: 130 } } : {}),
      ...(lfs && xet ? { xetHash: sha256(Buffer.from(path)) } : {}),
    };
  });
}

export async function startHubServer(options: HubServerOptions): Promise<HubServer> {
  const seen: Seen[] = [];
  const calls = new Map<string, number>();
  const hub = createServer((q, r) => void answer('hub', q, r));
  const cdn = createServer((q, r) => void answer('cdn', q, r));
  const [url, cdnUrl] = [await listen(hub), await listen(cdn)];
  const server: HubServer = {
    url,
    cdn: cdnUrl,
    seen,
    options,
    fileRequests: () => seen.filter((s) => !s.path.startsWith('/api/')),
    close: () =>
      new Promise((done) => {
        let open = 2;
        for (const s of [hub, cdn]) {
          s.close(() => --open || done());
          s.closeAllConnections();
        }
      }),
  };

  async function answer(port: Seen['port'], request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    const path = request.url ?? '';
    const { range, authorization } = request.headers;
    const one: Seen = { port, method: request.method ?? '', path, range, authorization };
    seen.push(one);
    const key = `${port} ${path.split('?')[0]}`;
    calls.set(key, (calls.get(key) ?? 0) + 1);
    const found = find(path);
    const { fault, token, lfsBytes = 100, pageSize = 1000, xet = false, revisions } = server.options;
    const call = calls.get(key) ?? 0;
    if (await fault?.({ seen: one, call, request, response, body: found?.body })) return;
    if (port === 'hub' && token !== undefined && authorization !== `Bearer ${token}`) {
      response.writeHead(401, { 'x-error-code': 'RepoNotFound', 'x-error-message': 'Invalid username or password.' });
      response.end();
      return;
    }
    if (!found) {
      response.writeHead(404, { 'x-error-code': 'RepoNotFound', 'x-error-message': 'Repository not found' });
      response.end();
      return;
    }
    const { repo, rest, body } = found;
    if (rest === '' && !body && path.startsWith('/api/')) {
      sendJson(response, { id: path.slice('/api/models/'.length), sha: repo.commit, private: repo.private === true });
      return;
    }
    const revision = /^\/revision\/([^/?]+)/.exec(rest)?.[1];
    if (revision !== undefined) {
      const name = decodeURIComponent(revision);
      const commit = name === repo.commit ? name : (revisions ?? { main: repo.commit })[name];
      if (commit) sendJson(response, { id: path, sha: commit, private: repo.private === true, siblings: [] });
      else sendJson(response, { error: 'Invalid rev id' }, 404, { 'x-error-code': 'RevisionNotFound' });
      return;
    }
    if (rest.startsWith(`/tree/${repo.commit}`)) {
      const all = treeOf(repo, lfsBytes, xet);
      const from = Number(/[?&]cursor=(\d+)/.exec(rest)?.[1] ?? 0);
      const next = `${url}${path.replace(/&cursor=\d+/, '')}&cursor=${from + pageSize}`;
      sendJson(response, all.slice(from, from + pageSize), 200, {
        ...(from + pageSize < all.length ? { link: `<${next}>; rel="next"` } : {}),
      });
      return;
    }
    if (!body) {
      response.writeHead(404, { 'x-error-code': 'EntryNotFound' });
      response.end();
      return;
    }
    if (port === 'cdn') {
      sendBytes(request, response, body, { etag: `"${sha256(body).slice(0, 32)}"` });
      return;
    }
    const large = body.length >= lfsBytes;
    const headers = {
      'x-repo-commit': repo.commit,
      'x-linked-size': String(body.length),
      'x-linked-etag': `"${large ? sha256(body) : gitSha1(body)}"`,
    };
    if (!large) {
      sendBytes(request, response, body, { ...headers, etag: `"${gitSha1(body)}"` });
      return;
    }
    const xetHeaders = xet
      ? { 'x-xet-hash': sha256(Buffer.from(path)), link: `<${url}/api/xet-read-token>; rel="xet-auth"` }
      : {};
    response.writeHead(302, { ...headers, ...xetHeaders, location: `${cdnUrl}${path}?Signature=secret-of-the-cdn` });
    response.end();
  }

  function find(
    path: string,
  ): { readonly repo: HubRepo; readonly rest: string; readonly body: Buffer | undefined } | null {
    for (const [name, repo] of Object.entries(server.options.repos ?? {})) {
      const [kind = '', repoName = ''] = name.split(' ');
      const api = `/api/${kind}s/${repoName}`;
      if (path === api || path.startsWith(`${api}/`)) return { repo, rest: path.slice(api.length), body: undefined };
      const files = `/${kind === 'dataset' ? 'datasets/' : ''}${repoName}/resolve/${repo.commit}/`;
      if (path.startsWith(files)) {
        const file = decodeURIComponent(path.slice(files.length).split('?')[0] ?? '');
        const listed = Object.entries(repo.listed ?? {}).find(([, l]) => l.path === file)?.[0] ?? file;
        return { repo, rest: '', body: repo.files[listed] };
      }
    }
    return null;
  }
  return server;
}

/** Bytes that no part of repeats. */
export function noise(bytes: number, seed = 1): Buffer {
  const out = Buffer.alloc(bytes);
  let x = seed >>> 0 || 1;
  for (let i = 0; i < bytes; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    out[i] = x & 255;
  }
  return out;
}

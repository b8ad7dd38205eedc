// What a hub takes: repos that are made, files that are uploaded in LFS and in the commit itself, commits, branches.
import { createHash } from 'node:crypto';
import { type HubServer, type Request, sendJson, sha256 } from './hub-server.js';

export interface PushStore {
  /** Bytes of large files by sha256. */
  readonly objects: Map<string, Buffer>;
  /** Every commit that was made: its header, and the paths in it. */
  readonly commits: {
    readonly repo: string;
    readonly branch: string;
    readonly header: { summary: string };
    readonly paths: string[];
    readonly pullRequest: boolean;
  }[];
  readonly created: Record<string, unknown>[];
  readonly branches: string[];
  readonly settings: unknown[];
  /** As `fault` of the server. */
  handle(request: Request): Promise<boolean>;
}
export interface PushStoreOptions {
  readonly server: () => HubServer;
  readonly lfsBytes: number;
  /** Larger files come in parts of so many bytes. */
  readonly partBytes?: number;
  /** Whoever asks for a private repo gets a public one. */
  readonly ignoresPrivate?: boolean;
  /** Goes first; true: it has answered. */
  readonly fault?: (request: Request, body: Buffer) => boolean;
}

async function bodyOf({ request }: Request): Promise<Buffer> {
  const pieces: Buffer[] = [];
  try {
    for await (const piece of request as AsyncIterable<Buffer>) pieces.push(piece);
  } catch {
    // whoever sent it went away
  }
  return Buffer.concat(pieces);
}
const newCommit = (): string => createHash('sha1').update(String(Math.random())).digest('hex');

export function pushStore({
  server,
  lfsBytes,
  partBytes = Infinity,
  ignoresPrivate = false,
  fault,
}: PushStoreOptions): PushStore {
  const objects = new Map<string, Buffer>();
  const parts = new Map<string, Buffer>();
  const store = {
    objects,
    commits: [] as PushStore['commits'][number][],
    created: [] as Record<string, unknown>[],
    branches: [] as string[],
    settings: [] as unknown[],
  };
  const repoNamed = (name: string): string =>
    Object.keys(server().options.repos ?? {}).find((key) => key.endsWith(` ${name}`)) ?? `model ${name}`;

  const upload = (oid: string, size: number): Record<string, unknown> => {
    const at = `${server().cdn}/lfs/${oid}`;
    if (size <= partBytes) return { href: `${at}?Signature=secret-of-the-cdn` };
    const count = Math.ceil(size / partBytes);
    const urls = Array.from(
      { length: count },
      (_, i) => [String(i + 1).padStart(5, '0'), `${at}/${i + 1}?s=1`] as const,
    );
    return { href: `${at}/complete`, header: { chunk_size: String(partBytes), ...Object.fromEntries(urls) } };
  };
  const commit = (r: Request, name: string, branch: string, body: Buffer): void => {
    const lines = body
      .toString()
      .split('\n')
      .map((line) => JSON.parse(line) as { key: string; value: Record<string, string> });
    const key = repoNamed(name);
    const before = server().options.repos?.[key];
    const files: Record<string, Buffer> = { ...before?.files };
    for (const { key: kind, value } of lines.slice(1)) {
      const bytes = kind === 'lfsFile' ? objects.get(value.oid ?? '') : Buffer.from(value.content ?? '', 'base64');
      if (!bytes) {
        sendJson(r.response, { error: `no object ${value.oid}` }, 400);
        return;
      }
      files[value.path ?? ''] = bytes;
    }
    const oid = newCommit();
    const pullRequest = r.seen.path.includes('create_pr=1');
    store.commits.push({
      repo: name,
      branch,
      header: lines[0]?.value as never,
      paths: lines.slice(1).map((l) => l.value.path ?? ''),
      pullRequest,
    });
    server().options = {
      ...server().options,
      repos: { ...server().options.repos, [key]: { ...before, files, commit: oid } },
    };
    sendJson(r.response, {
      success: true,
      commitOid: oid,
      commitUrl: `${server().url}/${name}/commit/${oid}`,
      hookOutput: '',
      ...(pullRequest ? { pullRequestUrl: `${server().url}/${name}/discussions/1` } : {}),
    });
  };

  return {
    ...store,
    async handle(r) {
      const { seen, response } = r;
      const body = seen.method === 'GET' ? Buffer.alloc(0) : await bodyOf(r);
      if (fault?.(r, body)) return true;
      if (seen.method === 'GET') return false;
      const [path = ''] = seen.path.split('?');
      const json = <T>(): T => JSON.parse(body.toString()) as T;
      if (seen.port === 'cdn') {
        const [, , oid = '', part] = path.split('/');
        if (part === 'complete')
          objects.set(
            oid,
            Buffer.concat(
              [...parts]
                .filter(([k]) => k.startsWith(oid))
                .sort(([a], [b]) => Number(a.split('/')[1]) - Number(b.split('/')[1]))
                .map(([, b]) => b),
            ),
          );
        else if (part !== undefined) parts.set(`${oid}/${part}`, body);
        else objects.set(oid, body);
        const whole = objects.get(oid);
        const wrong = whole !== undefined && sha256(whole) !== oid;
        if (wrong) objects.delete(oid);
        response.writeHead(wrong ? 400 : 200, { etag: '"x"' });
        response.end('{}');
        return true;
      }
      const token = server().options.token;
      if (token !== undefined && seen.authorization !== `Bearer ${token}`) return false;
      const [, name = '', what = '', rest = ''] =
        /^\/api\/(?:models|datasets)\/([^/]+\/[^/]+)\/([a-z]+)\/?(.*)$/.exec(path) ?? [];
      if (path === '/api/repos/create') {
        const made = json<{ name: string; organization: string; visibility: string; type: string }>();
        store.created.push(made);
        server().options = {
          ...server().options,
          repos: {
            ...server().options.repos,
            [`${made.type} ${made.organization}/${made.name}`]: {
              files: {},
              commit: newCommit(),
              private: made.visibility === 'private' && !ignoresPrivate,
            },
          },
        };
        sendJson(response, { url: `${server().url}/${made.organization}/${made.name}` });
      } else if (what === 'preupload') {
        const { files } = json<{ files: { path: string; size: number }[] }>();
        sendJson(response, {
          files: files.map((f) => ({ path: f.path, uploadMode: f.size >= lfsBytes ? 'lfs' : 'regular' })),
        });
      } else if (path.endsWith('/info/lfs/objects/batch')) {
        const { objects: wanted } = json<{ objects: { oid: string; size: number }[] }>();
        sendJson(response, {
          transfer: 'basic',
          objects: wanted.map(({ oid, size }) => ({
            oid,
            size,
            ...(objects.has(oid) ? {} : { actions: { upload: upload(oid, size) } }),
          })),
        });
      } else if (what === 'commit') commit(r, name, decodeURIComponent(rest), body);
      else if (what === 'branch') {
        store.branches.push(decodeURIComponent(rest));
        const { options } = server();
        const commitOf = options.repos?.[repoNamed(name)]?.commit ?? '';
        server().options = {
          ...options,
          revisions: { main: commitOf, ...options.revisions, [decodeURIComponent(rest)]: commitOf },
        };
        sendJson(response, {});
      } else if (what === 'settings') {
        store.settings.push(json());
        sendJson(response, {});
      } else return false;
      return true;
    },
  };
}

// The page at `/`: the files of the folder `playground` as they are, with the colours of all pages. It holds nothing of
// the server. What it shows it asks of the API, with its reader's key, as any client does.
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { packageRoot } from '../base/machine.js';
import { COLOURS } from '../report/html.js';
import type { ApiApp } from './api.js';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};
/** Nothing but these files and the API behind them; no text becomes markup or code; no page shows it inside itself. */
const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  // The next version of this package has others.
  'cache-control': 'no-store',
};

interface File {
  readonly type: string;
  readonly text: string;
}
/** By their paths. */
function readFiles(): ReadonlyMap<string, File> {
  const folder = join(packageRoot, 'playground');
  return new Map(
    readdirSync(folder).flatMap((name) => {
      const type = TYPES[extname(name)];
      if (type === undefined) return [];
      const text = readFileSync(join(folder, name), 'utf8');
      const path = name === 'index.html' ? '/' : `/playground/${name}`;
      return [[path, { type, text: name === 'style.css' ? COLOURS + text : text }] as const];
    }),
  );
}

export interface PlaygroundOptions {
  /** As it is now. */
  readonly shown: () => boolean;
  /** Requests need a key, as it is now: then the page asks for one. */
  readonly keysWanted: () => boolean;
}
export interface Playground {
  /** A path that needs no key. */
  has(path: string): boolean;
  register(app: ApiApp): void;
}

export function createPlayground({ shown, keysWanted }: PlaygroundOptions): Playground {
  const files = readFiles();
  const has = (path: string): boolean => shown() && files.has(path);
  return {
    has,
    register(app) {
      for (const [path, { type, text }] of files)
        app.get(path, (c, next) => {
          if (!has(path)) return next();
          return c.body(text.replace('{{keys}}', keysWanted() ? 'yes' : 'no'), 200, {
            ...HEADERS,
            'content-type': type,
          });
        });
    },
  };
}

// The page at `/`: the files of the folder `playground`. What it shows it asks of the API, with its reader's key, as
// any client does.
import type { ApiApp } from './api.js';
import { PAGE_HEADERS, readPageFiles } from './page-files.js';

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
  const files = readPageFiles('playground', '/');
  const has = (path: string): boolean => shown() && files.has(path);
  return {
    has,
    register(app) {
      for (const [path, { type, text }] of files)
        app.get(path, (c, next) => {
          if (!has(path)) return next();
          return c.body(text.replace('{{keys}}', keysWanted() ? 'yes' : 'no'), 200, {
            ...PAGE_HEADERS,
            'content-type': type,
          });
        });
    },
  };
}

// Pages of this package as they are served: the files of a folder, with the colours of all pages, and headers under
// which nothing but them runs. They hold nothing of the server.
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { packageRoot } from '../base/machine.js';
import { COLOURS } from '../report/html.js';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};
/** Nothing but these files and the API behind them; no text becomes markup or code; no page shows it inside itself. */
export const PAGE_HEADERS = {
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

export interface PageFile {
  readonly type: string;
  readonly text: string;
}
/**
 * By their paths: `index.html` at `home`, the others below `/FOLDER/`.
 * @param folder of the package
 */
export function readPageFiles(folder: string, home: string): ReadonlyMap<string, PageFile> {
  const place = join(packageRoot, folder);
  return new Map(
    readdirSync(place).flatMap((name) => {
      const type = TYPES[extname(name)];
      if (type === undefined) return [];
      const text = readFileSync(join(place, name), 'utf8');
      const path = name === 'index.html' ? home : `/${folder}/${name}`;
      return [[path, { type, text: name === 'style.css' ? COLOURS + text : text }] as const];
    }),
  );
}

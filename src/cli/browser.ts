// Asks the desktop for a browser. Whether it has one is no matter of ours: the address was printed.
import { spawn } from 'node:child_process';
import { tell } from './terminal.js';

const OPENERS: Readonly<Partial<Record<NodeJS.Platform, string>>> = { darwin: 'open', win32: 'explorer' };

export function openBrowser(url: string): void {
  const opener = OPENERS[process.platform] ?? 'xdg-open';
  const child = spawn(opener, [url], { stdio: 'ignore', detached: true });
  child.on('error', () => tell(`note: ${opener} is not there; open ${url} in a browser`));
  child.unref();
}

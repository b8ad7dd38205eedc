// Names of files and folders under way: hidden, beside their place, with who writes them, so that what a dead process
// left can be told from what a living one needs.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { threadId } from 'node:worker_threads';

/** Where a process number means a process: the host and, in containers, the namespace. */
export const processSpace: string = (() => {
  let namespace = '';
  try {
    namespace = readlinkSync('/proc/self/ns/pid');
  } catch {
    // not Linux
  }
  return createHash('sha256').update(`${hostname()}\0${namespace}`).digest('hex').slice(0, 8);
})();

/** Whether that process of this space is there; one that belongs to somebody else is. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EPERM';
  }
}

let counter = 0;
const nameOf = (path: string, end: 'tmp' | 'old'): string =>
  join(
    dirname(path),
    `.${basename(path)}.${process.pid}.${processSpace}.${threadId}-${Date.now().toString(36)}-${counter++}.${end}`,
  );
/**
 * A name beside `path` that no other writer of this or another process uses; hidden, so that no reader takes it for the
 * thing itself.
 */
export const temporaryName = (path: string): string => nameOf(path, 'tmp');
/** The same for what stood at `path` until it is replaced. */
export const replacedName = (path: string): string => nameOf(path, 'old');

/** Removes what writers of `path` left that are dead: killed, or out of power. Never the only copy of anything. */
export function removeLeftovers(path: string): void {
  const start = `.${basename(path)}.`;
  let names: string[];
  try {
    names = readdirSync(dirname(path)).filter((name) => name.startsWith(start));
  } catch {
    return; // the writer will say what is wrong with the folder
  }
  for (const name of names) {
    const [, pid, space, end] = /^(\d+)\.([0-9a-f]{8})\.[0-9a-z-]+\.(tmp|old)$/.exec(name.slice(start.length)) ?? [];
    if (pid === undefined || space !== processSpace || isAlive(Number(pid))) continue;
    if (end === 'tmp' || existsSync(path)) rmSync(join(dirname(path), name), { recursive: true, force: true });
  }
}

export function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

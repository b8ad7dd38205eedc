// A run in a browser while it goes on. The server has a thread of its own: it reads the run's folder and knows nothing
// of the training, which it neither waits for nor holds up.
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { openChannel } from '../base/channel.js';
import { ConfigError } from '../base/errors.js';
import { isBegun } from '../runs/run-folder.js';

export interface WatchRequest {
  readonly run: string;
  readonly port: number;
}
export interface WatchInfo {
  readonly port: number;
}
export type WatchCalls = {
  readonly serve: { readonly request: null; readonly event: never; readonly result: never };
};
const ENTRY = 'watch/worker.js';

export interface WatchOptions {
  /** Of 127.0.0.1; default 0: one that is free. */
  readonly port?: number;
  /** Aborting closes it. */
  readonly signal?: AbortSignal;
}
/** A page on this machine that shows a run. */
export interface Watch {
  readonly url: string;
  /** Settles when it serves no longer: closed, or its thread died, with the error. */
  readonly closed: Promise<void>;
  /** Ends open connections too. */
  close(): Promise<void>;
}

/**
 * @throws {ConfigError} not_a_run: what lies there is neither a run, nor the beginning of one, nor nothing
 */
function requireWatchable(run: string): void {
  if (!existsSync(run) || (statSync(run).isDirectory() && (existsSync(join(run, 'run.json')) || isBegun(run)))) return;
  throw new ConfigError('not_a_run', `${run}: holds no run.json; wanted the folder of a run, as in runs/NAME`, {
    path: run,
  });
}

/**
 * Serves a run's page on the loopback address until it is closed.
 * @param run its folder, which may appear later
 * @throws {ConfigError} not_a_run, port_unusable · the signal's reason
 */
export async function watchRun(run: string, options: WatchOptions = {}): Promise<Watch> {
  const folder = resolve(run);
  requireWatchable(folder);
  return openWatch(folder, options);
}

/** The same for a folder that somebody else looks after. @throws {ConfigError} port_unusable · the signal's reason */
export async function openWatch(run: string, { port = 0, signal }: WatchOptions = {}): Promise<Watch> {
  const request: WatchRequest = { run, port };
  const channel = await openChannel<WatchCalls, WatchInfo>(ENTRY, request, { name: 'watch', signal });
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= channel.close();
    return closing;
  };
  const closed = channel.call('serve', null).catch(async (error: unknown) => {
    if (!closing) throw error;
    await closing;
  });
  const abort = (): void => void close();
  signal?.addEventListener('abort', abort, { once: true });
  // Nobody has to ask how it ended.
  closed.catch(() => {}).finally(() => signal?.removeEventListener('abort', abort));
  if (signal?.aborted) abort();
  return { url: `http://127.0.0.1:${channel.info.port}/`, closed, close };
}

// Pulls from a hub as the main thread sees them: promises. The work has a thread of its own.
import { runInThread } from '../base/channel.js';
import type { PullProgress } from './folder.js';
import { isReference } from './reference.js';
import type { CacheRequest, CacheResult, PullRequest, PullResult } from './run-pull.js';
import type { PushFiles, PushResult } from './run-push.js';

export type { PullProgress } from './folder.js';
export type { PullRequest, PullResult } from './run-pull.js';
export type { PushFiles, PushResult } from './run-push.js';

export type HubEvent = { readonly progress: PullProgress } | { readonly notice: string };
/** What the hub's thread answers. */
export type HubCalls = {
  readonly pull: { readonly request: PullRequest; readonly event: HubEvent; readonly result: PullResult };
  readonly push: { readonly request: PushFiles; readonly event: HubEvent; readonly result: PushResult };
  readonly cache: { readonly request: CacheRequest; readonly event: HubEvent; readonly result: CacheResult };
};
const ENTRY = 'hub/worker.js';

export interface PullHooks {
  readonly onProgress?: ((progress: PullProgress) => void) | undefined;
  /** What should be known, a sentence each. */
  readonly onNotice?: ((notice: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}
const onEvent =
  ({ onProgress, onNotice }: PullHooks) =>
  (event: HubEvent): void =>
    'notice' in event ? onNotice?.(event.notice) : onProgress?.(event.progress);

/**
 * Pulls a repo of a hub into a folder: every file at one commit, checked by digest, or an error that says what is
 * missing. What came is kept for the next try, whatever ends it.
 * @throws {ConfigError} what the caller must mend · {HubError} the other side · {IntegrityError} a digest that does not
 * match · the signal's reason
 */
export const pull = (request: PullRequest, hooks: PullHooks = {}): Promise<PullResult> =>
  runInThread<HubCalls, 'pull'>(ENTRY, 'pull', request, { signal: hooks.signal, onEvent: onEvent(hooks) });

/**
 * Pushes files whose digests are known to a hub, as one commit.
 * @throws as pull · {IntegrityError} export_changed: a file is not the one whose digest was given
 */
export const pushFiles = (request: PushFiles, hooks: PullHooks = {}): Promise<PushResult> =>
  runInThread<HubCalls, 'push'>(ENTRY, 'push', request, { signal: hooks.signal, onEvent: onEvent(hooks) });

/** Brings what hf:// references mean into the cache. @throws as pull */
export const pullReferences = (request: CacheRequest, hooks: PullHooks = {}): Promise<CacheResult> =>
  runInThread<HubCalls, 'cache'>(ENTRY, 'cache', request, { signal: hooks.signal, onEvent: onEvent(hooks) });

/** A path as it is, an hf:// reference as the path in the cache where what it means is now. @throws as pull */
export async function localOf(path: string, hooks: PullHooks = {}): Promise<string> {
  if (!isReference(path)) return path;
  const found = (await pullReferences({ references: [path] }, hooks))[path];
  return found?.local ?? path;
}

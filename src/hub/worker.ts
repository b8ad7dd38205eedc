// Entry of the thread that talks to a hub.
import { serve } from '../base/channel-worker.js';
import type { FillHooks } from './folder.js';
import type { HubCalls, HubEvent } from './pull.js';

/** Progress is told this often at most, ms. */
const TELL_MS = 50;

function hooksOf(signal: AbortSignal, emit: (event: HubEvent) => void): FillHooks {
  let last = Number.NEGATIVE_INFINITY;
  return {
    signal,
    onNotice: (notice) => emit({ notice }),
    onProgress(progress) {
      const now = performance.now();
      if (now - last < TELL_MS && progress.done < progress.total) return;
      last = now;
      emit({ progress });
    },
  };
}

await serve<HubCalls, null>(async () => {
  const { runPull, pullIntoCache } = await import('./run-pull.js');
  return {
    info: null,
    handlers: {
      pull: (request, { signal, emit }) => runPull(request, hooksOf(signal, emit)),
      async push(request, { signal, emit }) {
        const { runPush } = await import('./run-push.js');
        return runPush(request, hooksOf(signal, emit));
      },
      cache: (request, { signal, emit }) => pullIntoCache(request, hooksOf(signal, emit)),
    },
  };
});

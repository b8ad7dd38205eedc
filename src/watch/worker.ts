// Entry of the thread that watches a run.
import { serve } from '../base/channel-worker.js';
import type { WatchCalls, WatchInfo, WatchRequest } from './watch.js';

await serve<WatchCalls, WatchInfo, WatchRequest>(async ({ run, port }) => {
  const [{ RunFollower }, { WatchServer }] = await Promise.all([import('./follow.js'), import('./server.js')]);
  const server = new WatchServer(new RunFollower(run));
  await server.listen(port);
  return {
    info: { port: server.port },
    // Answered when the thread ends, by its end.
    handlers: { serve: () => new Promise<never>(() => {}) },
    close: () => server.close(),
  };
});

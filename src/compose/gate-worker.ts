// Entry of the thread that says how an adapter stands before the release gate.
import { serve } from '../base/channel-worker.js';
import type { StandingCalls } from './release.js';

await serve<StandingCalls, null>(async () => {
  const { standingsOf, exportStanding } = await import('./gate-standing.js');
  return {
    info: null,
    handlers: {
      standings: (request, { signal }) => standingsOf(request, signal),
      export: ({ dir }, { signal }) => exportStanding(dir, signal),
    },
  };
});

// Entry of the thread that decides.
import { serve } from '../base/channel-worker.js';
import type { DecideCalls } from './deciding.js';

await serve<DecideCalls, null>(async () => {
  const { decideFiles, discordantOf } = await import('./decide-files.js');
  return {
    info: null,
    handlers: {
      pairs: (request) => discordantOf(request),
      decide: (request, { signal, emit }) =>
        decideFiles(request, { signal, onProgress: (done, of) => emit([done, of]) }),
    },
  };
});
